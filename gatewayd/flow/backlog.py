"""What the outbox holds of one device, as far as memory knows it. Pure.

    stored ----lease----> ready ----handed to the hub session----> under way ----hub's PUBACK----> settled
       ^-------------------------------- released: the hub session is gone -------------'

Only counts are kept of what is stored; messages are read from disk a few at a time. A message that was sent from memory
and stored afterwards joins the others under way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from gatewayd.store.messages import StoredMessage


@dataclass(frozen=True, slots=True)
class Lease:
    """A stored message that is with the hub session. `size` is what memory holds for it."""

    seq: int
    size: int
    priority: int


# Shared by all who have nothing under way; never written to.
_NOTHING_UNDER_WAY: Final[dict[int, Lease]] = {}


class Backlog:
    """One device's. Most devices have none, so an empty one is small."""

    __slots__ = ("_ready", "_top", "_under_way", "asking", "overtakes", "queued", "stored")

    def __init__(self) -> None:
        self.stored = 0  # messages on disk that nobody has leased
        self._top = 0  # nothing stored has a higher priority
        self.asking = False  # a lease was asked for and has not come
        self.overtakes = False  # what was asked for may come after what was given back since
        self.queued = False  # it has a place in the order of draining
        self._ready: deque[StoredMessage] | None = None
        self._under_way = _NOTHING_UNDER_WAY

    @property
    def is_empty(self) -> bool:
        """Nothing is stored, leased or under way."""
        return not (self.stored or self.asking or self._ready or self._under_way)

    @property
    def waits(self) -> bool:
        """Something has not been handed to the hub session: news of the same priority come after it."""
        return bool(self.stored or self.asking or self._ready)

    @property
    def has_leases(self) -> bool:
        """Something is leased or under way."""
        return bool(self._ready or self._under_way)

    @property
    def top_priority(self) -> int:
        """No stored or ready message has a higher one."""
        ready = max([one.priority for one in self._ready]) if self._ready else None
        if not (self.stored or self.asking):
            return 0 if ready is None else ready
        return self._top if ready is None else max(self._top, ready)

    @property
    def ready(self) -> int:
        """Messages that can be handed over now."""
        return len(self._ready) if self._ready is not None else 0

    def holds_back(self, priority: int) -> bool:
        """Whether a new message of this priority comes after something that waits."""
        return self.waits and priority <= self.top_priority

    def add(self, priority: int) -> None:
        """A message was stored that nobody has leased."""
        self._top = max(priority, self._top) if self.stored or self.asking else priority
        self.stored += 1

    def came_back(self, priority: int) -> None:
        """A message was stored for a hub session that is gone: its lease is released, and it waits."""
        self.add(priority)
        self._given_back()

    def restore(self, messages: int, top_priority: int) -> None:
        """What an earlier run left, or what a damaged file still held: at most so many are not leased."""
        self._top = max(top_priority, self._top) if self.stored or self.asking else top_priority
        self.stored = messages

    def dropped(self, messages: int) -> None:
        """So many stored messages went by a written rule."""
        self.stored = max(0, self.stored - messages)

    def leased(self, messages: tuple[StoredMessage, ...]) -> tuple[Lease, ...]:
        """What was asked for has come. The outbox knows best: when it gives nothing, nothing is stored.

        It did not know what was given back meanwhile: then nothing comes of it, and the answer is what goes back too.
        """
        self.asking = False
        overtakes, self.overtakes = self.overtakes, False
        if overtakes:
            return tuple(_lease(one) for one in messages)
        self.stored = max(0, self.stored - len(messages)) if messages else 0
        if messages:
            if self._ready is None:
                self._ready = deque()
            self._ready.extend(messages)
            self._top = messages[-1].priority  # they come in the order of draining
        return ()

    def not_leased(self) -> None:
        """What was asked for cannot be read now; it is stored still."""
        self.asking = self.overtakes = False

    def next(self) -> StoredMessage | None:
        """The message that is to be handed over next."""
        return self._ready[0] if self._ready else None

    def sent(self, handle: int) -> StoredMessage:
        """`next()` went to the hub session under `handle`; 0 for QoS 0, of which nothing will be heard."""
        assert self._ready, "what was sent was ready"
        message = self._ready.popleft()
        if not self._ready:
            self._ready = None
        if handle:
            self.under_way(handle, _lease(message))
        return message

    def under_way(self, handle: int, lease: Lease) -> None:
        """The hub session has this stored message under `handle`."""
        if not self._under_way:
            self._under_way = {}
        self._under_way[handle] = lease

    def acknowledged(self, handle: int) -> Lease | None:
        """The hub took what it was sent under `handle`; None when that is no stored message."""
        lease = self._under_way.pop(handle, None)
        if lease is not None and not self._under_way:
            self._under_way = _NOTHING_UNDER_WAY
        return lease

    def give_back(self) -> tuple[Lease, ...]:
        """The hub session is gone with its memory: all that was leased is stored again."""
        under_way, self._under_way = tuple(self._under_way.values()), _NOTHING_UNDER_WAY
        ready = self.give_back_ready()
        for lease in under_way:
            self.came_back(lease.priority)
        return under_way + ready

    def give_back_ready(self) -> tuple[Lease, ...]:
        """What was leased and not handed over is stored again."""
        ready, self._ready = tuple(_lease(one) for one in self._ready or ()), None
        for lease in ready:
            self.came_back(lease.priority)
        return ready

    def _given_back(self) -> None:
        if self.asking:
            self.overtakes = True


def _lease(message: StoredMessage) -> Lease:
    return Lease(message.seq, message.message.size, message.priority)
