"""A WebSocket as a stream: against frames written by hand, and itself."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayd.errors import Bounded, ConnectionLost, HandshakeFailed, LocalProtocolError
from gatewayd.transport.stream import Stream
from gatewayd.transport.tls_stream import StreamLimits
from gatewayd.transport.websocket_stream import FRAME_BYTES, WebSocketStream
from gatewayd.transport.websocket_upgrade import Declined, Upgraded
from tests.support.stream_owners import PATIENCE, Recorder, settle, stdlib_server
from tests.support.tls_material import HUB, Tls
from tests.support.websocket_rig import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    HandWebSocket,
    close_frame,
    frame,
    websocket_dialled,
    websockets_served,
)


@asynccontextmanager
async def met(
    tls: Tls, owner: Recorder, *, behind: bytes = b"", **options: object
) -> AsyncIterator[HandWebSocket]:
    """A client by hand, upgraded at our server, whose end is `owner`'s."""
    async with websockets_served(tls.our_server(), lambda _: owner, **options) as server:
        hand = await HandWebSocket.connect(server.port, tls.their_client(), behind=behind)
        assert hand.status == 101
        await owner.until_told("ready")
        try:
            yield hand
        finally:
            await hand.leave()
            await owner.until_told("closed") if owner.stream is not None else None


def closing() -> Recorder:
    """An owner that closes when the peer ends, as a conversation does."""
    return Recorder(eof=lambda it: it.s.close())


# Data


async def test_data_passes_both_ways_in_binary_frames(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner) as hand:
        hand.send(BINARY, b"up")
        await owner.until(lambda it: it.data == b"up")
        owner.s.write(b"down")
        assert await hand.receive() == (BINARY, b"down")


async def test_fragments_and_several_frames_in_one_read_are_one_flow(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner) as hand:
        hand.writer.write(
            frame(BINARY, b"a", fin=False)
            + frame(PING, b"between")
            + frame(CONTINUATION, b"", fin=False)
            + frame(CONTINUATION, b"b")
            + frame(BINARY, b"c")
        )
        await owner.until(lambda it: it.data == b"abc")
        assert await hand.receive() == (PONG, b"between")
    assert owner.calls.count("data") == 1


async def test_a_frame_is_handed_on_before_it_is_whole(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner) as hand:
        hand.writer.write(frame(BINARY, bytes(100_000))[:60_000])
        await owner.until(lambda it: len(it.data) > 50_000)
        owner.s.abort()


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536, 300_000])
async def test_sizes_at_the_edges_of_the_frame_header_pass(tls: Tls, size: int) -> None:
    owner, data = closing(), random.Random(size).randbytes(size)
    async with met(tls, owner) as hand:
        hand.send(BINARY, data)
        await owner.until(lambda it: len(it.data) == size)
        assert owner.data == data
        owner.s.write(data)
        got = b""
        while len(got) < size:
            opcode, payload = await hand.receive()
            assert opcode == BINARY
            assert len(payload) <= FRAME_BYTES
            got += payload
        assert got == data


async def test_data_behind_the_request_is_handed_on_after_ready(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner, behind=frame(BINARY, b"early")):
        await owner.until(lambda it: it.data == b"early")
    assert owner.calls[:2] == ["ready", "data"]


async def test_data_behind_the_request_waits_for_a_paused_owner(tls: Tls) -> None:
    owner = Recorder(ready=lambda it: it.s.pause_reading(), eof=lambda it: it.s.close())
    async with met(tls, owner, behind=frame(BINARY, b"early")) as hand:
        hand.send(BINARY, b" and late")
        await settle()
        assert owner.calls == ["ready"]
        owner.s.resume_reading()
        assert owner.calls == ["ready"], "never inside the call"
        await owner.until(lambda it: it.data == b"early and late")


async def test_an_end_behind_a_pause_is_told_after_it(tls: Tls) -> None:
    owner = Recorder(data=lambda it: it.s.pause_reading(), eof=lambda it: it.s.close())
    async with met(tls, owner) as hand:
        hand.writer.write(frame(BINARY, b"last") + close_frame())
        assert await hand.close_code() == 1000
        assert owner.calls == ["ready", "data"]
        owner.s.resume_reading()
        await owner.until_told("closed")
    assert owner.calls == ["ready", "data", "eof", "closed"]


# Control frames


async def test_a_ping_is_answered_with_its_payload(tls: Tls) -> None:
    async with met(tls, closing()) as hand:
        hand.send(PING, b"are you there")
        assert await hand.receive() == (PONG, b"are you there")


async def test_of_many_pings_at_once_the_last_is_answered(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner) as hand:
        hand.writer.write(b"".join(frame(PING, b"%d" % count) for count in range(50)) + frame(BINARY, b"."))
        assert await hand.receive() == (PONG, b"49")
        owner.s.write(b"no more")
        assert await hand.receive() == (BINARY, b"no more")


async def test_a_pong_that_nobody_asked_for_is_nothing(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner) as hand:
        hand.writer.write(frame(PONG, b"?") + frame(BINARY, b"x"))
        await owner.until(lambda it: it.data == b"x")
    assert owner.error is None


# What is refused


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"hello"), 1003),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(BINARY, b"x", masked=False), 1002),
        (frame(BINARY, b"x", reserved=0x40), 1002),
        (frame(3, b"x"), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, bytes(126)), 1002),
        (b"\x82\xff" + b"\xff" * 8, 1002),
        (frame(CLOSE, b"x"), 1002),
        (close_frame(1006), 1002),
    ],
    ids=[
        "text", "text that is none", "unmasked", "reserved bit", "unknown opcode", "continues nothing",
        "begins inside", "fragmented ping", "long ping", "length of 2^63", "close of one byte", "close with 1006",
    ],
)  # fmt: skip
async def test_what_breaks_the_framing_ends_the_stream_with_the_code_that_says_why(
    tls: Tls, sent: bytes, code: int
) -> None:
    owner = Recorder()
    async with met(tls, owner) as hand:
        hand.writer.write(frame(BINARY, b"good") + sent + frame(BINARY, b"after"))
        assert await hand.close_code() == code
        assert await hand.ended() == b""
    assert owner.calls[0] == "ready"
    assert owner.calls[-1] == "closed"
    assert owner.data in (b"good", b"goodx", b"goodxx"[:5]), "nothing from behind the fault"
    assert isinstance(owner.error, ConnectionLost)
    assert "WebSocket" in str(owner.error)


async def test_a_flood_of_small_frames_is_ended_before_it_costs_much(tls: Tls) -> None:
    owner = Recorder()
    async with met(tls, owner) as hand:
        hand.writer.write(frame(BINARY) * (65536 // 6) * 2)
        assert await hand.close_code() == 1008
    assert str(owner.error) == "the other end broke the WebSocket framing: too many small frames"


async def test_as_many_small_messages_as_a_read_can_hold_are_no_flood(tls: Tls) -> None:
    owner, message = closing(), bytes(30)
    async with met(tls, owner) as hand:
        hand.writer.write(frame(BINARY, message) * 4000)
        await owner.until(lambda it: len(it.data) == 4000 * len(message))
        assert owner.error is None


# Ends


async def test_the_peers_close_is_answered_and_is_its_end(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner) as hand:
        hand.writer.write(close_frame(1001))
        assert await hand.close_code() == 1001
        assert await hand.ended() == b""
    assert owner.calls == ["ready", "eof", "closed"]
    assert owner.error is None


async def test_what_is_written_after_the_peers_close_is_dropped(tls: Tls) -> None:
    def write_and_close(it: Recorder) -> None:
        assert not it.s.is_open
        assert not it.s.write(b"too late")
        it.s.close()

    owner = Recorder(eof=write_and_close)
    async with met(tls, owner) as hand:
        hand.writer.write(close_frame())
        assert await hand.close_code() == 1000
        assert await hand.ended() == b""
    assert owner.error is None


@pytest.mark.parametrize("said", [True, False])
async def test_an_end_is_truncated_without_a_close_frame(tls: Tls, said: bool) -> None:
    truncated: list[bool] = []

    def look_and_close(it: Recorder) -> None:
        truncated.append(it.s.truncated)
        it.s.close()

    owner = Recorder(eof=look_and_close)
    async with met(tls, owner) as hand:
        if said:
            hand.writer.write(close_frame())
            await hand.close_code()
        await hand.leave()
        await owner.until_told("closed")
    assert truncated == [not said]
    assert owner.calls.count("eof") == 1


async def test_closing_says_close_behind_all_data_and_waits_for_the_answer(tls: Tls) -> None:
    owner = Recorder()
    async with met(tls, owner) as hand:
        owner.s.write(b"last words")
        owner.s.close()
        assert await hand.receive() == (BINARY, b"last words")
        assert await hand.close_code() == 1000
        await settle()
        assert not hand.reader.at_eof(), "no FIN before the answer"
        hand.writer.write(frame(BINARY, b"dropped") + close_frame())
        assert await hand.ended() == b""
    assert owner.calls == ["ready", "closed"]
    assert owner.error is None


async def test_a_peer_that_does_not_answer_a_close_is_left_after_the_linger(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.transport.websocket_transport.LINGER_SECONDS", 0.05)
    owner = Recorder()
    async with met(tls, owner, limits=StreamLimits(linger=0.05)) as hand:
        owner.s.close()
        assert await hand.close_code() == 1000
        await owner.until_told("closed")


async def test_finishing_ends_our_side_and_still_hears_the_other(tls: Tls) -> None:
    owner = Recorder()
    async with met(tls, owner) as hand:
        owner.s.finish()
        assert await hand.close_code() == 1000
        hand.send(BINARY, b"you left too soon")
        await owner.until(lambda it: it.data == b"you left too soon")
        hand.writer.write(close_frame())
        assert await hand.ended() == b"", "our FIN follows the second Close frame"
        assert not owner.is_closed, "theirs is what shows that they let go"
        await hand.leave()
        await owner.until_told("closed")
    assert owner.error is None


async def test_a_peer_that_only_hangs_up_after_our_finish_ends_in_order(tls: Tls) -> None:
    owner = Recorder()
    async with met(tls, owner) as hand:
        owner.s.finish()
        assert await hand.close_code() == 1000
        await hand.leave()
        await owner.until_told("closed")
    assert owner.error is None


async def test_a_finish_that_nobody_answers_is_a_lost_connection(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewayd.transport.websocket_transport.LINGER_SECONDS", 0.05)
    owner = Recorder()
    async with met(tls, owner) as hand:
        owner.s.finish()
        assert await hand.close_code() == 1000
        await owner.until_told("closed")
    assert isinstance(owner.error, ConnectionLost)
    assert "within 0.05 s" in str(owner.error)


async def test_a_finish_may_become_a_close(tls: Tls) -> None:
    owner = Recorder()
    async with met(tls, owner) as hand:
        owner.s.finish()
        owner.s.close()
        assert await hand.close_code() == 1000
        hand.writer.write(frame(BINARY, b"dropped") + close_frame())
        assert await hand.ended() == b""
    assert owner.calls == ["ready", "closed"]


async def test_writing_after_our_end_is_our_fault(tls: Tls) -> None:
    owner = Recorder()
    async with met(tls, owner):
        owner.s.close()
        assert not owner.s.is_open
        with pytest.raises(LocalProtocolError, match="CLOSING"):
            owner.s.write(b"x")


async def test_an_abort_resets_and_is_told_with_its_reason(tls: Tls) -> None:
    owner, reason = Recorder(), Bounded("enough")
    async with met(tls, owner) as hand:
        owner.s.abort(reason)
        assert not owner.is_closed, "never inside the call"
        assert not owner.s.write(b"dropped")
        with pytest.raises(ConnectionError):
            await hand.receive()
    assert owner.error is reason


async def test_a_reset_by_the_peer_is_told(tls: Tls) -> None:
    owner = Recorder()
    async with met(tls, owner) as hand:
        hand.writer.transport.abort()
        await owner.until_over()
        owner.s.abort()
        await owner.until_told("closed")
    assert owner.calls.count("closed") == 1


async def test_an_owners_fault_behind_a_pause_ends_its_stream(tls: Tls) -> None:
    def fail(_: Recorder) -> None:
        raise RuntimeError("the owner's own fault")

    faults: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: faults.append(context["exception"])
    )
    owner = Recorder(ready=lambda it: it.s.pause_reading(), data=fail)
    async with met(tls, owner, behind=frame(BINARY, b"early")):
        owner.s.resume_reading()
        await owner.until_told("closed")
    assert isinstance(owner.error, RuntimeError)
    assert [str(fault) for fault in faults] == ["the owner's own fault"]


# Back-pressure


async def test_a_peer_that_does_not_read_congests_and_drains(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner, limits=StreamLimits(write_high=65536, write_cap=64 << 20)) as hand:
        written = 0
        while not owner.s.congested:
            owner.s.write(bytes(65536))
            written += 65536
            await asyncio.sleep(0)
            assert written < 60 << 20
        assert owner.s.write_buffer_size > 65536
        read = 0
        while read < written:
            read += len((await hand.receive())[1])
        await owner.until_told("writable")
        assert not owner.s.congested


async def test_a_peer_that_pings_without_reading_makes_us_keep_nothing(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner, limits=StreamLimits(write_high=65536, write_cap=64 << 20)) as hand:
        while not owner.s.congested:
            owner.s.write(bytes(65536))
            await asyncio.sleep(0)
        before = owner.s.write_buffer_size
        for _ in range(200):
            hand.writer.write(frame(PING, bytes(125)))
        hand.writer.write(frame(BINARY, b"."))
        await owner.until(lambda it: it.data == b".")
        assert owner.s.write_buffer_size <= before
        owner.s.abort()


async def test_beyond_the_cap_the_stream_is_reset(tls: Tls) -> None:
    owner = Recorder()
    async with met(tls, owner, limits=StreamLimits(write_high=65536, write_cap=1 << 20)):
        while owner.error is None and not owner.is_closed:
            owner.s.write(bytes(65536))
            await asyncio.sleep(0)
    assert isinstance(owner.error, Bounded)


async def test_a_paused_stream_reads_nothing(tls: Tls) -> None:
    owner = closing()
    async with met(tls, owner) as hand:
        owner.s.pause_reading()
        hand.send(BINARY, b"wait")
        await asyncio.sleep(0.02)
        assert owner.data == b""
        owner.s.resume_reading()
        await owner.until(lambda it: it.data == b"wait")


# Upgrades that fail


async def test_a_refused_upgrade_is_answered_and_told(tls: Tls) -> None:
    refused: list[tuple[str, str]] = []
    async with websockets_served(
        tls.our_server(),
        lambda _: Recorder(),
        refused=lambda peer, error: refused.append((peer[0], str(error))),
    ) as server:
        hand = await HandWebSocket.connect(server.port, tls.their_client(), request="GET / HTTP/1.1\r\n\r\n")
        assert hand.status == 400
        await hand.ended()
        await hand.leave()
    assert refused == [("127.0.0.1", "Bad HTTP message")]


async def test_an_upgrade_that_does_not_come_in_time_is_answered_408(tls: Tls) -> None:
    refused: list[HandshakeFailed] = []
    async with websockets_served(
        tls.our_server(),
        lambda _: Recorder(),
        upgrade_timeout=0.05,
        refused=lambda _, error: refused.append(error),
    ) as server:
        hand = await HandWebSocket.connect(server.port, tls.their_client(), request="GET / HT")
        assert hand.status == 408
        await hand.ended()
        await hand.leave()
    assert len(refused) == 1


async def test_a_client_that_leaves_before_the_upgrade_is_refused_once(tls: Tls) -> None:
    refused: list[str] = []
    gone = asyncio.Event()

    def told(_: tuple[str, int], error: HandshakeFailed) -> None:
        refused.append(str(error))
        gone.set()

    async with websockets_served(tls.our_server(), lambda _: Recorder(), refused=told) as server:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=tls.their_client(), server_hostname=HUB
        )
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
        await settle()
    assert refused == ["the other end closed the connection during the WebSocket upgrade"]


# Ourselves as the other end


async def test_both_roles_carry_a_great_deal_both_ways(tls: Tls) -> None:
    digest = hashlib.sha256()

    def echo_all(it: Recorder) -> None:
        data = bytes(it.data)
        it.data.clear()
        it.s.write(data)

    theirs = Recorder(data=echo_all)
    ours = closing()
    async with websockets_served(tls.our_server(), lambda _: theirs) as server:
        stream = await websocket_dialled(server.port, tls.our_client(), ours)
        sent = 0
        for size in (1, 125, 126, 4096, 65535, 65536, 300_000):
            data = random.Random(size).randbytes(size)
            digest.update(data)
            stream.write(data)
            sent += size
        await ours.until(lambda it: len(it.data) == sent)
        stream.close()
        await ours.until_told("closed")
    assert hashlib.sha256(ours.data).digest() == digest.digest()


async def test_the_face_shows_the_tls_below(tls: Tls) -> None:
    ours, theirs = Recorder(), Recorder()
    async with websockets_served(tls.our_server(), lambda _: theirs) as server:
        stream: Stream = await websocket_dialled(server.port, tls.our_client(), ours)
        assert stream.peer_address == ("127.0.0.1", server.port)
        assert stream.tls_version == "TLSv1.3"
        assert stream.peer_certificate_der is not None
        assert stream.session is not None
        assert not stream.session_reused
        stream.abort()
        await ours.until_told("closed")


def test_before_a_stream_is_below_nothing_can_be_said_of_it() -> None:
    loop = asyncio.new_event_loop()
    stream = WebSocketStream(
        loop,
        _never(),
        upgrade_timeout=1.0,
        linger=1.0,
        on_ready=lambda _: Recorder(),
        on_failed=lambda _stream, _error: None,
    )
    with pytest.raises(LocalProtocolError):
        _ = stream.peer_address
    loop.close()


class _never:  # noqa: N801  # reads as what it does
    """An upgrade that has no verdict."""

    def begin(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> Upgraded | Declined | None:
        return None

    def overdue(self) -> Declined:
        return Declined(b"", "never")


async def test_a_hub_that_ends_at_once_is_heard(tls: Tls) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    owner = Recorder()
    async with stdlib_server(tls.their_server(), hang_up) as port:
        with pytest.raises(Exception, match="upgrade: the other end closed"):
            await websocket_dialled(port, tls.our_client(), owner)
    assert owner.calls == []
