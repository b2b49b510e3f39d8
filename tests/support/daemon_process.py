"""The daemon as it is in production: `python -m gatewayd run` in a process of its own, with a service manager's socket.

    async with daemon_process(site) as daemon:
        await daemon.until_notified("READY=1")

Everything it says (notifications, log lines) is kept with what it was; every wait is bounded. A daemon that still runs
at the end of the test is told to end, and killed when it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway_files import GatewaySite

WITHIN_SECONDS = 20.0
GATEWAYD = ("-m", "gatewayd")
# A drain with nothing to wait for is done in a tenth of this.
LEAVE_SECONDS = 3.0
LogLine = dict[str, Any]


class DaemonProcess:
    """A running daemon."""

    def __init__(
        self, process: asyncio.subprocess.Process, site: GatewaySite, manager: socket.socket
    ) -> None:
        self.process = process
        self.site = site
        self.notifications: list[str] = []
        self.output: list[str] = []
        self._manager = manager
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(manager, self._notified)
        self._reading = asyncio.create_task(self._read_output())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> list[LogLine]:
        """What it logged, as JSON."""
        return [json.loads(line) for line in self.output if line.startswith("{")]

    def said(self, words: str) -> list[LogLine]:
        """The log lines whose message holds `words`."""
        return [line for line in self.log if words in line["message"]]

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def until(self, condition: Callable[[DaemonProcess], bool], within: float = WITHIN_SECONDS) -> None:
        """Until something it said makes `condition` true."""
        try:
            async with asyncio.timeout(within):
                while not condition(self):
                    if self._reading.done():
                        raise AssertionError(
                            f"it has ended; notified {self.notifications}, said {self.output}"
                        )
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"not within {within} s; notified {self.notifications}, said {self.output[-20:]}"
            ) from None

    async def until_said(self, words: str, times: int = 1) -> LogLine:
        """The first of `times` log lines that hold `words`."""
        await self.until(lambda daemon: len(daemon.said(words)) >= times)
        return self.said(words)[0]

    async def until_notified(self, assignment: str, times: int = 1, within: float = WITHIN_SECONDS) -> None:
        await self.until(lambda daemon: daemon.notified(assignment) >= times, within)

    def notified(self, assignment: str) -> int:
        """How many notifications held `assignment`."""
        return sum(assignment in message.split("\n") for message in self.notifications)

    async def ended(self, within: float = WITHIN_SECONDS) -> int:
        """Its exit code."""
        async with asyncio.timeout(within):
            code = await self.process.wait()
            await self._reading
        self._take_notifications()
        return code

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page, with a plain HTTP/1.1 request."""
        async with asyncio.timeout(WITHIN_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.site.metrics_port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
                await writer.wait_closed()
        return int(head.split()[1]), body.decode()

    async def metrics(self) -> dict[str, float]:
        """Every sample: `name{label="value"}` with labels in order of their names. Up to a second old."""
        _, text = await self.get("/metrics")
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    async def until_metric(self, name: str, condition: Callable[[float], bool]) -> None:
        """Until a scrape shows a sample that makes `condition` true."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not condition((await self.metrics())[name]):  # noqa: ASYNC110 - a scrape is asked for, nothing tells
                await asyncio.sleep(0.05)

    async def leave(self) -> None:
        """End it, by force if it does not do so soon, and let go of everything."""
        if self.process.returncode is None:
            self.process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading
        asyncio.get_running_loop().remove_reader(self._manager)

    def _notified(self) -> None:
        self._take_notifications()
        self._changed.set()

    def _take_notifications(self) -> None:
        while True:
            try:
                self.notifications.append(self._manager.recv(4096).decode())
            except BlockingIOError:
                return

    async def _read_output(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.output.append(line.decode().rstrip("\n"))
            self._changed.set()
        self._take_notifications()
        self._changed.set()


@asynccontextmanager
async def daemon_process(
    site: GatewaySite,
    *,
    watchdog: float | None = None,
    ready: bool = True,
    program: Sequence[str] = GATEWAYD,
    **environ: str,
) -> AsyncIterator[DaemonProcess]:
    """Start the daemon; wait until it says READY unless told otherwise. `watchdog` in seconds.

    `program` is what Python is told to run instead, when the daemon is to be a faulty one.
    """
    # A socket's path has 108 bytes at most, which a test's own folder may exceed.
    with (
        tempfile.TemporaryDirectory(prefix="gw") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        path = str(Path(folder) / "notify")
        manager.bind(path)
        manager.setblocking(False)
        environment = {**os.environ, "NOTIFY_SOCKET": path, **environ}
        if watchdog is not None:
            environment["WATCHDOG_USEC"] = str(int(watchdog * 1_000_000))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(*program, "run", "--config", str(site.toml)),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        daemon = DaemonProcess(process, site, manager)
        try:
            if ready:
                await daemon.until_notified("READY=1")
            yield daemon
        finally:
            await daemon.leave()
