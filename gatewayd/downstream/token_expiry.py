"""Who is connected with a token that runs out when: a queue by wall time. Pure.

Compared with the wall clock at each look, so a step of the clock needs no planning again. Whoever has left stays filed
until its time or until more than half of the queue has left; so the queue holds at most twice as many as are present,
and `SLACK` more.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final, Generic, TypeVar

SLACK: Final = 64

Who = TypeVar("Who")


class ExpiryQueue(Generic[Who]):
    """`has_left(who)` says that somebody filed is of no interest any more."""

    __slots__ = ("_filed", "_has_left", "_sequence")

    def __init__(self, has_left: Callable[[Who], bool]) -> None:
        self._has_left = has_left
        self._filed: list[tuple[float, int, Who]] = []
        self._sequence = 0

    def __len__(self) -> int:
        """How many are filed, those who left included."""
        return len(self._filed)

    def file(self, who: Who, due: float, present: int) -> None:
        """File `who` for the wall time `due`; `present` is how many are here in all."""
        if len(self._filed) >= 2 * present + SLACK:
            self._filed = [entry for entry in self._filed if not self._has_left(entry[2])]
            heapq.heapify(self._filed)
        self._sequence += 1
        heapq.heappush(self._filed, (due, self._sequence, who))

    def take_due(self, wall: float, at_most: int) -> list[Who]:
        """Up to `at_most` of those whose time has come, earliest first."""
        due: list[Who] = []
        while self._filed and self._filed[0][0] <= wall and len(due) < at_most:
            who = heapq.heappop(self._filed)[2]
            if not self._has_left(who):
                due.append(who)
        return due
