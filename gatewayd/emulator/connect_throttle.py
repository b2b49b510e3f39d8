"""The hub's limit on new device connections: a sliding one-second window. Pure.

S1 allows max(100/s, 12/s a unit) for the whole hub (IoT Hub quotas and throttling, Microsoft). The service shapes
first and refuses later, and says neither on the wire; which of its answers comes over the limit is a knob.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

# A shaped connect is never held longer than this; then it is dropped. Clients wait 30 to 60 s for a CONNACK.
MAX_HOLD_SECONDS = 20.0


class OverRate(StrEnum):
    """What happens to a CONNECT over the limit."""

    DROP = "drop"  # the socket is closed, no packet
    REFUSE = "refuse"  # CONNACK 3
    DELAY = "delay"  # held until the window has room


@dataclass(frozen=True, slots=True)
class Admission:
    """Go on after `hold` seconds, or, when not `admitted`, answer as the mode says."""

    admitted: bool
    hold: float = 0.0

    @property
    def over(self) -> bool:
        return not self.admitted or self.hold > 0


class ConnectThrottle:
    """At most `per_second` connects in any window of one second; 0 is no limit."""

    __slots__ = ("_admitted", "mode", "per_second")

    def __init__(self, per_second: int = 100, mode: OverRate = OverRate.DROP) -> None:
        self.per_second = per_second
        self.mode = mode
        self._admitted: deque[float] = deque()

    def admit(self, now: float) -> Admission:
        """Judge a CONNECT read at `now`. Refused ones do not use up the window."""
        if self.per_second <= 0:
            return Admission(admitted=True)
        while self._admitted and now - self._admitted[0] >= 1.0:
            self._admitted.popleft()
        if len(self._admitted) < self.per_second:
            self._admitted.append(now)
            return Admission(admitted=True)
        if self.mode is not OverRate.DELAY:
            return Admission(admitted=False)
        # The admission `per_second` places ago must be one second old when this one goes on.
        go_at = self._admitted[-self.per_second] + 1.0
        if go_at - now > MAX_HOLD_SECONDS:
            return Admission(admitted=False)
        self._admitted.append(go_at)
        return Admission(admitted=True, hold=go_at - now)
