"""How fast the outbox may drain: within the hub's send throttle, in what devices leave free. Pure.

A hub limits the messages it takes in a second, of all its clients together. Devices' own messages are never held back
here (the hub shapes those itself); they are counted, and the outbox may use what is left. A small share is the outbox's
in any case, so that a fleet which sends at the limit cannot keep a backlog on disk for ever.

Promise: as long as devices alone stay below 95 % of the limit, no sliding second holds more than `per_second` messages.
"""

from __future__ import annotations

from typing import Final

# Of the limit: how much may go at once after a rest. Fill and burst together make one second's limit.
BURST_SHARE: Final = 0.05
# Of the limit: what the outbox has in any case.
OWN_SHARE: Final = 0.05
# `next` is never nearer than this: sums of small times are not exact, and a timer has no finer steps anyway.
STEP_SECONDS: Final = 0.001


class SendPace:
    """Two buckets. `now` is monotonic seconds and never goes back."""

    __slots__ = ("_at", "_burst", "_left", "_own", "_own_rate", "_rate", "per_second")

    def __init__(self, per_second: int, now: float) -> None:
        self._at = now
        self._left = self._own = 0.0
        self.retune(per_second)

    def retune(self, per_second: int) -> None:
        """Use another limit from now on."""
        self.per_second = per_second
        # At least one message must fit, else a limit below 20/s would let nothing pass.
        self._burst = max(1.0, BURST_SHARE * per_second)
        self._rate = max(per_second - self._burst, 0.5 * per_second)
        self._own_rate = OWN_SHARE * per_second
        self._left = max(min(self._left, self._burst), -self._rate)

    def sent(self, now: float) -> None:
        """A device's own message went out."""
        self._fill(now)
        # A debt of one second at most: the hub's own memory is no longer.
        self._left = max(self._left - 1.0, -self._rate)

    def take(self, now: float) -> bool:
        """Whether a message of the outbox may go now; if so it is counted."""
        self._fill(now)
        if self._left >= 1.0:
            self._left -= 1.0
            return True
        if self._own >= 1.0:
            self._own -= 1.0
            self._left = max(self._left - 1.0, -self._rate)
            return True
        return False

    def next(self, now: float) -> float:
        """When `take` may be asked again."""
        self._fill(now)
        return now + max(
            STEP_SECONDS, min((1.0 - self._left) / self._rate, (1.0 - self._own) / self._own_rate)
        )

    def _fill(self, now: float) -> None:
        elapsed = now - self._at
        if elapsed > 0.0:
            self._at = now
            self._left = min(self._burst, self._left + elapsed * self._rate)
            self._own = min(1.0, self._own + elapsed * self._own_rate)
