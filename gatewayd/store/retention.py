"""How much may be kept, and what happens at the bound. Pure.

A message counts with what it takes on disk: topic, payload, identity and a fixed part. The bound is a latch: once an
append was refused every later one is, until there is room for it and a little more. Otherwise a small message could be
stored past the large one that came before it, and the state would flicker.
"""

from __future__ import annotations

from collections.abc import Callable

from gatewayd.store.backlog import Backlog, Entry
from gatewayd.store.messages import WhenFull

# Numbers, times, checksum, headers of row and page, and the row's place in the index of ends; a test compares it with
# a file.
FIXED_OVERHEAD = 48

# The latch opens when this part of the bound is free.
FREE_AGAIN = 16


def size_of(topic: str, payload: bytes, identity: str) -> int:
    """Bytes a message counts for."""
    # ASCII has as many bytes as characters, and is what topics are; to ask costs less than to encode.
    topic_size = len(topic) if topic.isascii() else len(topic.encode())
    name_size = len(identity) if identity.isascii() else len(identity.encode())
    return topic_size + len(payload) + name_size + FIXED_OVERHEAD


class Retention:
    """Decides on each append: room, room after dropping these, or no."""

    def __init__(self, max_bytes: int, when_full: WhenFull) -> None:
        self.max_bytes = max_bytes
        self.when_full = when_full
        self._refused: int | None = None  # size of the append that closed the latch

    @property
    def at_bound(self) -> bool:
        """Appends are refused."""
        return self._refused is not None

    def retune(self, max_bytes: int, when_full: WhenFull) -> None:
        """Other bounds from now on; whoever was refused may ask again."""
        self.max_bytes = max_bytes
        self.when_full = when_full
        self._refused = None

    def look_again(self, size: int) -> None:
        """Open the latch if `size` bytes stored leave room."""
        if self._refused is None:
            return
        room = max(self._refused, self.max_bytes // FREE_AGAIN)
        if size + room <= self.max_bytes or size == 0:
            self._refused = None

    def fits(self, total: int) -> bool:
        """Nothing has to go for `total` bytes, and nobody was refused before."""
        return self._refused is None and total <= self.max_bytes

    def make_room(
        self, total: int, adding: int, lowest_priority: int, backlog: Backlog, size_at: Callable[[int], int]
    ) -> list[Entry] | None:
        """What must go so that `total` bytes fit, `adding` of them new; None: the new ones may not be stored.

        `size_at` tells the size of a stored message by its seq. The victims are taken out of `backlog`.
        """
        if self._refused is not None:
            return None
        victims: list[Entry] = []
        if self.when_full is not WhenFull.STOP and adding <= self.max_bytes:
            up_to = lowest_priority if self.when_full is WhenFull.DROP_LOWEST_PRIORITY else None
            candidates = backlog.oldest(up_to=up_to)
            while total > self.max_bytes and (victim := next(candidates, None)) is not None:
                identity, priority, seq = victim
                victims.append(Entry(seq, identity, priority, size_at(seq)))
                total -= victims[-1].size
        if total > self.max_bytes:
            self._refused = adding
            return None
        backlog.remove(victims)
        return victims
