"""The listening side: pacing, bounds, exhaustion, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from gatewayd.transport import stream_server
from gatewayd.transport.stream_server import StreamServer, listening_socket
from gatewayd.transport.tls_stream import TlsStream
from gatewayd.transport.tls_transport import serve_streams
from tests.support.hand_tls import HandTls
from tests.support.stream_owners import PATIENCE, Recorder, dialled, serving, settle, shut
from tests.support.tls_material import HUB, Tls


async def until_handshaking(server: StreamServer, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while server.handshaking != count:  # noqa: ASYNC110 - a state, not an event; loop turns are few
            await asyncio.sleep(0)


async def test_no_more_than_the_bound_are_between_accept_and_handshake_and_the_rest_wait(tls: Tls) -> None:
    served: list[TlsStream] = []

    def owner_of(stream: TlsStream) -> Recorder:
        served.append(stream)
        return Recorder()

    async with serving(tls.our_server(), owner_of, max_handshakes=2) as server:
        clients = [await HandTls.connect(server.port, tls.their_client(), HUB) for _ in range(5)]
        await until_handshaking(server, 2)
        await settle()
        assert server.handshaking == 2
        # Those that are in finish one after another; each place goes to one that waited in the kernel.
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(client.shake_hands() for client in clients))
            while len(served) < 5:  # noqa: ASYNC110 - loop turns are few
                await asyncio.sleep(0)
        assert server.handshaking == 0
        for client in clients:
            await shut(client.writer)


async def test_a_silent_connection_gives_its_place_away_when_its_time_is_over(tls: Tls) -> None:
    async with serving(
        tls.our_server(), lambda _: Recorder(), max_handshakes=1, handshake_timeout=0.05
    ) as server:
        _, silent = await asyncio.open_connection("127.0.0.1", server.port)
        await until_handshaking(server, 1)
        owner = Recorder()
        stream = await dialled(server.port, tls.our_client(), owner)
        stream.abort()
        await owner.until_told("closed")
        await shut(silent)


async def test_a_storm_is_served_whole_while_the_loop_goes_on(tls: Tls) -> None:
    most = 0
    turns = 0
    done = False

    async def watch(server: StreamServer) -> None:
        nonlocal most, turns
        while not done:
            most = max(most, server.handshaking)
            turns += 1
            await asyncio.sleep(0)

    async with serving(tls.our_server(), lambda _: Recorder(), max_handshakes=16) as server:
        watching = asyncio.ensure_future(watch(server))
        owners = [Recorder() for _ in range(100)]
        context = tls.our_client()
        streams = await asyncio.gather(*(dialled(server.port, context, owner) for owner in owners))
        done = True
        await watching
        for stream, owner in zip(streams, owners, strict=True):
            stream.abort()
            await owner.until_told("closed")
    assert 0 < most <= 16
    assert turns > 25, "many short turns, not a few long ones"


async def test_a_host_that_is_not_admitted_costs_no_tls(tls: Tls) -> None:
    asked: list[str] = []

    def admit(host: str) -> bool:
        asked.append(host)
        return False

    async with serving(tls.our_server(), lambda _: Recorder(), admit=admit) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        assert asked == ["127.0.0.1"]
        assert server.handshaking == 0
        await shut(writer)


async def test_a_question_about_admission_that_fails_ends_one_connection_and_not_the_listener(
    tls: Tls,
) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    asked: list[str] = []

    def admit(host: str) -> bool:
        asked.append(host)
        if len(asked) == 1:
            raise RuntimeError("a bug")
        return True

    async with serving(tls.our_server(), lambda _: Recorder(), admit=admit) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        await shut(writer)
        owner = Recorder()
        (await dialled(server.port, tls.our_client(), owner)).abort()
        await owner.until_told("closed")
    assert [str(context["exception"]) for context in reported] == ["a bug"]


async def test_a_factory_that_fails_ends_one_connection_and_gives_its_place_back(tls: Tls) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail(stream: TlsStream) -> Recorder:
        raise RuntimeError("a bug")

    async with serving(tls.our_server(), fail, max_handshakes=1) as server:
        for _ in range(2):
            client = await HandTls.connect(server.port, tls.their_client(), HUB)
            await client.shake_hands()
            with contextlib.suppress(ConnectionError):
                await client.read(1)
            await shut(client.writer)
    assert [str(context["exception"]) for context in reported] == ["a bug", "a bug"]


async def test_a_factory_that_closes_the_stream_refuses_it_and_its_owner_hears_nothing(tls: Tls) -> None:
    owner = Recorder()

    def refuse(stream: TlsStream) -> Recorder:
        stream.close()
        return owner

    async with serving(tls.our_server(), refuse) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        assert await client.read(1) == b""
        await shut(client.writer)
    assert owner.calls == []


async def test_out_of_descriptors_it_rests_and_then_goes_on(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_server, "ACCEPT_RETRY_SECONDS", 0.02)
    refused: list[tuple[tuple[str, int], Exception]] = []
    out = asyncio.Event()

    def note(peer: tuple[str, int], error: Exception) -> None:
        refused.append((peer, error))
        out.set()

    async with serving(tls.our_server(), lambda _: Recorder(), on_refused=note) as server:
        client = socket.socket()
        with no_descriptors_left():
            client.connect(("127.0.0.1", server.port))
            async with asyncio.timeout(PATIENCE):
                await out.wait()
        [error] = {error.errno for _, error in refused if isinstance(error, OSError)}
        assert error == errno.EMFILE
        owner = Recorder()
        (await dialled(server.port, tls.our_client(), owner)).abort()
        await owner.until_told("closed")
        client.close()


async def test_closing_gives_up_handshakes_and_leaves_open_streams_to_their_owners(tls: Tls) -> None:
    refused: list[object] = []
    owner = Recorder()
    async with serving(
        tls.our_server(), lambda _: owner, on_refused=lambda *report: refused.append(report)
    ) as server:
        client = await HandTls.connect(server.port, tls.their_client(), HUB)
        await client.shake_hands()
        await owner.until_told("ready")
        reader, silent = await asyncio.open_connection("127.0.0.1", server.port)
        await until_handshaking(server, 1)
        server.close()
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        owner.s.write(b"still here")
        assert await client.read(10) == b"still here"
        assert refused == []
        await shut(silent)
        await shut(client.writer)


async def test_closing_in_the_middle_of_a_burst_leaks_no_socket(tls: Tls) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a path object would open another descriptor
    async with serving(tls.our_server(), lambda _: Recorder()) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        async with asyncio.timeout(PATIENCE):
            while len(server._arrived) < 2:  # noqa: ASYNC110 - a turn in which they are accepted and not begun
                await asyncio.sleep(0)
        server.close()
        await server.wait_closed()
        for client in clients:
            client.close()
    await settle()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_a_taken_address_is_an_oserror(tls: Tls) -> None:
    async with serving(tls.our_server(), lambda _: Recorder()) as server:
        with pytest.raises(OSError, match="Address already in use"):
            listening_socket("127.0.0.1", server.port, 1)


async def test_a_name_is_no_address_to_listen_on() -> None:
    with pytest.raises(ValueError, match="numeric"):
        listening_socket("localhost", 0, 1)


@pytest.mark.parametrize("host", ["::", "::1"])
async def test_ipv6_is_served_and_any_address_means_both_families(tls: Tls, host: str) -> None:
    sock = listening_socket(host, 0, 16)
    loop = asyncio.get_running_loop()
    server = await serve_streams(
        loop, "", 0, tls.our_server(), lambda _: Recorder(), handshake_timeout=PATIENCE, sock=sock
    )
    assert str(server.address) == f"[{host}]:{server.port}"
    for family_host in ("::1", "127.0.0.1") if host == "::" else ("::1",):
        _, writer = await asyncio.open_connection(
            family_host, server.port, ssl=tls.their_client(), server_hostname=HUB
        )
        writer.transport.abort()
        await shut(writer)
    server.close()
    await server.wait_closed()
    await settle()


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Lower the soft limit to what is open already; lift it again on the way out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - as above
    fillers = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]
    top = max(*fillers, highest) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
