"""How a stream begins: connecting, being connected to, and everything that can prevent it, in words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.errors import DialFailed, GatewaydError
from gatewayd.transport.tls_stream import TlsStream
from tests.support.delay_line import Cut, DelayLine
from tests.support.hand_tls import HandTls
from tests.support.stream_owners import (
    PATIENCE,
    Recorder,
    dialled,
    serving,
    settle,
    shut,
    stdlib_server,
)
from tests.support.tls_material import HUB, Authority, Tls


async def until_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def failure(tls: Tls, port: int, hostname: str = HUB, **options: object) -> DialFailed:
    owner = Recorder()
    with pytest.raises(DialFailed) as caught:
        await dialled(port, tls.our_client(), owner, hostname, **options)
    await settle()
    assert owner.calls == [], "an owner of a failed dial hears nothing"
    return caught.value


# Certificates


async def test_a_wrong_host_name_is_refused_and_named(tls: Tls, version: ssl.TLSVersion) -> None:
    async with stdlib_server(tls.their_server(version), until_read) as port:
        error = await failure(tls, port, "other.example")
    assert error.stage == "handshake"
    assert error.problem == "the certificate shown is not for other.example; expected that name in it"


async def test_an_unknown_ca_is_refused_and_said(tls: Tls, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").server(HUB)
    async with stdlib_server(tls.their_server(chain=stranger.chain), until_read) as port:
        error = await failure(tls, port)
    assert (error.stage, "not trusted here (unknown CA)" in error.problem) == ("handshake", True)


async def test_an_expired_certificate_is_refused_and_said(tls: Tls) -> None:
    async with stdlib_server(tls.their_server(chain=tls.expired_chain), until_read) as port:
        error = await failure(tls, port)
    assert (error.stage, "has expired" in error.problem) == ("handshake", True)


async def test_the_name_in_sni_is_the_hubs_whatever_the_address(tls: Tls) -> None:
    named: list[str | None] = []
    context = tls.their_server()
    context.sni_callback = lambda _tls, name, _context: named.append(name)
    owner = Recorder()
    async with stdlib_server(context, until_read) as port:
        stream = await dialled(port, tls.our_client(), owner)
        assert stream.peer_address == ("127.0.0.1", port)
        stream.close()
        await owner.until_told("closed")
    assert named == [HUB]


# Peers that do not speak, or speak something else


async def test_nobody_listening_is_a_failed_connect(tls: Tls) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as sock:
        port = sock.getsockname()[1]
    error = await failure(tls, port)
    assert (error.stage, error.problem) == ("connect", f"127.0.0.1:{port}: Connection refused")


async def test_an_address_that_does_not_answer_is_a_failed_connect_in_time(tls: Tls) -> None:
    with silent_port() as port:
        error = await failure(tls, port, connect_timeout=0.05)
    assert (error.stage, error.problem) == (
        "connect",
        f"127.0.0.1:{port} does not answer; waited 0.05 s",
    )


async def test_a_peer_that_never_shakes_hands_is_a_failed_handshake_in_time(tls: Tls) -> None:
    async with stdlib_server(None, until_read) as port:
        error = await failure(tls, port, handshake_timeout=0.05)
    assert (error.stage, "not finished in time" in error.problem) == ("handshake", True)


async def test_a_peer_that_speaks_no_tls_is_named_so(tls: Tls) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read()

    async with stdlib_server(None, greet) as port:
        error = await failure(tls, port)
    assert (error.stage, "does not speak TLS" in error.problem) == ("handshake", True)


@pytest.mark.parametrize("after", [1, 50, 500], ids=lambda after: f"{after} bytes")
@pytest.mark.parametrize("by_reset", [True, False], ids=["RST", "FIN"])
async def test_a_connection_cut_during_the_handshake_is_a_failed_handshake(
    tls: Tls, after: int, by_reset: bool
) -> None:
    async with (
        serving(tls.our_server(), lambda _: Recorder()) as server,
        await DelayLine.open(server.port) as line,
    ):
        line.cut_to_client = Cut(after, by_reset=by_reset)
        error = await failure(tls, line.port)
    words = "reset the connection" if by_reset else "closed the connection during the TLS handshake"
    assert (error.stage, words in error.problem) == ("handshake", True)


async def test_a_server_that_refuses_our_versions_is_said(tls: Tls) -> None:
    context = tls.their_server()
    context.minimum_version = ssl.TLSVersion.TLSv1_3

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = HandTls(reader, writer, context, None)
        with pytest.raises(ssl.SSLError):
            await server.shake_hands()
        await server.send()
        await reader.read()

    client = tls.our_client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    async with stdlib_server(None, refuse) as port:
        with pytest.raises(DialFailed, match="refuses our TLS versions"):
            await dialled(port, client, Recorder())


# The listener's side of the same


@pytest.mark.parametrize("after", [1, 100], ids=lambda after: f"{after} bytes")
@pytest.mark.parametrize("by_reset", [True, False], ids=["RST", "FIN"])
async def test_a_client_cut_during_the_handshake_makes_no_owner_and_is_reported(
    tls: Tls, after: int, by_reset: bool
) -> None:
    refused = Refusals()
    owners: list[Recorder] = []

    def remember(stream: TlsStream) -> Recorder:
        owners.append(Recorder())
        return owners[-1]

    async with (
        serving(tls.our_server(), remember, on_refused=refused) as server,
        await DelayLine.open(server.port) as line,
    ):
        line.cut_to_target = Cut(after, by_reset=by_reset)
        with pytest.raises(DialFailed):
            await dialled(line.port, tls.our_client(), Recorder())
        [(peer, error)] = await refused.until(1)
        assert peer[0] == "127.0.0.1"
        assert isinstance(error, GatewaydError)
        assert server.handshaking == 0
    assert owners == []


@pytest.mark.parametrize(
    ("first_bytes", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "plain HTTP"),
        (b"\x10\x1a\x00\x04MQTT\x04\x02\x00<\x00\x0edevice", "does not speak TLS"),
    ],
    ids=["HTTP", "MQTT"],
)
async def test_a_client_without_tls_is_told_apart(tls: Tls, first_bytes: bytes, words: str) -> None:
    refused = Refusals()
    async with serving(tls.our_server(), lambda _: Recorder(), on_refused=refused) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(first_bytes)
        [(_, error)] = await refused.until(1)
        assert words in str(error)
        await shut(writer)


async def test_a_client_that_does_not_trust_our_certificate_is_reported_as_such(
    tls: Tls, tmp_path: Path
) -> None:
    refused = Refusals()
    async with serving(tls.our_server(), lambda _: Recorder(), on_refused=refused) as server:
        context = ssl.create_default_context(cafile=str(Authority(tmp_path, "stranger").ca_file))
        client = await HandTls.connect(server.port, context, HUB)
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.shake_hands()
        await client.send()
        [(_, error)] = await refused.until(1)
        assert "does not trust the authority of our certificate" in str(error)
        client.close()


async def test_a_client_that_never_finishes_its_handshake_is_reset_in_time(tls: Tls) -> None:
    refused = Refusals()
    async with serving(
        tls.our_server(), lambda _: Recorder(), on_refused=refused, handshake_timeout=0.05
    ) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        [(_, error)] = await refused.until(1)
        assert "not finished in time" in str(error)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await shut(writer)


# Resumption


async def test_a_session_taken_after_data_is_resumed_by_the_next_dial(
    tls: Tls, version: ssl.TLSVersion
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()

    context = tls.our_client()
    sessions: list[ssl.SSLSession | None] = [None]
    reused: list[bool] = []
    told: list[str] = []
    async with stdlib_server(tls.their_server(version), greet) as port:
        for _ in range(3):
            owner = Recorder()
            stream = await dialled(
                port,
                context,
                owner,
                session=sessions[-1],
                on_resumable=lambda stream: sessions.append(stream.session),
            )
            await owner.until(lambda it: it.data == b"hello")
            reused.append(stream.session_reused)
            stream.close()
            await owner.until_told("closed")
    assert reused == [False, True, True]
    assert len(sessions) == 4
    assert told == []


# Cancellation and leaks


async def test_a_cancelled_connect_leaves_nothing_behind(tls: Tls) -> None:
    before = open_descriptors()
    with silent_port() as port:
        owner = Recorder()
        dial = asyncio.ensure_future(dialled(port, tls.our_client(), owner))
        await settle()
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
    assert owner.calls == []
    assert open_descriptors() == before


async def test_a_cancelled_handshake_leaves_nothing_behind(tls: Tls) -> None:
    connected = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        connected.set()
        await reader.read()

    before = open_descriptors()
    async with stdlib_server(None, be_silent) as port:
        owner = Recorder()
        dial = asyncio.ensure_future(dialled(port, tls.our_client(), owner))
        await connected.wait()
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
    await settle()
    assert owner.calls == []
    assert open_descriptors() == before


async def test_a_dial_cancelled_when_it_had_just_succeeded_closes_what_it_opened(tls: Tls) -> None:
    dial: asyncio.Task[TlsStream]
    owner = Recorder(ready=lambda it: dial.cancel())
    async with serving(tls.our_server(), lambda _: Recorder()) as server:
        dial = asyncio.create_task(dialled(server.port, tls.our_client(), owner))
        with pytest.raises(asyncio.CancelledError):
            await dial
        await owner.until_told("closed")
        assert owner.calls == ["ready", "closed"]


async def test_a_dial_cancelled_in_the_turn_that_would_complete_it_tells_its_owner_nothing(tls: Tls) -> None:
    dial: asyncio.Task[TlsStream]
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def finish_and_cancel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = HandTls(reader, writer, tls.their_server(ssl.TLSVersion.TLSv1_2), None)
        await server.shake_hands(keep_last_flight=True)
        # In the loop's next turn the cancellation comes first, then our last flight is read.
        writer.write(server.outgoing.read())
        asyncio.get_running_loop().call_soon(dial.cancel)
        with contextlib.suppress(ConnectionError):
            await reader.read()

    owner = Recorder()
    async with stdlib_server(None, finish_and_cancel) as port:
        dial = asyncio.create_task(dialled(port, tls.our_client(), owner))
        with pytest.raises(asyncio.CancelledError):
            await dial
        await settle()
    assert owner.calls == []
    assert reported == []


async def test_two_hundred_connections_leave_no_descriptor_and_no_task(
    tls: Tls, version: ssl.TLSVersion
) -> None:
    before = open_descriptors()
    tasks = asyncio.all_tasks()
    context = tls.our_client()
    context.maximum_version = version
    async with serving(
        tls.our_server(),
        lambda stream: Recorder(data=lambda it: it.s.write(b"pong"), eof=lambda it: it.s.close()),
    ) as server:
        for number in range(10):
            owners = [Recorder(data=lambda it: it.s.finish()) for _ in range(20)]
            streams = await asyncio.gather(*(dialled(server.port, context, owner) for owner in owners))
            for place, stream in enumerate(streams):
                if (number + place) % 3:
                    stream.write(b"ping")
                elif place % 2:
                    stream.close()
                else:
                    stream.abort()
            for owner in owners:
                await owner.until_told("closed")
    await settle()
    assert open_descriptors() == before
    assert asyncio.all_tasks() == tasks


# Helpers


class Refusals:
    """What the server reports about connections that did not make it."""

    def __init__(self) -> None:
        self.all: list[tuple[tuple[str, int], Exception]] = []
        self._news = asyncio.Event()

    def __call__(self, peer: tuple[str, int], error: Exception) -> None:
        self.all.append((peer, error))
        self._news.set()

    async def until(self, count: int) -> list[tuple[tuple[str, int], Exception]]:
        async with asyncio.timeout(PATIENCE):
            while len(self.all) < count:
                self._news.clear()
                await self._news.wait()
        return self.all


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port whose backlog is full: the kernel drops every further SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()[1]


def open_descriptors() -> set[str]:
    """Every open descriptor with what it is, the one that reads the directory left out."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a path object would open another descriptor
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")  # noqa: PTH115 - as above
    return {text for text in found if "/proc/" not in text}
