"""Who comes next: the order of what is stored, in memory. Pure.

The file lies in the order of arrival. This is the other order, for each identity priority descending and seq ascending,
as plain arrays: 8 bytes a message that is stored and not leased. Leases are here and nowhere else, so a restart ends
them all. Sizes of what is not leased are on disk only.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from gatewayd.message import Identity
from gatewayd.store.messages import BacklogCount

# A lane gives memory back when this many places before its head are empty, and they are half of it.
SPENT_PLACES = 512


class _Lane:
    """The unleased messages of one identity and one priority."""

    __slots__ = ("_head", "_returned", "_seqs")

    def __init__(self) -> None:
        self._seqs = array("q")
        self._head = 0
        self._returned: list[int] = []  # a heap: released, so out of the ascending order

    def __len__(self) -> int:
        return len(self._seqs) - self._head + len(self._returned)

    def __iter__(self) -> Iterator[int]:
        places = range(self._head, len(self._seqs))
        return heapq.merge(sorted(self._returned), (self._seqs[place] for place in places))

    def add(self, seq: int) -> None:
        if self._head < len(self._seqs) and seq < self._seqs[-1]:
            heapq.heappush(self._returned, seq)
        else:
            self._seqs.append(seq)

    def put_back(self, seq: int) -> None:
        heapq.heappush(self._returned, seq)

    def first(self) -> int:
        if self._head == len(self._seqs):
            return self._returned[0]
        if self._returned and self._returned[0] < self._seqs[self._head]:
            return self._returned[0]
        return self._seqs[self._head]

    def pop(self) -> int:
        if self._returned and self._returned[0] == self.first():
            return heapq.heappop(self._returned)
        seq = self._seqs[self._head]
        self._head += 1
        if self._head >= SPENT_PLACES and self._head * 2 >= len(self._seqs):
            del self._seqs[: self._head]
            self._head = 0
        return seq

    def remove(self, gone: set[int]) -> None:
        while len(self) and self.first() in gone:
            gone.discard(self.pop())
        if gone:
            self._seqs = array("q", (seq for seq in self._seqs[self._head :] if seq not in gone))
            self._head = 0
            self._returned = [seq for seq in self._returned if seq not in gone]
            heapq.heapify(self._returned)


class _Shelf:
    """What is stored for one identity: counts with leased ones, lanes without."""

    __slots__ = ("lanes", "messages", "size")

    def __init__(self) -> None:
        self.lanes: dict[int, _Lane] = {}
        self.messages = 0
        self.size = 0


class Entry(NamedTuple):
    """What must be known to take a message away or to put it back. A tuple: one is made for each message."""

    seq: int
    identity: Identity
    priority: int
    size: int


class Backlog:
    """All that is stored, by whom and in which order."""

    def __init__(self) -> None:
        self._shelves: dict[Identity, _Shelf] = {}
        self._leased: dict[int, Entry] = {}
        self._messages = 0
        self._size = 0

    @property
    def messages(self) -> int:
        """Messages stored, leased ones included."""
        return self._messages

    @property
    def size(self) -> int:
        """Bytes that count against the bound."""
        return self._size

    @property
    def leased(self) -> int:
        """How many are leased."""
        return len(self._leased)

    def is_leased(self, seq: int) -> bool:
        return seq in self._leased

    def leases(self) -> frozenset[int]:
        """Every leased seq."""
        return frozenset(self._leased)

    def counts(self) -> tuple[BacklogCount, ...]:
        """Everybody for whom something is stored."""
        priorities = {identity: set(shelf.lanes) for identity, shelf in self._shelves.items()}
        for entry in self._leased.values():
            priorities[entry.identity].add(entry.priority)
        return tuple(
            BacklogCount(identity, shelf.messages, shelf.size, max(priorities[identity]))
            for identity, shelf in self._shelves.items()
        )

    def add(self, entry: Entry, *, leased: bool = False) -> None:
        """A message was stored."""
        seq, identity, priority, size = entry
        shelf = self._count(identity, 1, size)
        if leased:
            self._leased[seq] = entry
            return
        lane = shelf.lanes.get(priority)
        if lane is None:
            lane = shelf.lanes[priority] = _Lane()
        lane.add(seq)

    def adder(self, identity: Identity, priority: int) -> Callable[[int, int], None]:
        """`add` by seq and size for one lane, for a start. It looks nothing up: nothing may be taken out meanwhile."""
        shelf = self._shelves.setdefault(identity, _Shelf())
        lane = shelf.lanes.setdefault(priority, _Lane())

        def add(seq: int, size: int) -> None:
            shelf.messages += 1
            shelf.size += size
            self._messages += 1
            self._size += size
            lane.add(seq)

        return add

    def next_of(self, identity: Identity) -> tuple[int, int] | None:
        """The priority and seq of the message that comes next."""
        shelf = self._shelves.get(identity)
        if shelf is None or not shelf.lanes:
            return None
        priority = max(shelf.lanes)
        return priority, shelf.lanes[priority].first()

    def lease(self, entry: Entry) -> None:
        """The message that comes next is leased."""
        lanes = self._shelves[entry.identity].lanes
        lane = lanes[entry.priority]
        assert lane.pop() == entry.seq, "only the first of a lane is leased"
        if not len(lane):
            del lanes[entry.priority]
        self._leased[entry.seq] = entry

    def settle(self, seq: int) -> bool:
        """A leased message is done. False: it was not leased."""
        entry = self._leased.pop(seq, None)
        if entry is None:
            return False
        self._count(entry.identity, -1, -entry.size)
        return True

    def release(self, seq: int) -> None:
        """A leased message waits again, at its old place."""
        entry = self._leased.pop(seq, None)
        if entry is not None:
            self._put_back(self._shelves[entry.identity], entry)

    def oldest(self, *, up_to: int | None) -> Iterator[tuple[Identity, int, int]]:
        """Identity, priority and seq of what may be dropped: by seq, or with `up_to` by priority first, up to it.

        Nothing is taken away; what the caller takes must be given to `remove`.
        """
        lanes = [
            (identity, priority, lane)
            for identity, shelf in self._shelves.items()
            for priority, lane in shelf.lanes.items()
            if up_to is None or priority <= up_to
        ]
        heap = [
            (0 if up_to is None else priority, lane.first(), place)
            for place, (_, priority, lane) in enumerate(lanes)
        ]
        heapq.heapify(heap)
        following: dict[int, Iterator[int]] = {}
        while heap:
            rank, seq, place = heap[0]
            identity, priority, lane = lanes[place]
            yield identity, priority, seq
            if place not in following:
                following[place] = iter(lane)
                next(following[place])
            after = next(following[place], None)
            if after is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (rank, after, place))

    def remove(self, entries: Sequence[Entry]) -> None:
        """Unleased messages are gone."""
        by_lane: dict[tuple[Identity, int], set[int]] = {}
        for entry in entries:
            by_lane.setdefault((entry.identity, entry.priority), set()).add(entry.seq)
        for (identity, priority), seqs in by_lane.items():
            lanes = self._shelves[identity].lanes
            lanes[priority].remove(seqs)
            if not len(lanes[priority]):
                del lanes[priority]
        for entry in entries:
            self._count(entry.identity, -1, -entry.size)

    def restore(self, entries: Iterable[Entry]) -> None:
        """What was removed is there after all: its transaction failed."""
        for entry in entries:
            self._put_back(self._count(entry.identity, 1, entry.size), entry)

    def _count(self, identity: Identity, messages: int, size: int) -> _Shelf:
        shelf = self._shelves.get(identity)
        if shelf is None:
            shelf = self._shelves[identity] = _Shelf()
        shelf.messages += messages
        shelf.size += size
        self._messages += messages
        self._size += size
        if not shelf.messages:
            del self._shelves[identity]
        return shelf

    def _put_back(self, shelf: _Shelf, entry: Entry) -> None:
        lane = shelf.lanes.get(entry.priority)
        if lane is None:
            lane = shelf.lanes[entry.priority] = _Lane()
        lane.put_back(entry.seq)
