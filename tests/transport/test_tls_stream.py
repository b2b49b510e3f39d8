"""One stream in either role, against peers made from the standard library's own TLS."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from gatewayd.errors import Bounded, ConnectionLost, LocalProtocolError
from gatewayd.transport.tls_stream import RECEIVE_BYTES, StreamLimits, TlsStream
from tests.support.delay_line import Cut, DelayLine
from tests.support.hand_tls import HandTls
from tests.support.stream_owners import PATIENCE, Recorder, dialled, serving, stdlib_server
from tests.support.tls_material import HUB, Tls

T = TypeVar("T")

# The client's last flight and what it says at once


async def test_data_in_the_segment_of_the_client_finished_comes_after_ready(tls: Tls) -> None:
    owner = Recorder()
    async with serving(tls.our_server(), lambda _: owner) as server:
        # TLS 1.3: the client's Finished is the last word of the handshake.
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands(keep_last_flight=True)
        await client.send(b"CONNECT", b" and more")
        await owner.until(lambda it: it.data == b"CONNECT and more")
        assert owner.calls == ["ready", "data"]
        client.close()
        await owner.until_over()


async def test_data_in_the_segment_of_a_resumed_client_finished_comes_after_ready(
    tls: Tls, version: ssl.TLSVersion
) -> None:
    owners: list[Recorder] = []

    def owner_of(stream: TlsStream) -> Recorder:
        owners.append(Recorder(data=lambda it: it.s.write(b"welcome")))
        return owners[-1]

    async with serving(tls.our_server(), owner_of) as server:
        context = tls.their_client(version)
        first = await HandTls.connect(server.port, context, HUB)
        await first.shake_hands()
        await first.send(b"hello")
        assert await first.read(7) == b"welcome"
        second = await HandTls.connect(server.port, context, HUB, first.tls.session)
        # In a resumed TLS 1.2 handshake, too, the client's Finished is the last word.
        await second.shake_hands(keep_last_flight=True)
        await second.send(b"CONNECT")
        assert await second.read(7) == b"welcome"
        assert second.tls.session_reused
        assert owners[1].s.session_reused
        assert (owners[1].calls, bytes(owners[1].data)) == (["ready", "data"], b"CONNECT")
        first.close()
        second.close()
        await owners[0].until_over()
        await owners[1].until_over()


async def test_data_in_the_segment_of_the_server_finished_comes_after_ready(tls: Tls) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = HandTls(reader, writer, tls.their_server(ssl.TLSVersion.TLSv1_2), None)
        await server.shake_hands(keep_last_flight=True)
        await server.send(b"banner")
        await server.read(1)

    owner = Recorder()
    async with stdlib_server(None, serve) as port:
        stream = await dialled(port, tls.our_client(), owner)
        await owner.until(lambda it: it.data == b"banner")
        assert owner.calls == ["ready", "data"]
        stream.abort()
        await owner.until_told("closed")


async def test_a_pause_in_ready_holds_data_of_the_same_segment_until_resumed(tls: Tls) -> None:
    owner = Recorder(ready=lambda it: it.s.pause_reading())
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands(keep_last_flight=True)
        await client.send(b"early")
        await owner.until_told("ready")
        assert owner.calls == ["ready"]
        owner.s.resume_reading()
        assert owner.calls == ["ready"], "nothing may come inside resume_reading"
        await owner.until(lambda it: it.data == b"early")
        client.close()
        await owner.until_over()


# Data


@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
async def test_megabytes_both_ways_arrive_whole_and_in_order(
    tls: Tls, version: ssl.TLSVersion, we_serve: bool
) -> None:
    sent_there = random.Random(1).randbytes(5_000_003)
    sent_back = random.Random(2).randbytes(4_999_999)
    left = memoryview(sent_there)

    def feed(it: Recorder) -> None:
        nonlocal left
        while left:
            piece, left = bytes(left[:70_000]), left[70_000:]
            if not it.s.write(piece):
                return

    owner = Recorder(ready=feed, writable=feed)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(sent_back)
        digest = hashlib.sha256(await reader.readexactly(len(sent_there))).hexdigest()
        await writer.drain()
        return digest

    digest = await with_stdlib_peer(tls, version, owner, peer, we_serve=we_serve)
    assert digest == hashlib.sha256(sent_there).hexdigest()
    assert hashlib.sha256(owner.data).hexdigest() == hashlib.sha256(sent_back).hexdigest()


async def test_what_is_written_in_one_turn_leaves_in_one_record(tls: Tls) -> None:
    owner = Recorder()
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(ssl.TLSVersion.TLSv1_2), HUB)
        await client.shake_hands()
        await owner.until_told("ready")
        # TLS 1.2 server: its Finished comes last, and nothing follows it.
        for word in (b"one ", b"two ", b"three"):
            owner.s.write(word)
        raw = await client.reader.read(65536)
        assert records_in(raw) == 1
        client.incoming.write(raw)
        assert client.tls.read(100) == b"one two three"
        client.close()
        await owner.until_over()


async def test_an_answer_written_while_data_is_handed_out_leaves_in_the_same_turn(tls: Tls) -> None:
    def answer(it: Recorder) -> None:
        it.s.write(b"a")
        it.s.write(b"b")
        assert it.s.write_buffer_size == 2

    owner = Recorder(data=answer)
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        await client.send(b"?")
        assert await client.read(2) == b"ab"
        assert owner.s.write_buffer_size == 0
        client.close()
        await owner.until_over()


async def test_a_damaged_record_loses_the_connection_and_hands_out_nothing_of_it(tls: Tls) -> None:
    owner = Recorder()
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        client.tls.write(b"good")
        good = client.outgoing.read()
        client.tls.write(b"bad")
        bad = bytearray(client.outgoing.read())
        bad[-1] ^= 1
        await client.send_raw(good + bad)
        await owner.until_told("closed")
        assert owner.data == b"good"
        assert isinstance(owner.error, ConnectionLost)
        assert "bad MAC" in str(owner.error)
        # The alert tells the peer.
        with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac"):
            await client.read(1)
        client.close()


# Reading stops when told


async def test_a_paused_stream_reads_nothing_so_the_peer_feels_it(tls: Tls) -> None:
    owner = Recorder(data=lambda it: it.s.pause_reading())
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        payload = random.Random(3).randbytes(30_000_000)
        client.tls.write(payload)
        client.writer.write(client.outgoing.read())
        await owner.until_told("data")
        # The kernel's buffers take some; most must stay with the peer, however many turns of the loop pass.
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(owner.data) <= RECEIVE_BYTES
        assert client.writer.transport.get_write_buffer_size() > 10_000_000
        owner.reactions.clear()
        owner.s.resume_reading()
        await owner.until(lambda it: len(it.data) == len(payload))
        assert owner.data == payload
        client.close()
        await owner.until_over()


async def test_an_end_behind_a_pause_is_told_after_it(tls: Tls) -> None:
    owner = Recorder(ready=lambda it: it.s.pause_reading())
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands(keep_last_flight=True)
        client.tls.write(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        await client.send()
        await owner.until_told("ready")
        assert owner.calls == ["ready"]
        owner.s.resume_reading()
        await owner.until_over()
        assert owner.calls == ["ready", "data", "eof"]
        owner.s.close()
        client.close()
        await owner.until_told("closed")


# Unsent bytes are bounded


async def test_a_peer_that_does_not_read_is_told_to_the_owner_and_then_drained(tls: Tls) -> None:
    read_now = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_now.wait()
        while await reader.read(65536):
            pass

    owner = Recorder()
    limits = StreamLimits(write_high=100_000, write_cap=100_000_000)
    async with stdlib_server(tls.their_server(), serve) as port:
        stream = await dialled(port, tls.our_client(), owner, limits=limits)
        written = 0
        while stream.write(bytes(50_000)):
            written += 50_000
            assert written < 90_000_000
        assert stream.congested
        assert stream.write_buffer_size > 100_000
        read_now.set()
        await owner.until_told("writable")
        assert not stream.congested
        stream.close()
        await owner.until_told("closed")
        assert owner.error is None


async def test_more_unsent_bytes_than_the_cap_reset_the_stream(tls: Tls) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()

    done = asyncio.Event()
    owner = Recorder()
    limits = StreamLimits(write_high=100_000, write_cap=300_000)
    async with stdlib_server(tls.their_server(), serve) as port:
        stream = await dialled(port, tls.our_client(), owner, limits=limits)
        written = 0
        while stream.is_open:
            stream.write(bytes(50_000))
            written += 50_000
            assert written < 90_000_000
        await owner.until_told("closed")
        assert isinstance(owner.error, Bounded)
        assert "at most 300000" in str(owner.error)
        assert stream.write(b"into the void") is False
        done.set()


async def test_one_write_above_the_cap_is_refused(tls: Tls) -> None:
    owner = Recorder()
    async with serving(tls.our_server(), lambda _: Recorder()) as server:
        stream = await dialled(server.port, tls.our_client(), owner, limits=StreamLimits(write_cap=300_000))
        assert stream.write(bytes(300_000))
        assert not stream.write(bytes(300_001))
        await owner.until_told("closed")
        assert isinstance(owner.error, Bounded)


# Ends


async def test_close_notify_and_a_bare_fin_are_both_an_end_and_can_be_told_apart(tls: Tls) -> None:
    owners: list[Recorder] = []

    def owner_of(stream: TlsStream) -> Recorder:
        owners.append(Recorder(data=lambda it: it.s.write(b"ok"), eof=lambda it: ends.append(it.s.truncated)))
        return owners[-1]

    ends: list[bool] = []
    async with serving(tls.our_server(), owner_of) as server:
        for polite in (True, False):
            client = await HandTls.connect(server.port, tls.their_client(), HUB)
            await client.shake_hands()
            await client.send(b"hello")
            assert await client.read(2) == b"ok"
            if polite:
                with pytest.raises(ssl.SSLWantReadError):
                    client.tls.unwrap()
                await client.send()
            client.close()
            await owners[-1].until_told("eof")
        assert ends == [False, True]


async def test_after_the_peer_ended_its_side_we_may_still_write(tls: Tls) -> None:
    def answer_and_close(it: Recorder) -> None:
        it.s.write(b"late answer")
        it.s.close()

    owner = Recorder(eof=answer_and_close)
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        client.writer.write_eof()
        assert await client.read(100) == b"late answer"
        await owner.until_told("closed")
        assert owner.calls == ["ready", "eof", "closed"]
        assert owner.error is None
        client.close()


async def test_finish_says_our_end_and_still_hears_the_peer(tls: Tls, version: ssl.TLSVersion) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = HandTls(reader, writer, tls.their_server(version), None)
        await server.shake_hands()
        assert await server.read(1000) == b"DISCONNECT", "ends at our close_notify"
        assert not await reader.read(), "our FIN follows"
        await server.send(b"what was still to be said")
        writer.write_eof()

    owner = Recorder()
    async with stdlib_server(None, serve) as port:
        stream = await dialled(port, tls.our_client(), owner)
        stream.write(b"DISCONNECT")
        stream.finish()
        assert not stream.is_open
        await owner.until_told("closed")
        assert owner.data == b"what was still to be said"
        assert owner.calls == ["ready", "data", "eof", "closed"]
        assert owner.error is None


async def test_finish_inside_data_keeps_the_rest_of_what_arrived(tls: Tls) -> None:
    owner = Recorder(data=lambda it: it.s.finish())
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        whole = random.Random(4).randbytes(200_000)
        await client.send(*(whole[at : at + 10_000] for at in range(0, len(whole), 10_000)))
        assert await client.read(1) == b""
        client.close()
        await owner.until_told("closed")
        assert owner.data == whole
        assert owner.error is None


async def test_a_close_notify_alone_does_not_end_what_finish_began(tls: Tls) -> None:
    let_go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = HandTls(reader, writer, tls.their_server(ssl.TLSVersion.TLSv1_2), None)
        await server.shake_hands()
        assert await server.read(1000) == b"DISCONNECT"
        server.tls.unwrap()
        await server.send()
        await let_go.wait()

    owner = Recorder()
    async with stdlib_server(None, serve) as port:
        stream = await dialled(port, tls.our_client(), owner)
        stream.write(b"DISCONNECT")
        stream.finish()
        await owner.until_over()
        assert not owner.is_closed
        let_go.set()
        await owner.until_told("closed")
        assert owner.error is None


async def test_a_peer_that_never_answers_finish_is_reset_after_linger(tls: Tls) -> None:
    done, reset = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = HandTls(reader, writer, tls.their_server(), None)
        await server.shake_hands()
        await done.wait()
        with pytest.raises(ConnectionError):  # noqa: PT012 - the first write may find out, or the second
            for _ in range(2):
                await server.send_raw(b"hello?")
        reset.set()

    owner = Recorder()
    async with stdlib_server(None, serve) as port:
        stream = await dialled(port, tls.our_client(), owner, limits=StreamLimits(linger=0.05))
        stream.finish()
        await owner.until_told("closed")
        assert isinstance(owner.error, ConnectionLost)
        assert "did not close within 0.05 s" in str(owner.error)
        done.set()
        async with asyncio.timeout(PATIENCE):
            await reset.wait()


async def test_close_sends_everything_first(tls: Tls, version: ssl.TLSVersion) -> None:
    payload = random.Random(5).randbytes(900_000)

    def send_and_close(it: Recorder) -> None:
        it.s.write(payload)
        it.s.close()

    owner = Recorder(ready=send_and_close)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        return await reader.read(-1)

    got = await with_stdlib_peer(tls, version, owner, peer, we_serve=True)
    assert got == payload
    await owner.until_told("closed")
    assert owner.calls == ["ready", "closed"]
    assert owner.error is None


async def test_close_drops_what_still_arrives_and_only_closed_follows(tls: Tls) -> None:
    owner = Recorder(data=lambda it: it.s.close())
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        await client.send(b"first")
        assert await client.read(1) == b""
        await client.send(b"too late")
        client.close()
        await owner.until_told("closed")
        assert owner.calls == ["ready", "data", "closed"]
        assert owner.error is None


async def test_close_towards_a_peer_that_never_reads_is_bounded_and_says_what_was_lost(tls: Tls) -> None:
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()

    owner = Recorder()
    limits = StreamLimits(write_high=100_000, write_cap=100_000_000, linger=0.05)
    async with stdlib_server(tls.their_server(), serve) as port:
        stream = await dialled(port, tls.our_client(), owner, limits=limits)
        stream.write(bytes(50_000_000))
        stream.close()
        await owner.until_told("closed")
        assert isinstance(owner.error, ConnectionLost)
        assert "bytes unread" in str(owner.error)
        done.set()


async def test_close_after_finish_and_a_second_close_change_nothing(tls: Tls) -> None:
    owner = Recorder()
    async with serving(tls.our_server(), lambda _: Recorder(eof=lambda it: it.s.close())) as server:
        stream = await dialled(server.port, tls.our_client(), owner)
        stream.finish()
        stream.finish()
        stream.close()
        stream.close()
        await owner.until_told("closed")
        assert owner.calls == ["ready", "closed"]
        stream.close()
        stream.abort()
        stream.pause_reading()
        stream.resume_reading()
        await asyncio.sleep(0)
        assert owner.calls == ["ready", "closed"]


async def test_writing_after_our_own_end_is_a_fault_of_ours(tls: Tls) -> None:
    owner = Recorder()
    async with serving(tls.our_server(), lambda _: Recorder(eof=lambda it: it.s.close())) as server:
        stream = await dialled(server.port, tls.our_client(), owner)
        stream.close()
        with pytest.raises(LocalProtocolError, match="CLOSING"):
            stream.write(b"x")
        await owner.until_told("closed")


# Breaks


async def test_abort_resets_the_connection_and_tells_the_given_reason(tls: Tls) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        reset.set()

    reset = asyncio.Event()
    reason = ConnectionLost("enough")
    owner = Recorder()
    async with stdlib_server(tls.their_server(), serve) as port:
        stream = await dialled(port, tls.our_client(), owner)
        stream.write(b"never sent")
        stream.abort(reason)
        assert owner.calls == ["ready"], "closed never comes inside a call of ours"
        await owner.until_told("closed")
        assert owner.error is reason
        async with asyncio.timeout(PATIENCE):
            await reset.wait()


@pytest.mark.parametrize("call", ["ready", "data", "eof"])
async def test_after_abort_in_a_callback_only_closed_follows(tls: Tls, call: str) -> None:
    owner = Recorder(**{call: lambda it: it.s.abort()})
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands(keep_last_flight=True)
        client.tls.write(b"data")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        await client.send()
        client.close()
        await owner.until_told("closed")
        expected = ["ready", "data", "eof"]
        assert owner.calls == [*expected[: expected.index(call) + 1], "closed"]
        assert owner.error is None


async def test_a_reset_by_the_peer_is_a_lost_connection(tls: Tls) -> None:
    owner = Recorder()
    async with (
        serving(tls.our_server(), lambda _: Recorder()) as server,
        await DelayLine.open(server.port) as line,
    ):
        await dialled(line.port, tls.our_client(), owner)
        line.reset()
        await owner.until_told("closed")
        assert owner.calls == ["ready", "closed"]
        assert isinstance(owner.error, ConnectionLost)
        assert "reset" in str(owner.error)


@pytest.mark.parametrize("ending", ["finish", "close"])
async def test_a_reset_while_ending_still_closes_once(tls: Tls, ending: str) -> None:
    owner = Recorder()
    async with (
        serving(tls.our_server(), lambda _: Recorder()) as server,
        await DelayLine.open(server.port) as line,
    ):
        stream = await dialled(line.port, tls.our_client(), owner)
        line.blackhole = True
        getattr(stream, ending)()
        line.reset()
        await owner.until_told("closed")
        assert owner.calls == ["ready", "closed"]


async def test_ending_a_stream_whose_reset_is_already_here_is_a_lost_connection(tls: Tls) -> None:
    owner = Recorder()
    streams: list[TlsStream] = []
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        await owner.until_told("ready")
        streams.append(owner.s)
        sock = client.writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await asyncio.sleep(0)
        # In this very turn the RST has arrived on loopback and the loop has not looked.
        owner.s.finish()
        await owner.until_told("closed")
        assert isinstance(owner.error, ConnectionLost)


@pytest.mark.parametrize("by_reset", [True, False], ids=["RST", "FIN"])
async def test_a_cut_in_the_middle_of_data_hands_out_only_whole_records(tls: Tls, by_reset: bool) -> None:
    owner = Recorder(eof=lambda it: it.s.close())
    payload = random.Random(6).randbytes(300_000)
    async with (
        serving(tls.our_server(), lambda _: Recorder(ready=lambda it: it.s.write(payload))) as server,
        await DelayLine.open(server.port) as line,
    ):
        line.cut_to_client = Cut(after=150_000, by_reset=by_reset)
        await dialled(line.port, tls.our_client(), owner)
        await owner.until_told("closed")
        assert payload.startswith(bytes(owner.data))
        assert len(owner.data) < 150_000
        assert ("eof" in owner.calls) is not by_reset


async def test_an_owner_that_fails_loses_its_own_stream_only(
    tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(it: Recorder) -> None:
        raise RuntimeError("a bug")

    owners = [Recorder(data=fail), Recorder(data=lambda it: it.s.write(bytes(it.data)))]
    waiting = iter(owners)
    async with serving(tls.our_server(), lambda _: next(waiting)) as server:
        bad = await HandTls.connect(server.port, tls.their_client(), HUB)
        await bad.shake_hands()
        await bad.send(b"x")
        await owners[0].until_told("closed")
        assert isinstance(owners[0].error, RuntimeError)
        good = await HandTls.connect(server.port, tls.their_client(), HUB)
        await good.shake_hands()
        await good.send(b"y")
        assert await good.read(1) == b"y"
        bad.close()
        good.close()
        await owners[1].until_over()
    assert "a bug" in caplog.text, "a fault is not hidden"


async def test_an_owner_that_fails_outside_of_reading_loses_its_stream_too(tls: Tls) -> None:
    def fail(it: Recorder) -> None:
        raise RuntimeError("a bug")

    reported: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    owner = Recorder(ready=lambda it: it.s.pause_reading(), data=fail)
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands(keep_last_flight=True)
        await client.send(b"held")
        await owner.until_told("ready")
        owner.s.resume_reading()
        await owner.until_told("closed")
        assert isinstance(owner.error, RuntimeError)
        assert len(reported) == 1
        client.close()


# What a stream says about itself


async def test_a_stream_knows_its_peer_always_and_its_version_until_it_is_closed(
    tls: Tls, version: ssl.TLSVersion
) -> None:
    seen: list[object] = []
    owner = Recorder(closed=lambda it: seen.extend((it.s.peer_address, it.s.tls_version)))

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        return await reader.read(-1)

    async with stdlib_server(tls.their_server(version), lambda r, w: ignore(peer(r, w))) as port:
        stream = await dialled(port, tls.our_client(), owner)
        name = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
        assert stream.peer_address == ("127.0.0.1", port)
        assert stream.tls_version == name
        assert not stream.session_reused
        assert stream.peer_certificate_der
        stream.close()
        await owner.until_told("closed")
        assert seen == [("127.0.0.1", port), name]
        assert stream.peer_address == ("127.0.0.1", port)
        assert not any((stream.tls_version, stream.session, stream.peer_certificate_der))


# Helpers


async def ignore(work: Awaitable[object]) -> None:
    await work


async def with_stdlib_peer(
    tls: Tls,
    version: ssl.TLSVersion,
    owner: Recorder,
    peer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[T]],
    *,
    we_serve: bool,
) -> T:
    """Run `peer` as the other end of `owner`, in asyncio's own TLS; its result when both sides are closed."""
    results: list[T] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        results.append(await peer(reader, writer))
        writer.close()

    async with asyncio.timeout(3 * PATIENCE):
        if we_serve:
            async with serving(tls.our_server(), lambda _: owner) as server:
                await run(
                    *await asyncio.open_connection(
                        "127.0.0.1", server.port, ssl=tls.their_client(version), server_hostname=HUB
                    )
                )
                await end(owner)
        else:
            async with stdlib_server(tls.their_server(version), run) as port:
                await dialled(port, tls.our_client(), owner)
                await owner.until(lambda it: bool(results))
                await end(owner)
    return results[0]


async def end(owner: Recorder) -> None:
    await owner.until(lambda it: "eof" in it.calls or it.is_closed)
    owner.s.close()
    await owner.until_told("closed")


def records_in(ciphertext: bytes) -> int:
    """Whole TLS records: type, version, length in two bytes, body (RFC 8446, 5.1)."""
    count = at = 0
    while at < len(ciphertext):
        at += 5 + int.from_bytes(ciphertext[at + 3 : at + 5], "big")
        count += 1
    assert at == len(ciphertext)
    return count
