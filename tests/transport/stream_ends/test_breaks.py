"""How a stream breaks: aborts, resets, cuts, damage, and owners that fail."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct

import pytest

from gatewayd.errors import ConnectionLost
from gatewayd.transport.tls_stream import StreamLimits, TlsStream
from tests.support.delay_line import Cut, DelayLine
from tests.support.hand_tls import HandTls
from tests.support.stream_owners import PATIENCE, Recorder, dialled, serving, stdlib_server
from tests.support.tls_material import HUB, Tls


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
        streams.append(owner.tls)
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


async def test_damage_after_our_own_end_is_told_as_damage(tls: Tls) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    owner = Recorder()
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        await owner.until_told("ready")
        owner.s.finish()
        await client.send_raw(b"\x17\x03\x03\x00\x20" + bytes(32))
        await owner.until_told("closed")
        assert isinstance(owner.error, ConnectionLost)
        assert "bad MAC" in str(owner.error)
        client.close()
    assert reported == []


async def test_damage_from_a_peer_that_does_not_read_still_closes_in_time(tls: Tls) -> None:
    owner = Recorder(ready=lambda it: it.s.write(bytes(40_000_000)))
    limits = StreamLimits(write_cap=50_000_000, linger=0.05)
    async with serving(tls.our_server(), lambda _: owner, limits=limits) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        await client.send_raw(b"\x17\x03\x03\x00\x20" + bytes(32))
        await owner.until_told("closed")
        assert "bad MAC" in str(owner.error)
        client.close()


async def test_writing_on_after_the_peers_reset_is_quiet(tls: Tls, caplog: pytest.LogCaptureFixture) -> None:
    owner = Recorder()
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        await owner.until_told("ready")
        sock = client.writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()
        await asyncio.sleep(0)
        for _ in range(20):
            owner.s.write(bytes(20_000))  # each large enough to leave at once
        await owner.until_told("closed")
        assert isinstance(owner.error, ConnectionLost)
    assert "socket.send() raised exception" not in caplog.text
