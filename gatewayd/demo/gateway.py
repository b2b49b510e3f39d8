"""The daemon of the demo: the same program with the same assembly as in production, in a process of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from gatewayd.clock import SystemClock
from gatewayd.demo.processes import Child, ChildFailed, Children
from gatewayd.demo.readings import DaemonLog, DaemonReading, NotThere, fetch, parse_metrics, rss_kib
from gatewayd.demo.settings import Places, Settings, daemon_config
from gatewayd.demo.stage import LOOPBACK, write_private

NAME = "the daemon"
READY_SECONDS = 30.0


class Gateway:
    """A running daemon."""

    def __init__(self, child: Child, log: DaemonLog, metrics_port: int, http: aiohttp.ClientSession) -> None:
        self.log = log
        self._child = child
        self._base = f"http://{LOOPBACK}:{metrics_port}"
        self._http = http

    @classmethod
    async def start(
        cls,
        settings: Settings,
        places: Places,
        directory: Path,
        children: Children,
        http: aiohttp.ClientSession,
    ) -> Gateway:
        """Write its configuration, start it, wait until it says that it is ready."""
        config = write_private(directory / "gatewayd.toml", daemon_config(settings, places).encode())
        log = DaemonLog(SystemClock())
        child = await children.start(NAME, ["gatewayd", "run", "--config", str(config)], stderr=log.take)
        gateway = cls(child, log, places.metrics_port, http)
        await gateway._until_ready()
        return gateway

    async def read(self) -> DaemonReading:
        """Its metrics now."""
        return parse_metrics(await fetch(self._http, f"{self._base}/metrics"))

    @property
    def pid(self) -> int:
        return self._child.pid

    def rss_kib(self) -> int:
        return rss_kib(self.pid)

    def kill(self) -> None:
        """End it as a crash would."""
        self._child.kill()

    async def end(self) -> str | None:
        """Ask it to end. What was wrong with that, or None."""
        if not await self._child.end():
            return "it had to be killed"
        code = self._child.returncode
        return f"exit code {code}" if code else None

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await self._is_ready():
                    self._child.check()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            problem = f"was not ready within {READY_SECONDS:g} s"
            raise ChildFailed(NAME, problem, self._child.last_words) from None

    async def _is_ready(self) -> bool:
        try:
            await fetch(self._http, f"{self._base}/readyz")
        except NotThere:
            return False
        return True
