"""What the hub saw, told from its event log: connections, renewals, gaps, errors. Pure.

The hub is the judge of a run, so this reads the hub's log and asks the daemon nothing. A *renewal* is an accepted
CONNECT of an identity that has left with DISCONNECT not long before; the *gap* is the time between the two. The hub
sees a little less than the device's messages waited: the way of the DISCONNECT and of the CONNACK are missing.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Later than this after a planned end, a CONNECT is a return: the application closed and came back.
HANDOVER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class HubEvent:
    """One line of the hub's log, as far as the demo reads it. `at` is monotonic seconds."""

    sequence: int
    operation: str
    code: int
    identity: str
    planned: bool | None
    at: float

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> HubEvent:
        return cls(
            int(fields["sequence"]),
            str(fields["operation"]),
            int(fields["code"]),
            str(fields["identity"]),
            fields["planned"],
            float(fields["monotonic"]),
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """Three figures of many, in milliseconds."""

    p50: float
    p99: float
    max: float


class HubStory:
    """Events in, figures out."""

    def __init__(self) -> None:
        self.next_sequence = 0
        self.missed = 0  # events that the log had forgotten before we read them
        self.connects: list[float] = []
        self.returns: list[float] = []  # CONNECTs of identities that had been accepted before
        self.renewals: list[float] = []
        self.renewals_of: Counter[str] = Counter()
        self.gaps: list[float] = []
        self.errors: dict[int, list[float]] = {}
        self.unplanned = 0
        self._left_at: dict[str, float] = {}
        self._known: set[str] = set()

    def add(self, events: Iterable[HubEvent]) -> None:
        """Go on with the log; events already seen are passed over."""
        for event in events:
            if event.sequence < self.next_sequence:
                continue
            self.missed += event.sequence - self.next_sequence
            self.next_sequence = event.sequence + 1
            self._add(event)

    def error_counts(self) -> dict[str, int]:
        return {str(code): len(times) for code, times in sorted(self.errors.items())}

    def _add(self, event: HubEvent) -> None:
        if event.code:
            self.errors.setdefault(event.code, []).append(event.at)
        if event.operation == "deviceConnect":
            self.connects.append(event.at)
            if event.identity in self._known:
                self.returns.append(event.at)
            if not event.code:
                self._accepted(event)
        elif event.operation == "deviceDisconnect":
            self._ended(event)

    def _accepted(self, event: HubEvent) -> None:
        self._known.add(event.identity)
        left_at = self._left_at.pop(event.identity, None)
        if left_at is not None and event.at - left_at <= HANDOVER_SECONDS:
            self.renewals.append(event.at)
            self.renewals_of[event.identity] += 1
            self.gaps.append(event.at - left_at)

    def _ended(self, event: HubEvent) -> None:
        if event.planned:
            self._left_at[event.identity] = event.at
        else:
            self.unplanned += 1
            self._left_at.pop(event.identity, None)


def spread_ms(seconds: Iterable[float]) -> Spread:
    """Median, 99th percentile and maximum by nearest rank; zeros of nothing."""
    ordered = sorted(seconds)
    if not ordered:
        return Spread(0.0, 0.0, 0.0)

    def at(share: float) -> float:
        return round(1000 * ordered[math.ceil(share * len(ordered)) - 1], 1)

    return Spread(at(0.50), at(0.99), at(1.0))


def sliding_peak(times: Iterable[float]) -> int:
    """The most events in any window of one second, its end excluded."""
    ordered = sorted(times)
    return max((bisect_left(ordered, at + 1.0) - index for index, at in enumerate(ordered)), default=0)


def per_second(times: Iterable[float], start: float, seconds: int) -> list[int]:
    """How many events fall into each whole second since `start`."""
    counts = [0] * seconds
    for at in times:
        second = math.floor(at - start)
        if 0 <= second < seconds:
            counts[second] += 1
    return counts


def within(times: Sequence[float], first: float, last: float) -> list[float]:
    """Those of `times` that lie in [first, last)."""
    return [at for at in times if first <= at < last]
