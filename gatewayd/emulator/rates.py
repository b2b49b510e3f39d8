"""How often something happened in each second. Pure: time is an argument (monotonic seconds).

The *sliding* peak is the most in any window of one second; the *aligned* peak and the series are per whole second since
the start.
"""

from __future__ import annotations

from collections import deque

# A day of seconds; a longer run forgets its oldest.
SERIES_SECONDS = 86_400


class PerSecond:
    """A count over time."""

    __slots__ = ("_last_second", "_series", "_start", "_window", "aligned_peak", "sliding_peak", "total")

    def __init__(self, now: float) -> None:
        self._start = now
        self._window: deque[float] = deque()
        self._series: deque[int] = deque(maxlen=SERIES_SECONDS)
        self._last_second = -1
        self.total = 0
        self.sliding_peak = 0
        self.aligned_peak = 0

    def count(self, now: float) -> None:
        """It happened once more."""
        self.total += 1
        window = self._window
        window.append(now)
        while now - window[0] >= 1.0:
            window.popleft()
        if len(window) > self.sliding_peak:
            self.sliding_peak = len(window)
        self._advance(now)
        self._series[-1] += 1
        if self._series[-1] > self.aligned_peak:
            self.aligned_peak = self._series[-1]

    def series(self, now: float) -> list[int]:
        """The count of each second since the start (the last day of them), the running second last."""
        self._advance(now)
        return list(self._series)

    def _advance(self, now: float) -> None:
        second = int(now - self._start)
        if second > self._last_second:
            self._series.extend([0] * min(second - self._last_second, SERIES_SECONDS))
            self._last_second = second
