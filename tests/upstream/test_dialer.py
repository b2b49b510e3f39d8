"""Dials to one hub: names, several addresses, deadlines, resumption. Hubs are asyncio's own TLS servers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web

from gatewayd.errors import Bounded, DialFailed
from gatewayd.transport.addresses import AddressInfo
from gatewayd.transport.tls_stream import StreamLimits
from gatewayd.transport.worker import Worker
from gatewayd.upstream import dialer as dialer_module
from gatewayd.upstream.dialer import DialDeadlines, Dialer, Endpoint, Proxy
from tests.support.delay_line import Cut, DelayLine
from tests.support.proxy_rig import proxy_rig
from tests.support.stream_owners import PATIENCE, Recorder, stdlib_server
from tests.support.tls_material import HUB, Tls


class Names:
    """A resolver that answers from a table, and can be told to answer nothing for now."""

    def __init__(self) -> None:
        self.answer: list[tuple[str, int]] | socket.gaierror = []
        self.asked = 0

    def __call__(self, host: str, port: int) -> list[AddressInfo]:
        self.asked += 1
        if isinstance(self.answer, socket.gaierror):
            raise self.answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in self.answer]


class Rig:
    """A dialer of the name HUB, whose addresses the test chooses."""

    def __init__(self, tls: Tls, worker: Worker, names: Names) -> None:
        self.tls = tls
        self.worker = worker
        self.names = names
        self.dialer = self.new_dialer()

    def new_dialer(
        self, *, websocket: bool = False, proxy: Proxy | None = None, **deadlines: float
    ) -> Dialer:
        return Dialer(
            asyncio.get_running_loop(),
            Endpoint(HUB, 8883, HUB),
            self.tls.our_client(),
            self.worker,
            deadlines=DialDeadlines(**{"overall": PATIENCE, **deadlines}),
            websocket=websocket,
            proxy=proxy,
        )

    def at(self, *ports: int) -> None:
        self.names.answer = [("127.0.0.1", port) for port in ports]

    async def dial(self) -> tuple[Recorder, bool]:
        """One dial that hears the hub's greeting and closes; whether it was resumed."""
        owner = Recorder()
        stream = await self.dialer.dial(owner)
        await owner.until(lambda it: it.data == b"hello")
        reused = stream.session_reused
        stream.close()
        await owner.until_told("closed")
        return owner, reused

    async def failure(self) -> DialFailed:
        owner = Recorder()
        with pytest.raises(DialFailed) as caught:
            await self.dialer.dial(owner)
        assert owner.calls == []
        return caught.value


@pytest.fixture
async def rig(tls: Tls) -> AsyncIterator[Rig]:
    names = Names()
    worker = Worker(asyncio.get_running_loop(), lookup=names)
    yield Rig(tls, worker, names)
    assert await worker.stop(within=PATIENCE)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await reader.read()


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that nobody listens on, kept from being given to anybody else."""
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


async def test_every_dial_asks_dns_anew(rig: Rig) -> None:
    async with (
        stdlib_server(rig.tls.their_server(), greet) as first,
        stdlib_server(rig.tls.their_server(), greet) as second,
    ):
        for port in (first, second):
            rig.at(port)
            owner = Recorder()
            stream = await rig.dialer.dial(owner)
            assert stream.peer_address == ("127.0.0.1", port)
            stream.close()
            await owner.until_told("closed")
    assert rig.names.asked == 2


async def test_an_overridden_address_is_dialled_and_the_hubs_name_still_checked(rig: Rig) -> None:
    for hostname, works in ((HUB, True), ("other.example", False)):
        async with stdlib_server(rig.tls.their_server(), greet) as port:
            rig.dialer = Dialer(
                asyncio.get_running_loop(),
                Endpoint("127.0.0.1", port, hostname),
                rig.tls.our_client(),
                rig.worker,
            )
            assert rig.dialer.endpoint.hostname == hostname
            if works:
                await rig.dial()
            else:
                assert "not for other.example" in (await rig.failure()).problem
    assert rig.names.asked == 0, "a numeric override needs no DNS"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (socket.EAI_NONAME, "DNS knows no such name"),
        (socket.EAI_AGAIN, "no DNS server answers"),
        (socket.EAI_FAIL, "as the resolver said it"),
    ],
)
async def test_a_failed_lookup_says_what_to_check(rig: Rig, number: int, words: str) -> None:
    rig.names.answer = socket.gaierror(number, "as the resolver said it")
    error = await rig.failure()
    assert (error.stage, error.problem[: len(HUB)]) == ("resolve", HUB)
    assert words in error.problem


async def test_a_name_without_addresses_is_a_failed_lookup(rig: Rig) -> None:
    assert (await rig.failure()).problem == f"{HUB}: the name has no address for TCP"


async def test_a_worker_at_its_bound_is_a_failed_lookup(rig: Rig) -> None:
    busy = Worker(asyncio.get_running_loop(), bound=0)
    rig.worker, worker = busy, rig.worker
    rig.dialer = rig.new_dialer()
    error = await rig.failure()
    assert (error.stage, "at most 0" in error.problem) == ("resolve", True)
    rig.worker = worker
    assert await busy.stop(within=PATIENCE)


async def test_addresses_are_tried_in_turn_and_the_dead_one_goes_last_next_time(rig: Rig) -> None:
    async with stdlib_server(rig.tls.their_server(), greet) as port, DeadEnd() as dead:
        rig.at(dead.port, port)
        await rig.dial()
        assert dead.knocks == 1
        await rig.dial()
        assert dead.knocks == 1, "the one that answered is tried first"
        rig.at(dead.port)
        await rig.failure()
        assert dead.knocks == 2, "alone it is tried again"


async def test_when_all_addresses_fail_the_one_that_came_furthest_is_told(rig: Rig) -> None:
    async with stdlib_server(rig.tls.their_server(chain=rig.tls.expired_chain), greet) as expired:
        with refusing_port() as refusing:
            rig.at(expired, refusing)
            error = await rig.failure()
    assert error.stage == "handshake"
    assert "has expired" in error.problem
    assert error.problem.endswith("(2 addresses tried)")


async def test_the_whole_dial_has_one_deadline(rig: Rig) -> None:
    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    rig.dialer = rig.new_dialer(overall=0.1, handshake=0.06)
    async with stdlib_server(None, be_silent) as port:
        rig.at(port)
        error = await rig.failure()
        assert error.problem == "the TLS handshake was not finished in time"
        async with stdlib_server(None, be_silent) as other:
            rig.at(port, other)
            error = await rig.failure()
    assert (
        "not done within 0.1 s; before that, handshake: the TLS handshake was not finished" in error.problem
    )


async def test_a_cancelled_dial_ends_at_once(rig: Rig) -> None:
    connected = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()

    async with stdlib_server(None, be_silent) as port:
        rig.at(port)
        dial = asyncio.ensure_future(rig.dialer.dial(Recorder()))
        await connected.wait()
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_the_second_dial_resumes_the_first(rig: Rig, version: ssl.TLSVersion) -> None:
    async with stdlib_server(rig.tls.their_server(version), greet) as port:
        rig.at(port)
        assert [(await rig.dial())[1] for _ in range(4)] == [False, True, True, True]


async def test_a_session_the_hub_declines_is_replaced_by_a_new_one(rig: Rig) -> None:
    async with stdlib_server(rig.tls.their_server(), greet) as port:
        rig.at(port)
        assert [(await rig.dial())[1] for _ in range(2)] == [False, True]
    # Another hub process: it cannot read the old one's tickets.
    async with stdlib_server(rig.tls.their_server(), greet) as port:
        rig.at(port)
        assert [(await rig.dial())[1] for _ in range(3)] == [False, True, True]


@pytest.mark.parametrize("rest", [60.0, 0.0], ids=["rest", "rest is over"])
async def test_after_a_handshake_that_failed_with_a_session_none_is_offered_for_a_while(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, rest: float
) -> None:
    monkeypatch.setattr(dialer_module, "RESUMPTION_REST_SECONDS", rest)
    async with (
        stdlib_server(rig.tls.their_server(), greet) as port,
        await DelayLine.open(port) as line,
    ):
        rig.at(line.port)
        assert [(await rig.dial())[1] for _ in range(2)] == [False, True]
        line.cut_to_client = Cut(after=10)
        assert (await rig.failure()).stage == "handshake"
        line.cut_to_client = None
        # The first dial after it has no session to offer in any case; it brings a new one.
        assert [(await rig.dial())[1] for _ in range(2)] == [False, rest == 0.0]


async def test_a_connect_that_failed_says_nothing_against_the_session(rig: Rig) -> None:
    async with stdlib_server(rig.tls.their_server(), greet) as port:
        rig.at(port)
        await rig.dial()
        with refusing_port() as refusing:
            rig.at(refusing)
            assert (await rig.failure()).stage == "connect"
        rig.at(port)
        assert (await rig.dial())[1]


async def test_many_dials_at_the_same_time_share_one_lookup(rig: Rig) -> None:
    async with stdlib_server(rig.tls.their_server(), greet) as port:
        rig.at(port)
        owners = [Recorder() for _ in range(20)]
        streams = await asyncio.gather(*(rig.dialer.dial(owner) for owner in owners))
        for stream, owner in zip(streams, owners, strict=True):
            stream.close()
            await owner.until_told("closed")
    assert rig.names.asked == 1


async def test_the_streams_have_the_dialers_limits(rig: Rig) -> None:
    async with stdlib_server(rig.tls.their_server(), greet) as port:
        dialer = Dialer(
            asyncio.get_running_loop(),
            Endpoint("127.0.0.1", port, HUB),
            rig.tls.our_client(),
            rig.worker,
            limits=StreamLimits(write_cap=10),
        )
        owner = Recorder()
        stream = await dialer.dial(owner)
        assert not stream.write(b"eleven bytes")
        await owner.until_told("closed")
        assert isinstance(owner.error, Bounded)


class DeadEnd:
    """Accepts and resets at once; counts who knocked."""

    def __init__(self) -> None:
        self.knocks = 0
        self.port = 0

    async def __aenter__(self) -> DeadEnd:
        self._server = await asyncio.start_server(self._knock, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _knock(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocks += 1
        writer.transport.abort()


# Through a proxy, and in WebSocket frames


async def test_through_a_proxy_its_name_is_looked_up_and_the_hub_asked_for_by_name(rig: Rig) -> None:
    async with (
        stdlib_server(rig.tls.their_server(), greet) as hub,
        proxy_rig(route=("127.0.0.1", hub)) as proxy,
    ):
        rig.at(proxy.port)
        rig.dialer = rig.new_dialer(proxy=Proxy("proxy.example", 3128))
        await rig.dial()
        assert proxy.targets == [f"{HUB}:8883"]


async def test_resumption_works_through_a_proxy(rig: Rig) -> None:
    async with (
        stdlib_server(rig.tls.their_server(), greet) as hub,
        proxy_rig(route=("127.0.0.1", hub)) as proxy,
    ):
        rig.at(proxy.port)
        rig.dialer = rig.new_dialer(proxy=Proxy("proxy.example", 3128))
        assert [(await rig.dial())[1] for _ in range(2)] == [False, True]


async def test_a_proxy_that_refuses_is_named_with_what_to_do(rig: Rig) -> None:
    async with proxy_rig(refuse=407) as proxy:
        rig.at(proxy.port)
        rig.dialer = rig.new_dialer(proxy=Proxy("proxy.example", 3128))
        error = await rig.failure()
    assert error.stage == "proxy"
    assert str(error) == (
        "proxy: proxy proxy.example: CONNECT was refused with 407: "
        "it wants a user and a password; set hub.proxy_credentials"
    )


async def test_a_proxy_that_is_not_there_is_told_from_a_hub_that_is_not(rig: Rig) -> None:
    with refusing_port() as port:
        rig.at(port)
        rig.dialer = rig.new_dialer(proxy=Proxy("proxy.example", 3128))
        error = await rig.failure()
    assert (error.stage, error.problem.startswith("proxy proxy.example: 127.0.0.1:")) == ("connect", True)


async def test_a_proxy_without_a_name_is_a_failed_lookup_of_the_proxy(rig: Rig) -> None:
    rig.names.answer = socket.gaierror(socket.EAI_NONAME, "?")
    rig.dialer = rig.new_dialer(proxy=Proxy("proxy.example", 3128))
    error = await rig.failure()
    assert str(error) == "resolve: proxy proxy.example: DNS knows no such name; check the host name"


def test_a_proxys_credentials_are_not_shown() -> None:
    assert "secret" not in repr(Proxy("p", 1, b"Basic secret"))


async def test_a_websocket_is_a_stream_like_any_other(rig: Rig) -> None:
    requests: list[web.Request] = []

    async def serve(request: web.Request) -> web.WebSocketResponse:
        requests.append(request)
        ws = web.WebSocketResponse(protocols=("mqtt",))
        await ws.prepare(request)
        await ws.send_bytes(b"hello")
        async for _ in ws:
            pass
        return ws

    app = web.Application()
    app.router.add_get("/$iothub/websocket", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as sock:
        await web.SockSite(runner, sock, ssl_context=rig.tls.their_server()).start()
        rig.at(sock.getsockname()[1])
        rig.dialer = rig.new_dialer(websocket=True)
        assert [(await rig.dial())[1] for _ in range(2)] == [False, True], "the second resumes the first"
        await runner.cleanup()
    assert requests[0].path_qs == "/$iothub/websocket?iothub-no-client-cert=true"
    assert requests[0].headers["Host"] == f"{HUB}:8883", "the port belongs to the name unless it is 443"


def test_the_usual_port_is_not_part_of_the_name() -> None:
    assert Endpoint("elsewhere", 443, HUB).host_header == HUB


async def test_a_hub_without_a_websocket_came_furthest(rig: Rig) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with stdlib_server(rig.tls.their_server(), refuse) as hub:
        with refusing_port() as dead:
            rig.at(hub, dead)
            rig.dialer = rig.new_dialer(websocket=True)
            error = await rig.failure()
    assert error.stage == "upgrade"
    assert "there is no WebSocket at this path" in error.problem
