"""Feeds systemd's watchdog, and only while the daemon does its job.

Two things must hold at each turn. The event loop runs: the turn itself is a timer on it, so a blocked loop feeds
nothing. Every room that promised progress kept its promise: a renewal loop that hangs starves the watchdog although the
loop is idle and /metrics answers. Turns come three times per interval, so that one late turn is not a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gatewayd.daemon.progress import Progress, Stall

TURNS_PER_INTERVAL = 3


class Watchdog:
    """The timer that looks at progress and feeds. `stalled` is told of stalls once, when they begin."""

    __slots__ = ("_behind", "_every", "_feed", "_loop", "_progress", "_stalled", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        progress: Progress,
        interval: float,
        feed: Callable[[], object],
        stalled: Callable[[Stall], None],
    ) -> None:
        """`interval` is what systemd allows between two signs of life, in seconds; `feed` gives one."""
        self._loop = loop
        self._progress = progress
        self._every = interval / TURNS_PER_INTERVAL
        self._feed = feed
        self._stalled = stalled
        self._behind: frozenset[str] = frozenset()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Feed at once, then at each turn."""
        self._turn()

    def stop(self) -> None:
        """No more turns."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self._timer = self._loop.call_later(self._every, self._turn)
        stalls = self._progress.stalled(self._loop.time())
        if not stalls:
            self._feed()
        for stall in stalls:
            if stall.room not in self._behind:
                self._stalled(stall)
        self._behind = frozenset(stall.room for stall in stalls)
