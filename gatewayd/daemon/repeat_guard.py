"""How loud a failure is said: the first is a WARNING, repeats are DEBUG, recovery is INFO with the outage's length.

Pure. A thousand retries of one device are one line and its end, not a thousand lines. Each subject (a device, the disk,
the hub's name in DNS) has its own outage. The table is bounded: subjects that fail beyond `capacity` at a time are said
at DEBUG and counted, because their lines would only repeat what thousands before them said.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

CAPACITY = 20_000


@dataclass(slots=True)
class _Outage:
    since: float
    failures: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """An outage that is over: how long it lasted, in seconds, and how many failures it had."""

    outage_seconds: float
    failures: int


class RepeatGuard:
    """The outages that are going on. Times are monotonic seconds."""

    __slots__ = ("_capacity", "_outages", "untracked")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._outages: dict[str, _Outage] = {}
        self.untracked = 0

    def failed(self, subject: str, now: float) -> int:
        """`subject` failed at `now`; the logging level at which to say so."""
        if outage := self._outages.get(subject):
            outage.failures += 1
            return logging.DEBUG
        if len(self._outages) >= self._capacity:
            self.untracked += 1
            return logging.DEBUG
        self._outages[subject] = _Outage(now, 1)
        return logging.WARNING

    def recovered(self, subject: str, now: float) -> Recovery | None:
        """`subject` works at `now`; what to say at INFO, or None when it had not failed."""
        outage = self._outages.pop(subject, None)
        return None if outage is None else Recovery(now - outage.since, outage.failures)

    def forget(self, subject: str) -> None:
        """`subject` is gone for good; nothing is said."""
        self._outages.pop(subject, None)
