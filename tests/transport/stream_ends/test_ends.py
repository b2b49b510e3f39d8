"""How a stream ends in order: the peer's end, finish() and close(), and what bounds them."""

from __future__ import annotations

import asyncio
import random
import ssl

import pytest

from gatewayd.errors import ConnectionLost, LocalProtocolError
from gatewayd.transport.tls_stream import StreamLimits, TlsStream
from tests.support.delay_line import DelayLine
from tests.support.hand_tls import HandTls
from tests.support.stream_owners import PATIENCE, Recorder, dialled, serving, stdlib_server, with_stdlib_peer
from tests.support.tls_material import HUB, Tls


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


async def test_a_peer_that_is_slow_to_close_still_reads_our_last_words(tls: Tls) -> None:
    late = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = HandTls(reader, writer, tls.their_server(), None)
        await server.shake_hands()
        await late.wait()
        assert await server.read(1000) == b"last words"
        assert await reader.read() == b"", "FIN, no RST"

    owner = Recorder()
    async with stdlib_server(None, serve) as port:
        stream = await dialled(port, tls.our_client(), owner, limits=StreamLimits(linger=0.02))
        stream.write(b"last words")
        stream.close()
        await owner.until_told("closed")
        assert owner.error is None
        late.set()


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


@pytest.mark.parametrize("finished_first", [False, True], ids=["open", "finished"])
async def test_close_of_a_paused_stream_hears_the_peers_fin(tls: Tls, finished_first: bool) -> None:
    owner = Recorder(ready=lambda it: it.s.pause_reading())
    limits = StreamLimits(linger=60)
    async with serving(tls.our_server(), lambda _: owner, limits=limits) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands(keep_last_flight=True)
        await client.send(b"held")
        await owner.until_told("ready")
        if finished_first:
            owner.s.finish()
        owner.s.close()
        assert await client.read(1) == b""
        client.close()
        await owner.until_told("closed")
        assert owner.calls == ["ready", "closed"]


async def test_finish_takes_one_round_trip_until_the_peers_fin_is_here(tls: Tls) -> None:
    """What a strict handover waits for: our last words go one way, the peer's FIN comes back."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    async with (
        serving(tls.our_server(), lambda _: Recorder(eof=lambda it: it.s.close())) as server,
        await DelayLine.open(server.port, one_way=0.03) as line,
    ):
        for _ in range(3):
            owner = Recorder()
            stream = await dialled(line.port, tls.our_client(), owner)
            start = loop.time()
            stream.write(b"DISCONNECT")
            stream.finish()
            await owner.until_told("closed")
            assert owner.error is None
            took.append(loop.time() - start)
    assert min(took) >= 0.06
    # The quickest of three: a busy machine may hold up any one of them.
    assert min(took) < 0.09
