"""An event loop whose time passes only when nothing is left to do: timers without sleeping."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable


class _NoWait(selectors.SelectSelector):
    """Never waits: what would have been waited for is added to the loop's time instead."""

    def __init__(self, passed: Callable[[float], None]) -> None:
        super().__init__()
        self._passed = passed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self._passed(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`run_for` runs every timer that falls due within some virtual seconds."""

    def __init__(self) -> None:
        self._virtual_now = 0.0
        super().__init__(_NoWait(self._pass))

    def time(self) -> float:
        return self._virtual_now

    def run_for(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.run_until_complete(asyncio.sleep(seconds))

    def jump(self, seconds: float) -> None:
        """Time passes while the loop stands still, as when a callback blocks it."""
        self._virtual_now += seconds

    def _pass(self, seconds: float) -> None:
        self._virtual_now += seconds
