"""Retry delays: decorrelated jitter with a ceiling, reset only after a stable spell. Pure.

Each delay is drawn between `first` and three times the previous one, capped: delays grow, and two devices that failed
in the same second do not come back in the same second. A success does not reset the growth at once; only a connection
that stayed up for `stable` seconds does. Else a peer that accepts and then drops would be dialled at the first delay
for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """`first` and `ceiling` bound each delay, in seconds; `stable` is how long "up" must last to start over."""

    first: float = 1.0
    ceiling: float = 60.0
    stable: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.ceiling:
            raise ValueError(
                f"backoff first={self.first} ceiling={self.ceiling}: expected 0 < first <= ceiling"
            )


class Backoff:
    """The retry state of one peer. Time and chance are arguments: `uniform(a, b)` draws from [a, b]."""

    __slots__ = ("_last", "_up_since", "policy")

    def __init__(self, policy: BackoffPolicy) -> None:
        self.policy = policy  # may be replaced; used from the next failure on
        self._last = 0.0
        self._up_since: float | None = None

    def failed(self, now: float, uniform: Callable[[float, float], float]) -> float:
        """The peer failed at `now`; how many seconds to wait before the next attempt."""
        policy = self.policy
        if self._up_since is not None and now - self._up_since >= policy.stable:
            self._last = 0.0
        self._up_since = None
        self._last = min(policy.ceiling, uniform(policy.first, max(policy.first, 3.0 * self._last)))
        return self._last

    def succeeded(self, now: float) -> None:
        """The peer is up since `now`; growth is forgotten only if that lasts."""
        self._up_since = now
