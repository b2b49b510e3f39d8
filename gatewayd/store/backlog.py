"""Who comes next: the order of what is stored, in memory. Pure.

The file lies in the order of arrival. This is the other order, for each identity priority descending and seq ascending,
as plain arrays: 8 bytes a message that is stored and not leased. Leases are here and nowhere else, so a restart ends
them all. Sizes of what is not leased are on disk only.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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


@dataclass(slots=True)
class _Account:
    """What is stored for one identity, leased ones included."""

    messages: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What must be known to take a message away or to put it back."""

    seq: int
    identity: Identity
    priority: int
    size: int


class Backlog:
    """All that is stored, by whom and in which order."""

    def __init__(self) -> None:
        self._lanes: dict[Identity, dict[int, _Lane]] = {}
        self._accounts: dict[Identity, _Account] = {}
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

    def add(self, entry: Entry, *, leased: bool = False) -> None:
        """A message was stored."""
        self._count(entry.identity, 1, entry.size)
        if leased:
            self._leased[entry.seq] = entry
        else:
            self._lane(entry.identity, entry.priority).add(entry.seq)

    def next_of(self, identity: Identity) -> tuple[int, int] | None:
        """The priority and seq of the message that comes next."""
        lanes = self._lanes.get(identity)
        if not lanes:
            return None
        priority = max(lanes)
        return priority, lanes[priority].first()

    def lease(self, entry: Entry) -> None:
        """The message that comes next is leased."""
        assert self._pop(entry.identity, entry.priority) == entry.seq, "only the first of a lane is leased"
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
            self._lane(entry.identity, entry.priority).put_back(seq)

    def oldest(self, *, up_to: int | None) -> Iterator[tuple[Identity, int, int]]:
        """Identity, priority and seq of what may be dropped: by seq, or with `up_to` by priority first, up to it.

        Nothing is taken away; what the caller takes must be given to `remove`.
        """
        lanes = [
            ((0 if up_to is None else priority, seq), identity, priority)
            for identity, by_priority in self._lanes.items()
            for priority, lane in by_priority.items()
            if up_to is None or priority <= up_to
            for seq in (lane.first(),)
        ]
        heap: list[tuple[tuple[int, int], int]] = [(key, place) for place, (key, _, _) in enumerate(lanes)]
        heapq.heapify(heap)
        following: dict[int, Iterator[int]] = {}
        while heap:
            (rank, seq), place = heap[0]
            _, identity, priority = lanes[place]
            yield identity, priority, seq
            if place not in following:
                following[place] = iter(self._lanes[identity][priority])
                next(following[place])
            after = next(following[place], None)
            if after is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, ((rank, after), place))

    def remove(self, entries: Iterable[Entry]) -> None:
        """Unleased messages are gone."""
        by_lane: dict[tuple[Identity, int], set[int]] = {}
        for entry in entries:
            by_lane.setdefault((entry.identity, entry.priority), set()).add(entry.seq)
            self._count(entry.identity, -1, -entry.size)
        for (identity, priority), seqs in by_lane.items():
            lane = self._lanes[identity][priority]
            lane.remove(seqs)
            self._tidy(identity, priority, lane)

    def restore(self, entries: Iterable[Entry]) -> None:
        """What was removed is there after all: its transaction failed."""
        for entry in entries:
            self._count(entry.identity, 1, entry.size)
            self._lane(entry.identity, entry.priority).put_back(entry.seq)

    def leases(self) -> frozenset[int]:
        """Every leased seq."""
        return frozenset(self._leased)

    def counts(self) -> tuple[BacklogCount, ...]:
        """Everybody for whom something is stored."""
        top: dict[Identity, int] = {identity: max(lanes) for identity, lanes in self._lanes.items()}
        for entry in self._leased.values():
            top[entry.identity] = max(top.get(entry.identity, entry.priority), entry.priority)
        return tuple(
            BacklogCount(identity, account.messages, account.size, top[identity])
            for identity, account in self._accounts.items()
        )

    def _count(self, identity: Identity, messages: int, size: int) -> None:
        account = self._accounts.get(identity)
        if account is None:
            account = self._accounts[identity] = _Account()
        account.messages += messages
        account.size += size
        self._messages += messages
        self._size += size
        if not account.messages:
            del self._accounts[identity]

    def _lane(self, identity: Identity, priority: int) -> _Lane:
        lanes = self._lanes.get(identity)
        if lanes is None:
            lanes = self._lanes[identity] = {}
        lane = lanes.get(priority)
        if lane is None:
            lane = lanes[priority] = _Lane()
        return lane

    def _pop(self, identity: Identity, priority: int) -> int:
        lane = self._lanes[identity][priority]
        seq = lane.pop()
        self._tidy(identity, priority, lane)
        return seq

    def _tidy(self, identity: Identity, priority: int, lane: _Lane) -> None:
        if not len(lane):
            del self._lanes[identity][priority]
            if not self._lanes[identity]:
                del self._lanes[identity]
