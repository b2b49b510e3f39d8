"""One stream in either role, against peers made from the standard library's own TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable

import pytest

from gatewayd.errors import Bounded, ConnectionLost
from gatewayd.transport.tls_engine import TlsEngine
from gatewayd.transport.tls_stream import RECEIVE_BYTES, USER_TIMEOUT_SECONDS, StreamLimits, TlsStream
from tests.support.hand_tls import HandTls
from tests.support.stream_owners import PATIENCE, Recorder, dialled, serving, stdlib_server, with_stdlib_peer
from tests.support.tls_material import HUB, Tls

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


async def test_answers_written_while_data_is_handed_out_leave_in_one_record(tls: Tls) -> None:
    def answer(owner: Recorder) -> None:
        owner.s.write(b"got ")
        owner.s.write(b"it")
        assert owner.s.write_buffer_size == 6

    owner = Recorder(data=answer)
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(ssl.TLSVersion.TLSv1_2), HUB)
        await client.shake_hands()
        await owner.until_told("ready")
        await client.send(b"hello")
        raw = await client.reader.read(65536)
        assert records_in(raw) == 1
        client.incoming.write(raw)
        assert client.tls.read(100) == b"got it"
        client.close()
        await owner.until_over()


async def test_a_fault_in_sending_for_one_stream_holds_up_no_other(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = [Recorder(), Recorder(), Recorder()]
    remaining = iter(owners)
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    async with serving(tls.our_server(), lambda _: next(remaining)) as server:
        clients = []
        for owner in owners:
            clients.append(await HandTls.connect(server.port, tls.their_client(ssl.TLSVersion.TLSv1_2), HUB))
            await clients[-1].shake_hands()
            await owner.until_told("ready")
        broken = RuntimeError("a fault of ours")

        def fail(self: TlsEngine, data: bytes) -> bytes:
            if data == b"fail":
                raise broken
            return encrypt(self, data)

        encrypt = TlsEngine.encrypt
        monkeypatch.setattr(TlsEngine, "encrypt", fail)
        for owner, word in zip(owners, (b"first", b"fail", b"third"), strict=True):
            owner.s.write(word)
        async with asyncio.timeout(PATIENCE):
            assert await clients[0].read(5) == b"first"
            assert await clients[2].read(5) == b"third"
        assert faults == [broken]
        for client, owner in zip(clients, owners, strict=True):
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


async def test_what_arrives_before_the_held_data_was_handed_out_stays_behind_it(tls: Tls) -> None:
    owner = Recorder(ready=lambda it: it.s.pause_reading())
    async with serving(tls.our_server(), lambda _: owner) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands(keep_last_flight=True)
        await client.send(b"held ")
        await owner.until_told("ready")
        client.tls.write(b"next")
        cipher = client.outgoing.read()
        owner.s.resume_reading()
        # A transport may be this quick: data and FIN before the loop's next turn.
        owner.tls.get_buffer(-1)[: len(cipher)] = cipher
        owner.tls.buffer_updated(len(cipher))
        owner.tls.eof_received()
        assert owner.calls == ["ready"]
        await owner.until_told("eof")
        assert (owner.calls, bytes(owner.data)) == (["ready", "data", "eof"], b"held next")
        client.close()


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


# What a stream says about itself, and to the kernel


async def test_both_roles_ask_the_kernel_for_quick_small_writes_and_a_bounded_patience(tls: Tls) -> None:
    ours, theirs = Recorder(), Recorder()
    async with serving(tls.our_server(), lambda _: theirs) as server:
        await dialled(server.port, tls.our_client(), ours)
        await theirs.until_told("ready")
        for owner in (ours, theirs):
            assert owner.tls._transport is not None
            sock = owner.tls._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            patience = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert patience == USER_TIMEOUT_SECONDS * 1000
        ours.s.abort()
        await ours.until_told("closed")


@pytest.mark.system
async def test_a_key_update_is_answered_with_the_next_write(tls: Tls) -> None:
    owner = Recorder(data=lambda it: it.s.write(b"echo"))
    async with serving(tls.our_server(), lambda _: owner) as server, openssl_client(server.port) as client:
        await owner.until_told("ready")
        await client.type(b"K\n")  # new keys for us, and please for you too
        await client.until_shown(b">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
        await client.type(b"and on\n")
        await owner.until(lambda it: it.data == b"and on\n")
        await client.until_shown(b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate")
        await client.until_shown(b"echo")


@pytest.mark.system
async def test_a_renegotiation_is_refused_at_once(tls: Tls) -> None:
    owner = Recorder()
    async with (
        serving(tls.our_server(), lambda _: owner) as server,
        openssl_client(server.port, "-tls1_2") as client,
    ):
        await owner.until_told("ready")
        await client.type(b"R\n")
        await client.until_shown(b"<<< TLS 1.2, Alert [length 0002], warning no_renegotiation")


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


class OpensslClient:
    """The openssl program as a client that shows every TLS message (-msg) and takes commands on its stdin."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._shown = b""

    async def type(self, line: bytes) -> None:
        self._stdin.write(line)
        await self._stdin.drain()

    async def until_shown(self, words: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            while words not in self._shown:
                more = await self._stdout.read(65536)
                assert more, self._shown.decode()
                self._shown += more


@contextlib.asynccontextmanager
async def openssl_client(port: int, *options: str) -> AsyncIterator[OpensslClient]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program")
    process = await asyncio.create_subprocess_exec(
        *(openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-msg", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield OpensslClient(process)
    finally:
        process.kill()
        await process.communicate()


async def ignore(work: Awaitable[object]) -> None:
    await work


def records_in(ciphertext: bytes) -> int:
    """Whole TLS records: type, version, length in two bytes, body (RFC 8446, 5.1)."""
    count = at = 0
    while at < len(ciphertext):
        at += 5 + int.from_bytes(ciphertext[at + 3 : at + 5], "big")
        count += 1
    assert at == len(ciphertext)
    return count
