"""Packets out of a stream, however it is cut, and what its headers alone give away."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.protocol.mqtt.faults import CloseCause, PeerFault
from gatewayd.protocol.mqtt.framing import PacketReader
from tests.support import mqtt_bytes
from tests.support.mqtt_strategies import pieces


def drain(reader: PacketReader) -> list[tuple[int, bytes]]:
    found = []
    while (packet := reader.next_packet()) is not None:
        found.append(packet)
    return found


bodies = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([126, 127, 128, 129, 16_383, 16_384]).map(lambda size: b"\x5a" * size),
)


@settings(deadline=None)
@given(
    st.lists(bodies, max_size=5),
    st.lists(st.integers(0, 70_000), max_size=8),
    st.sampled_from([bytes, bytearray, memoryview]),
)
def test_the_packets_of_a_stream_do_not_depend_on_its_cuts(
    contents: list[bytes], cuts: list[int], kind: type[bytes | bytearray | memoryview]
) -> None:
    stream = b"".join(mqtt_bytes.packet(0x30, body) for body in contents)
    reader = PacketReader(100_000)
    found = []
    for piece in pieces(stream, cuts):
        reader.feed(kind(piece))
        found += drain(reader)
    assert found == [(0x30, body) for body in contents]
    assert reader.buffered == 0


def test_what_was_fed_may_be_overwritten_at_once() -> None:
    reader = PacketReader(100)
    shared = bytearray(mqtt_bytes.publish("a", b"first"))
    reader.feed(memoryview(shared))
    shared[:] = bytes(len(shared))
    assert drain(reader) == [(0x30, b"\x00\x01afirst")]


def test_a_body_is_bytes_even_when_it_came_in_pieces() -> None:
    reader = PacketReader(100)
    for byte in mqtt_bytes.publish("a", b"x"):
        reader.feed(bytes([byte]))
    ((_, body),) = drain(reader)
    assert type(body) is bytes


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        (b"\x00", CloseCause.MALFORMED),
        (b"\xf0", CloseCause.MALFORMED),
        (b"\x36", CloseCause.MALFORMED),
        (b"\x30\xff\xff\xff\xff", CloseCause.MALFORMED),
        (b"\x30\x80\x80\x80\x80", CloseCause.MALFORMED),
        (b"\x30\x63", CloseCause.TOO_LARGE),
        (b"\x30\xff\x7f", CloseCause.TOO_LARGE),
        (b"\x30\xff\xff\xff\x7f", CloseCause.TOO_LARGE),
    ],
)
def test_a_header_is_judged_before_its_body_comes(header: bytes, cause: CloseCause) -> None:
    for cuts in ([], list(range(1, len(header)))):
        reader = PacketReader(100)
        *early, last = pieces(header, cuts)
        for piece in early:
            reader.feed(piece)
            assert reader.next_packet() is None
        reader.feed(last)
        with pytest.raises(PeerFault) as fault:
            reader.next_packet()
        assert fault.value.cause is cause


def test_the_limit_counts_the_whole_packet() -> None:
    for size, fits in ((98, True), (99, False)):
        reader = PacketReader(100)
        reader.feed(mqtt_bytes.packet(0x30, bytes(size)))
        if fits:
            assert reader.next_packet() == (0x30, bytes(98))
        else:
            with pytest.raises(PeerFault, match="at most 100"):
                reader.next_packet()


def test_an_idle_reader_keeps_nothing() -> None:
    reader = PacketReader(1_000_000)
    for cuts in ([], [1, 500]):
        for piece in pieces(mqtt_bytes.packet(0x30, bytes(100_000)), cuts):
            reader.feed(piece)
            drain(reader)
        assert reader.buffered == 0
        assert len(reader._bytes) == 0


def test_the_bytes_copied_grow_with_the_bytes_received_and_not_with_their_square() -> None:
    class Counting(bytearray):
        copied = 0

        def __iadd__(self, other):  # type: ignore[no-untyped-def,misc]  # counts for bytearray.__iadd__
            Counting.copied += len(other)
            return super().__iadd__(other)

        def __delitem__(self, key):  # type: ignore[no-untyped-def]  # counts for bytearray.__delitem__
            Counting.copied += len(self)
            super().__delitem__(key)

    stream = mqtt_bytes.packet(0x30, bytes(50_000)) * 2
    reader = PacketReader(100_000)
    reader._bytes = Counting(b"\x30")
    for at in range(1, len(stream)):
        reader.feed(stream[at : at + 1])
        drain(reader)
    assert Counting.copied < 2 * len(stream)


def test_a_header_in_pieces_is_not_read_again_for_every_byte_of_its_body() -> None:
    reader = PacketReader(100_000)
    reader.feed(b"\x30\xd0\x86\x03")
    assert reader.next_packet() is None
    assert reader._wanted == 50_004
