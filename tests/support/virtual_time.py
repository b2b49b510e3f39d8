"""A clock and a deadline wheel that move only when a test says so; sockets beside them stay real."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from gatewayd.clock import ManualClock
from gatewayd.transport.deadline_wheel import DeadlineWheel


class _Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualTime:
    """`clock` and `wheel` share one time. `pass_seconds` lets it pass, firing what comes due on the way."""

    def __init__(self, wall: float) -> None:
        self.clock = ManualClock(wall=wall, monotonic=1000.0)
        self.wheel = DeadlineWheel(self.clock.monotonic, self._call_at)
        self._timers: list[tuple[float, int, _Timer]] = []
        self._sequence = itertools.count()

    def pass_seconds(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self.clock.advance_to(when)
                timer.callback()
        self.clock.advance_to(end)

    def _call_at(self, when: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(callback)
        heapq.heappush(self._timers, (when, next(self._sequence), timer))
        return timer
