"""A set of seqs as ranges. Pure.

What is settled while the disk fails is remembered here. A backlog that drains whole becomes one range; the worst case,
every second message of another device, is two numbers a message.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence


class SeqRanges:
    """Ascending, disjoint, never touching."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        """How many ranges."""
        return len(self._starts)

    def __contains__(self, seq: int) -> bool:
        place = bisect_right(self._starts, seq) - 1
        return place >= 0 and seq <= self._ends[place]

    def add(self, seq: int) -> None:
        starts, ends = self._starts, self._ends
        place = bisect_right(starts, seq)  # the range before it is at place - 1
        if place and seq <= ends[place - 1]:
            return
        joins_before = place > 0 and ends[place - 1] == seq - 1
        joins_after = place < len(starts) and starts[place] == seq + 1
        if joins_before and joins_after:
            ends[place - 1] = ends[place]
            del starts[place], ends[place]
        elif joins_before:
            ends[place - 1] = seq
        elif joins_after:
            starts[place] = seq
        else:
            starts.insert(place, seq)
            ends.insert(place, seq)

    def update(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self.add(seq)

    def first(self, limit: int) -> list[tuple[int, int]]:
        """The lowest ranges, ends included, cut so that they span at most `limit` seqs."""
        found: list[tuple[int, int]] = []
        for start, end in zip(self._starts, self._ends, strict=True):
            found.append((start, min(end, start + limit - 1)))
            limit -= found[-1][1] - start + 1
            if not limit:
                break
        return found

    def drop(self, first: Sequence[tuple[int, int]]) -> None:
        """What `first` gave is done; nothing was added meanwhile."""
        if not first:
            return
        _, end = first[-1]
        place = len(first) - 1
        if end < self._ends[place]:
            self._starts[place] = end + 1
        else:
            place += 1
        del self._starts[:place], self._ends[:place]
