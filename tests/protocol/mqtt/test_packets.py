"""Packets and their bytes, against a generator and a library that know nothing of ours."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt import client as paho

from gatewayd.errors import LocalProtocolError, RemoteProtocolError
from gatewayd.protocol.mqtt.faults import CloseCause, InvalidPacket, PeerFault
from gatewayd.protocol.mqtt.packets import (
    Connack,
    ConnackCode,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    decode,
    encode,
)
from gatewayd.protocol.mqtt.wire import MAX_REMAINING_LENGTH
from tests.support import mqtt_bytes
from tests.support.mqtt_strategies import connects, packets, publishes, subscribes, unsubscribes


def parse(data: bytes) -> Packet:
    """Decodes one whole packet, its header read by the test's own splitter."""
    assert mqtt_bytes.split_packets(data) == [data]
    return decode(data[0], body_of(data))


def body_of(data: bytes) -> bytes:
    """What follows the remaining length."""
    at = 1
    while data[at] >= 0x80:
        at += 1
    return data[at + 1 :]


def generated(packet: Packet) -> bytes:
    """The packet's bytes as the tests' own generator writes them."""
    match packet:
        case Connect():
            will = packet.will
            return mqtt_bytes.connect(
                packet.client_id,
                packet.keep_alive,
                clean=packet.clean_session,
                username=packet.username,
                password=packet.password,
                will=None if will is None else (will.topic, will.payload, will.qos, will.retain),
            )
        case Connack(session_present, code):
            return mqtt_bytes.connack(int(code), session_present=session_present)
        case Publish(topic, payload, qos, packet_id, dup, retain):
            return mqtt_bytes.publish(topic, payload, qos, packet_id, dup=dup, retain=retain)
        case Puback(packet_id):
            return mqtt_bytes.puback(packet_id)
        case Pubrec(packet_id):
            return mqtt_bytes.pubrec(packet_id)
        case Pubrel(packet_id):
            return mqtt_bytes.pubrel(packet_id)
        case Pubcomp(packet_id):
            return mqtt_bytes.pubcomp(packet_id)
        case Subscribe(packet_id, filters):
            return mqtt_bytes.subscribe(packet_id, *filters)
        case Suback(packet_id, codes):
            return mqtt_bytes.suback(packet_id, *codes)
        case Unsubscribe(packet_id, given_up):
            return mqtt_bytes.unsubscribe(packet_id, *given_up)
        case Unsuback(packet_id):
            return mqtt_bytes.unsuback(packet_id)
        case Pingreq():
            return mqtt_bytes.PINGREQ
        case Pingresp():
            return mqtt_bytes.PINGRESP
        case Disconnect():
            return mqtt_bytes.DISCONNECT


@settings(deadline=None)
@given(packets)
def test_every_packet_comes_back_from_its_bytes(packet: Packet) -> None:
    assert parse(encode(packet)) == packet


@settings(deadline=None)
@given(packets)
def test_the_bytes_are_those_of_the_independent_generator(packet: Packet) -> None:
    assert encode(packet) == generated(packet)
    assert parse(generated(packet)) == packet


@settings(deadline=None)
@given(st.integers(0, 255), st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_the_peers_fault(first_byte: int, body: bytes) -> None:
    try:
        packet = decode(first_byte, body)
    except PeerFault as error:
        fault = error
    else:
        assert encode(packet) == bytes([first_byte]) + mqtt_bytes.remaining_length(len(body)) + body
        return
    assert fault.cause is CloseCause.MALFORMED
    assert fault.clause


@settings(deadline=None)
@given(packets, st.data())
def test_a_packet_with_a_byte_missing_or_added_is_never_read_as_itself(
    packet: Packet, data: st.DataObject
) -> None:
    raw = generated(packet)
    body = body_of(raw)
    at = data.draw(st.integers(0, len(body)))
    damaged = data.draw(st.sampled_from([body[:at], body[:at] + b"\0" + body[at:]]))
    if damaged == body:
        return
    with contextlib.suppress(RemoteProtocolError):
        assert decode(raw[0], damaged) != packet


class TestAgainstPaho:
    """paho-mqtt 1.6 as the other end: it writes what we read, and reads what we write."""

    @settings(deadline=None)
    @given(connects())
    def test_we_read_the_connect_it_writes(self, packet: Connect) -> None:
        if not packet.client_id or packet.keep_alive == 0 or packet.username == "":
            return  # paho makes up an id, and takes an empty name for none
        peer = CapturedPaho(packet.client_id, clean_session=packet.clean_session)
        if packet.will is not None:
            peer.will_set(packet.will.topic, packet.will.payload, packet.will.qos, packet.will.retain)
        if packet.username is not None:
            peer.username_pw_set(packet.username, packet.password)
        peer._send_connect(packet.keep_alive)
        assert peer.written == [encode(packet)]
        assert parse(peer.written[0]) == packet

    @settings(deadline=None)
    @given(publishes())
    def test_we_read_the_publish_it_writes(self, packet: Publish) -> None:
        peer = CapturedPaho("dev")
        peer._sock = NoSocket()
        peer._send_publish(
            packet.packet_id, packet.topic.encode(), packet.payload, packet.qos, packet.retain, packet.dup
        )
        assert peer.written == [encode(packet)]
        assert parse(peer.written[0]) == packet

    @settings(deadline=None)
    @given(subscribes, unsubscribes)
    def test_we_read_the_requests_it_writes(self, subscribe: Subscribe, unsubscribe: Unsubscribe) -> None:
        peer = CapturedPaho("dev")
        peer._last_mid = subscribe.packet_id - 1
        peer._send_subscribe(False, [(text.encode(), qos) for text, qos in subscribe.filters])
        peer._last_mid = unsubscribe.packet_id - 1
        peer._send_unsubscribe(False, [text.encode() for text in unsubscribe.filters])
        assert [parse(raw) for raw in peer.written] == [subscribe, unsubscribe]
        assert peer.written == [encode(subscribe), encode(unsubscribe)]

    @pytest.mark.parametrize(
        ("name", "packet"),
        [("_send_pingreq", Pingreq()), ("_send_disconnect", Disconnect())],
    )
    def test_we_read_the_small_packets_it_writes(self, name: str, packet: Packet) -> None:
        peer = CapturedPaho("dev")
        getattr(peer, name)()
        assert [parse(raw) for raw in peer.written] == [packet]

    @pytest.mark.parametrize("kind", [Puback, Pubrec, Pubrel, Pubcomp])
    def test_we_read_the_receipts_it_writes(self, kind: type[Puback | Pubrec | Pubrel | Pubcomp]) -> None:
        peer = CapturedPaho("dev")
        getattr(peer, f"_send_{kind.__name__.lower()}")(65_279)
        assert [parse(raw) for raw in peer.written] == [kind(65_279)]

    @pytest.mark.parametrize(
        "packet",
        [
            Publish("devices/dev/messages/devicebound/%24.to=x", b"hello"),
            Publish("a", b"", 1, 65_535, dup=True, retain=True),
            Publish("ä/𪛔", b"\x00\xff" * 9_000, 1, 1),
            Publish("a" * 130, b"x" * 2_000_000),
        ],
    )
    def test_it_reads_the_publish_we_write(self, packet: Publish) -> None:
        seen: list[paho.MQTTMessage] = []
        with reading_paho() as (peer, wire):
            peer.on_message = lambda _client, _userdata, message: seen.append(message)
            feed(peer, wire, encode(packet))
        (message,) = seen
        assert (message.topic, message.payload, message.qos) == (packet.topic, packet.payload, packet.qos)
        assert (message.mid, message.dup, message.retain) == (packet.packet_id, packet.dup, packet.retain)

    # Not 1, on which paho dials again with MQTT 3.1 by itself.
    @pytest.mark.parametrize("code", [code for code in ConnackCode if code != 1])
    def test_it_reads_the_connack_we_write(self, code: ConnackCode) -> None:
        seen: list[tuple[int, int]] = []
        with reading_paho() as (peer, wire):
            peer.on_connect = lambda _client, _userdata, flags, rc: seen.append(
                (flags["session present"], rc)
            )
            feed(peer, wire, encode(Connack(code is ConnackCode.ACCEPTED, code)))
        assert seen == [(1 if code is ConnackCode.ACCEPTED else 0, code)]

    def test_it_reads_the_answers_we_write(self) -> None:
        seen: list[tuple[object, ...]] = []
        with reading_paho() as (peer, wire):
            peer.on_subscribe = lambda _client, _userdata, mid, granted: seen.append((mid, granted))
            peer.on_unsubscribe = lambda _client, _userdata, mid: seen.append((mid,))
            feed(peer, wire, encode(Suback(513, (0, 1, 0x80))) + encode(Unsuback(514)))
        assert seen == [(513, (0, 1, 0x80)), (514,)]


class CapturedPaho(paho.Client):  # type: ignore[misc]  # paho 1.6 ships no types
    """A paho client whose packets go into a list."""

    def __init__(self, client_id: str, *, clean_session: bool = True) -> None:
        super().__init__(client_id, clean_session, protocol=paho.MQTTv311)
        self.written: list[bytes] = []

    def _packet_queue(self, _command: int, packet: bytes, *_rest: Any) -> int:
        self.written.append(bytes(packet))
        return int(paho.MQTT_ERR_SUCCESS)


class NoSocket:
    """paho asks only whether there is one, and closes it in the end."""

    def close(self) -> None:
        pass


@contextmanager
def reading_paho() -> Iterator[tuple[CapturedPaho, socket.socket]]:
    """A paho client that reads from a socket, and the other end of it."""
    ours, theirs = socket.socketpair()
    peer = CapturedPaho("dev")
    with ours, theirs:
        theirs.setblocking(False)
        peer._sock = theirs
        peer._state = paho.mqtt_cs_connected
        yield peer, ours
        peer._sock = None


def feed(peer: CapturedPaho, wire: socket.socket, data: bytes) -> None:
    """Has paho read `data` as it comes, 64 KiB at a time."""
    for at in range(0, len(data), 65_536):
        wire.sendall(data[at : at + 65_536])
        for _ in range(1_000):
            if peer._packet_read() == paho.MQTT_ERR_AGAIN:
                break


@pytest.mark.parametrize(
    ("make", "clause"),
    [
        (lambda: Publish("a", b"", 3, 1), "MQTT-3.3.1-4"),
        (lambda: Publish("a", b"", -1, 1), "MQTT-3.3.1-4"),
        (lambda: Publish("a", b"", 1, 0), "MQTT-2.3.1-1"),
        (lambda: Publish("a", b"", 1, 65_536), "MQTT-2.3.1-1"),
        (lambda: Publish("a", b"", 0, 1), "MQTT-2.3.1-5"),
        (lambda: Publish("a", b"", dup=True), "MQTT-3.3.1-2"),
        (lambda: Publish("", b""), "MQTT-4.7.3-1"),
        (lambda: Publish("a/#", b""), "MQTT-3.3.2-2"),
        (lambda: Publish("a" * 65_536, b""), "1.5.3"),
        (lambda: Puback(0), "MQTT-2.3.1-1"),
        (lambda: Subscribe(1, ()), "MQTT-3.8.3-3"),
        (lambda: Subscribe(1, (("a", 3),)), "MQTT-3.8.3-4"),
        (lambda: Suback(1, ()), "MQTT-3.9.3-1"),
        (lambda: Suback(1, (3,)), "MQTT-3.9.3-2"),
        (lambda: Unsubscribe(1, ()), "MQTT-3.10.3-2"),
        (lambda: Connack(True, ConnackCode.NOT_AUTHORIZED), "MQTT-3.2.2-4"),
        (lambda: Connect(""), "MQTT-3.1.3-8"),
        (lambda: Connect("d", 65_536), "3.1.2.10"),
        (lambda: Connect("d", password=b"x"), "MQTT-3.1.2-22"),
        (lambda: Connect("d", username="u", password=bytes(65_536)), "3.1.3.5"),
        (lambda: Connect("d", username="\0"), "MQTT-1.5.3-2"),
        (lambda: Will("w", bytes(65_536)), "3.1.3.3"),
        (lambda: Will("w", b"", 3), "MQTT-3.1.2-14"),
        (lambda: Will("w/+", b""), "MQTT-3.3.2-2"),
    ],
)
def test_a_packet_that_breaks_a_rule_cannot_be_made(make: Any, clause: str) -> None:
    with pytest.raises(InvalidPacket) as refusal:
        make()
    assert refusal.value.clause == clause
    assert isinstance(refusal.value, LocalProtocolError)


def test_a_packet_longer_than_the_wire_allows_is_refused() -> None:
    class Endless(bytes):
        def __len__(self) -> int:
            return MAX_REMAINING_LENGTH

    with pytest.raises(InvalidPacket, match=r"2\.2\.3"):
        encode(Publish("a", Endless()))


def test_no_repr_shows_a_password_or_a_payload() -> None:
    secret = b"c2VjcmV0"
    shown = repr(Connect("d", username="u", password=secret, will=Will("w", secret))) + repr(
        Publish("t", secret)
    )
    assert "c2VjcmV0" not in shown
