"""`gatewayd run`: the life of the daemon between its first steps (start.py) and its exit code.

Signals: SIGTERM and SIGINT drain and end, SIGHUP reloads. A second SIGTERM during the drain ends at once. systemd hears
READY when the listener is bound, RELOADING around a reload, STOPPING before the drain, WATCHDOG while renewals go on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from gatewayd.clock import Clock, SystemClock
from gatewayd.daemon import start
from gatewayd.daemon.assembly import Gateway
from gatewayd.daemon.config import Config
from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.daemon.garbage import search_seldom
from gatewayd.daemon.process_limits import raise_limits
from gatewayd.daemon.progress import Stall
from gatewayd.daemon.reload import Reloader, ReloadOutcome
from gatewayd.daemon.start import Startup
from gatewayd.daemon.watchdog import Watchdog
from gatewayd.errors import GatewaydError

_LOG: Final = logging.getLogger(__name__)

add_arguments = start.add_arguments


def run(args: argparse.Namespace) -> int:
    """The subcommand."""
    clock = SystemClock()
    return start.start(args.config, lambda startup: serve(startup, clock), clock)


def serve(startup: Startup, clock: Clock) -> int:
    """Live until told to stop; the exit code."""
    limits = raise_limits()
    search_seldom()
    devices = startup.devices or 0
    if devices > limits.devices:
        _LOG.warning(
            "%d open files are enough for %d devices and the device file has %d: raise LimitNOFILE=",
            limits.open_files,
            limits.devices,
            devices,
        )
    return asyncio.run(_live(startup, clock))


async def _live(startup: Startup, clock: Clock) -> int:
    code: int = ExitCode.FAILED
    failure: GatewaydError | OSError | None = None
    async with asyncio.TaskGroup() as tasks:

        def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            return tasks.create_task(work, name=name)

        try:
            gateway = Gateway(
                startup.config,
                devices=startup.devices or 0,
                clock=clock,
                spawn=spawn,
                keys_are_guarded=_is_credential(startup.config.devices.file),
            )
            code = await _Life(startup, gateway, clock).live()
        except (GatewaydError, OSError) as error:
            # The group would wrap it, and whoever reads the log needs its own words.
            failure = error
    if failure is not None:
        raise failure
    return code


class _Life:
    """One run, with what signals do to it."""

    def __init__(self, startup: Startup, gateway: Gateway, clock: Clock) -> None:
        self._startup = startup
        self._gateway = gateway
        self._clock = clock
        self._stop = asyncio.Event()
        self._reloader = Reloader(startup.config, startup.load_again, self._apply)

    async def live(self) -> int:
        """Start, serve, drain."""
        loop = asyncio.get_running_loop()
        notifier = self._startup.notifier
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        watchdog = self._watchdog(loop)
        try:
            await self._gateway.start()
            notifier.ready("serving")
            if watchdog is not None:
                watchdog.start()
            await self._stop.wait()
            notifier.stopping("draining")
            await self._gateway.drain()
        finally:
            if watchdog is not None:
                watchdog.stop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
        _LOG.info("gatewayd has stopped")
        return ExitCode.OK

    def _watchdog(self, loop: asyncio.AbstractEventLoop) -> Watchdog | None:
        seconds = self._startup.watchdog_seconds
        if seconds is None:
            return None
        return Watchdog(loop, self._gateway.progress, seconds, self._startup.notifier.alive, self._stalled)

    def _stalled(self, stall: Stall) -> None:
        _LOG.error("%s; the watchdog is not fed any more", stall)

    def _told_to_stop(self) -> None:
        if self._stop.is_set():
            _LOG.warning("told to stop again: gatewayd ends without finishing the drain")
            os._exit(ExitCode.FAILED)
        self._stop.set()

    def _reload(self) -> None:
        if self._stop.is_set():
            _LOG.info("a reload is not begun while gatewayd stops")
            return
        notifier = self._startup.notifier
        notifier.reloading(self._clock.monotonic())
        succeeded = False
        try:
            outcome = self._reloader.reload()
            self._say(outcome)
            self._gateway.status.reloaded(outcome.problems)
            succeeded = outcome.succeeded
        finally:
            # Also after a fault of ours, which the loop logs: systemd ends a service whose reload never ends.
            self._gateway.metrics.config_last_reload_successful.set(float(succeeded))
            notifier.ready("serving" if succeeded else "serving, the last reload was refused: see the log")

    def _say(self, outcome: ReloadOutcome) -> None:
        for problem in outcome.problems:
            _LOG.error("reload refused, the old configuration goes on: %s", problem)
        for change in outcome.applied:
            _LOG.info("reload: %s", change)
        if outcome.succeeded and not outcome.applied:
            _LOG.info("reload: nothing has changed")

    def _apply(self, config: Config, changes: tuple[Any, ...]) -> None:
        self._gateway.apply(config, changes)
        self._startup.logs.set_level(config.log.level)


def _is_credential(path: Path) -> bool:
    """Whether the service manager handed this file over and guards it."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return directory is not None and path.parent == Path(directory)
