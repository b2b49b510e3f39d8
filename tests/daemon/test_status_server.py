"""The status server over real sockets: what it answers, and that scrapers cannot hold anything up."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from gatewayd.daemon.config_values import Endpoint
from gatewayd.daemon.status_page import StatusSnapshot
from gatewayd.daemon.status_server import MAX_CONNECTIONS, StatusServer, StatusSources, Verdict

SNAPSHOT = StatusSnapshot(
    taken_at=1_800_000_000.0,
    version="0.1.0",
    engine="portable",
    hub="contoso.azure-devices.net",
    ready=True,
    reasons=(),
    devices=(("connected", 2),),
)


class Rig:
    """A server whose sources can be changed, and how often each was asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.collected = 0
        Gauge("gatewayd_tokens_expired", "Tokens.", registry=self.registry).set_function(self._collected)
        Counter("gatewayd_things", "Things.", registry=self.registry).inc(3)
        self.alive = Verdict(True)
        self.ready = Verdict(True)
        self.snapshot = SNAPSHOT
        self.server: StatusServer | None = None
        self.address = Endpoint("127.0.0.1", 0)

    def _collected(self) -> float:
        self.collected += 1
        return 0.0

    async def start(self, **options: float) -> None:
        sources = StatusSources(self.registry, lambda: self.alive, lambda: self.ready, lambda: self.snapshot)
        self.server = StatusServer(sources, **options)  # type: ignore[arg-type]  # one int, one float
        self.address = await self.server.start(Endpoint("127.0.0.1", 0))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.address.host, self.address.port)

    async def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """A request by hand, so that the client is not the library under test."""
        reader, writer = await self.connect()
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split()[1]), headers, body


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    if rig.server is not None:
        await rig.server.close()


async def test_metrics_are_readable_by_a_prometheus_parser(rig: Rig) -> None:
    await rig.start()
    status, headers, body = await rig.ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert families["gatewayd_things"].samples[0].value == 3.0
    assert "gatewayd_tokens_expired" in families


async def test_liveness_and_readiness_say_why_not(rig: Rig) -> None:
    await rig.start()
    status, headers, body = await rig.ask("/livez")
    assert (status, json.loads(body)) == (200, {"status": "ok", "reasons": []})
    assert headers["content-type"].startswith("application/json")
    rig.ready = Verdict(False, ("the clock is known wrong", "no device is connected"))
    status, _, body = await rig.ask("/readyz")
    assert status == 503
    assert json.loads(body)["reasons"] == ["the clock is known wrong", "no device is connected"]
    assert (await rig.ask("/livez"))[0] == 200, "one does not answer for the other"
    rig.alive = Verdict(False, ("renewal has not reported",))
    assert (await rig.ask("/livez"))[0] == 503


async def test_the_page_is_html_that_may_load_nothing(rig: Rig) -> None:
    await rig.start()
    status, headers, body = await rig.ask("/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"contoso.azure-devices.net" in body


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nothing", "GET", 404), ("/metrics", "POST", 405), ("/../etc/passwd", "GET", 404)],
)
async def test_anything_else_is_refused(rig: Rig, path: str, method: str, status: int) -> None:
    await rig.start()
    assert (await rig.ask(path, method))[0] == status


async def test_a_head_request_gets_no_body(rig: Rig) -> None:
    await rig.start()
    status, headers, body = await rig.ask("/metrics", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


async def test_many_scrapers_cost_one_collection_a_second(rig: Rig) -> None:
    await rig.start()
    before = rig.collected
    loop = asyncio.get_running_loop()
    began = loop.time()
    answers = [await rig.ask("/metrics") for _ in range(50)]
    assert all(status == 200 for status, _, _ in answers)
    assert rig.collected - before <= 1 + int(loop.time() - began)


async def test_one_connection_too_many_is_told_so_and_the_others_are_served(rig: Rig) -> None:
    await rig.start(max_connections=3)
    held = [await rig.connect() for _ in range(3)]
    assert (await rig.ask("/livez"))[0] == 503
    assert rig.server is not None
    assert rig.server.refused == 1
    reader, writer = held[0]
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
    for _, writer in held:
        writer.close()
        await writer.wait_closed()


async def test_a_place_is_free_again_when_a_connection_ends(rig: Rig) -> None:
    await rig.start(max_connections=1)
    for _ in range(5):
        assert (await rig.ask("/livez"))[0] == 200


async def test_a_burst_of_connections_stays_within_the_bound(rig: Rig) -> None:
    await rig.start()
    server = rig.server
    assert server is not None
    connections = await asyncio.gather(*(rig.connect() for _ in range(4 * MAX_CONNECTIONS)))
    for _ in range(500):
        if server.refused == 3 * MAX_CONNECTIONS:
            break
        await asyncio.sleep(0.01)
    assert server.open_connections == MAX_CONNECTIONS
    answers = await asyncio.gather(*(answer_on(*connection) for connection in connections))
    assert sum(answer.startswith(b"HTTP/1.1 200") for answer in answers) == MAX_CONNECTIONS
    assert any(answer.startswith(b"HTTP/1.1 503") for answer in answers)
    assert b"" in answers, "beyond the bound on refusals nothing is said"
    assert (await rig.ask("/livez"))[0] == 200


async def answer_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What a connection answers to a probe; nothing when it is reset."""
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


async def test_a_connection_that_asks_nothing_is_cut(rig: Rig) -> None:
    await rig.start(connection_seconds=0.2)
    reader, writer = await rig.connect()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)
    writer.close()


async def test_a_scraper_that_does_not_read_is_cut_and_the_loop_goes_on_meanwhile(rig: Rig) -> None:
    rig.snapshot = replace(SNAPSHOT, reasons=("x" * 1_000_000,) * 20)
    await rig.start(connection_seconds=1.0)
    loop = asyncio.get_running_loop()
    _, writer = await rig.connect()
    # More than the buffers of both ends hold, so the answer is stuck for as long as the server allows.
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    await rig.ask("/livez")
    assert rig.server is not None
    turns, lag = 0, 0.0
    async with asyncio.timeout(5):
        while rig.server.open_connections:
            before = loop.time()
            await asyncio.sleep(0.01)
            turns, lag = turns + 1, max(lag, loop.time() - before)
    assert turns > 20, "the scraper was not stuck, so nothing was tested"
    assert lag < 0.5
    writer.transport.abort()


async def test_no_thread_is_started(rig: Rig) -> None:
    before = threading.active_count()
    await rig.start()
    for path in ("/", "/metrics", "/livez", "/readyz"):
        await rig.ask(path)
    assert threading.active_count() == before


async def test_an_address_in_use_is_an_error_at_start(rig: Rig) -> None:
    await rig.start()
    sources = StatusSources(rig.registry, lambda: rig.alive, lambda: rig.ready, lambda: rig.snapshot)
    second = StatusServer(sources)
    with pytest.raises(OSError, match="in use"):
        await second.start(rig.address)
    await second.close()


async def test_closing_ends_what_is_open(rig: Rig) -> None:
    await rig.start()
    reader, writer = await rig.connect()
    assert rig.server is not None
    await asyncio.wait_for(rig.server.close(), 5)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    with pytest.raises(OSError, match=r".*"):
        await rig.connect()
