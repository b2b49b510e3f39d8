"""The status server on a real socket, with sources that can be changed, and requests written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from gatewayd.daemon.config_values import Endpoint, UnixSocket
from gatewayd.daemon.device_table import DeviceQuery
from gatewayd.daemon.fleet_facts import DevicePage, Verdict
from gatewayd.daemon.status_access import StatusAccess
from gatewayd.daemon.status_answers import StatusAnswers, StatusSources
from gatewayd.daemon.status_server import StatusServer
from gatewayd.daemon.status_token import StatusToken
from tests.support.fleet_shown import GOOD, page

LOOPBACK = Endpoint("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class StatusRig:
    """A server, what it is told to say, and how often it was asked. Its clock is the loop's, plus `shift`."""

    def __init__(
        self, *, token: str = "", wide: bool = False, metrics_for_all: bool = False, **options: Any
    ) -> None:
        self.registry = CollectorRegistry()
        self.collected = 0
        Gauge("gatewayd_tokens_expired", "Tokens.", registry=self.registry).set_function(self._collected)
        Counter("gatewayd_things", "Things.", registry=self.registry).inc(3)
        self.alive = Verdict(True)
        self.ready = Verdict(True)
        self.facts = GOOD
        self.asked: list[DeviceQuery] = []
        self.rows = page()
        self.shift = 0.0
        self._loop = asyncio.get_running_loop()
        self.access = StatusAccess(
            StatusToken(token.encode()) if token else None,
            wide=wide,
            metrics_for_all=metrics_for_all,
            secret=b"s" * 32,
            monotonic=self._now,
        )
        sources = StatusSources(
            self.registry, lambda: self.alive, lambda: self.ready, lambda: self.facts, self._devices
        )
        self.answers = StatusAnswers(sources, self.access, self._now)
        self.server = StatusServer(self.answers.answer, **options)
        self.address: Endpoint | UnixSocket = LOOPBACK

    async def start(self, address: Endpoint | UnixSocket = LOOPBACK) -> None:
        self.address = await self.server.start(address)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.address, UnixSocket):
            return await asyncio.open_unix_connection(self.address.path)
        return await asyncio.open_connection(self.address.host, self.address.port)

    async def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        body: bytes | None = None,
        host: str = "localhost",
        **headers: str,
    ) -> Answer:
        """A request by hand, so that the client is not the library under test. `headers`: with _ for -."""
        reader, writer = await self.connect()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body is not None:
            lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + (body or b""))
            answer = await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.close()
            await writer.wait_closed()
        head, _, told = answer.partition(b"\r\n\r\n")
        status, *rest = head.decode().split("\r\n")
        pairs = (line.partition(": ") for line in rest)
        return Answer(int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, told)

    async def log_in(self, token: str) -> Answer:
        return await self.ask("/login", "POST", body=f"token={token}".encode())

    def _now(self) -> float:
        return self._loop.time() + self.shift

    def _collected(self) -> float:
        self.collected += 1
        return 0.0

    def _devices(self, query: DeviceQuery) -> DevicePage:
        self.asked.append(query)
        return self.rows


@asynccontextmanager
async def status_rig(address: Endpoint | UnixSocket = LOOPBACK, **options: Any) -> AsyncIterator[StatusRig]:
    """A server that listens."""
    rig = StatusRig(**options)
    await rig.start(address)
    try:
        yield rig
    finally:
        await rig.server.close()
