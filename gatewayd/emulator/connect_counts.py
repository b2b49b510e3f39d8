"""Counts of connections over time, as the hub sees them. Pure: time is an argument (monotonic seconds).

Connects are counted when the hub reads a CONNECT, accepted or not. A handover gap is the time from a planned disconnect
of an identity to its next CONNECT; a later return is none.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from gatewayd.emulator.rates import PerSecond

KEPT_GAPS = 200_000
# A CONNECT later than this after a planned disconnect is a return (the application closed), not a handover.
HANDOVER_WINDOW_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class GapSummary:
    """Handover gaps in milliseconds."""

    count: int
    p50: float
    p99: float
    max: float


class ConnectCounts:
    """CONNECTs per second and handover gaps."""

    def __init__(self, now: float) -> None:
        self._left_at: dict[str, float] = {}
        self._gaps: deque[float] = deque(maxlen=KEPT_GAPS)
        self.rate = PerSecond(now)

    def connect(self, now: float) -> None:
        """A CONNECT was read."""
        self.rate.count(now)

    def planned_end(self, identity: str, now: float) -> None:
        self._left_at[identity] = now

    def unplanned_end(self, identity: str) -> None:
        self._left_at.pop(identity, None)

    def accepted(self, identity: str, connect_read_at: float) -> None:
        """An identity is back; its CONNECT was read at `connect_read_at`."""
        left_at = self._left_at.pop(identity, None)
        if left_at is not None and connect_read_at - left_at <= HANDOVER_WINDOW_SECONDS:
            self._gaps.append(connect_read_at - left_at)

    def gaps(self) -> GapSummary:
        ordered = sorted(self._gaps)
        if not ordered:
            return GapSummary(0, 0.0, 0.0, 0.0)

        def at(share: float) -> float:
            return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)

        return GapSummary(len(ordered), at(0.50), at(0.99), round(ordered[-1] * 1000, 3))
