"""The last known twin of each device, for a device that asks for it while the hub is away.

A twin is known from the hub's answer to a whole read on, and follows what the hub says after that. It is written to the
store some time after it changed and only then (flash wears), all that changed in one go. Twins of devices that are
present stay in memory, within `max_bytes`; others are read from the store when they are needed.

Does not ask the hub, and does not decide who gets a kept twin: `flow.twins` does. No twin is kept that has missed a
change; `on_gap` hears of it, so that the twin can be read anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from gatewayd.clock import Clock
from gatewayd.flow.twin_document import TwinDocument
from gatewayd.message import Identity
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel

# A device that reports every second costs one write a minute; a crash loses a minute of a copy.
KEEP_AFTER_SECONDS: Final = 60.0
# 5,000 twins of 6 KiB.
MAX_BYTES: Final = 32 << 20
# What may wait for one twin to be read from the store, which takes milliseconds.
MAX_WAITING: Final = 64

Document = TwinDocument | None


class TwinStore(Protocol):
    """What is needed of the store: calls are carried out in their order."""

    def keep_twin(self, identity: Identity, document: bytes | None) -> None:
        """Keep a twin instead of any earlier one; None forgets it."""

    def twin(self, identity: Identity, done: Callable[[bytes | None], None]) -> None:
        """Read a twin that was kept; `done` is called on the loop."""


class _Slot:
    """One identity's twin in memory. Until it is `known`, what is to be done with it waits."""

    __slots__ = ("changed", "document", "idle", "known", "missed", "waiting")

    def __init__(self) -> None:
        self.known = False
        self.missed = False  # a change came that could not wait
        self.document: Document = None
        self.changed = False  # differs from what is stored
        self.idle = False  # its device is absent
        self.waiting: list[Callable[[_Slot], None]] = []


class TwinCache:
    """Kept twins of all devices."""

    def __init__(
        self, store: TwinStore, clock: Clock, wheel: DeadlineWheel, *, max_bytes: int = MAX_BYTES
    ) -> None:
        self.on_gap: Callable[[Identity], None] | None = None
        self._store = store
        self._clock = clock
        self._wheel = wheel
        self._max_bytes = max_bytes
        self._slots: dict[Identity, _Slot] = {}  # the least recently used first
        self._bytes = 0
        self._deadline = Deadline(lambda _now: self.flush())

    def read(self, identity: Identity, done: Callable[[Document], None]) -> None:
        """The last known twin, now or when the store has read it."""
        slot = self._slot(identity)
        if slot.known:
            done(slot.document)
        elif len(slot.waiting) < MAX_WAITING:
            slot.waiting.append(lambda known: done(known.document))
        else:
            done(None)

    def whole(self, identity: Identity, document: TwinDocument) -> None:
        """The hub told the whole twin."""
        self._change(identity, lambda _earlier: document)

    def desired(self, identity: Identity, patch: bytes, version: int) -> None:
        """The hub told a change of desired properties."""
        self._change(identity, lambda earlier: earlier and earlier.with_desired(patch, version))

    def reported(self, identity: Identity, patch: bytes, version: int | None) -> None:
        """The hub took a change of reported properties."""
        self._change(identity, lambda earlier: earlier and earlier.with_reported(patch, version))

    def device_left(self, identity: Identity) -> None:
        """Its twin needs no memory any more, once it is stored."""
        slot = self._slots.get(identity)
        if slot is not None:
            slot.idle = True
            if slot.known and not slot.changed:
                self._put_away(identity, slot)

    def flush(self) -> None:
        """Store all that changed. Called by itself, and before the store is closed."""
        self._wheel.set(self._deadline, None)
        for identity, slot in list(self._slots.items()):
            self._keep(identity, slot)
            if slot.idle and slot.known:
                self._put_away(identity, slot)

    # Within

    def _change(self, identity: Identity, change: Callable[[Document], Document]) -> None:
        slot = self._slot(identity)
        if slot.known:
            self._apply(identity, slot, change)
        elif len(slot.waiting) < MAX_WAITING:
            slot.waiting.append(lambda known: self._apply(identity, known, change))
        else:
            slot.missed = True

    def _apply(self, identity: Identity, slot: _Slot, change: Callable[[Document], Document]) -> None:
        earlier = slot.document
        slot.document = change(earlier)
        if slot.document == earlier:
            return
        self._bytes += _size(slot.document) - _size(earlier)
        slot.changed = True
        if self._deadline.due is None:
            self._wheel.set(self._deadline, self._clock.monotonic() + KEEP_AFTER_SECONDS)
        self._make_room()
        if slot.document is None and self.on_gap is not None:
            self.on_gap(identity)

    def _slot(self, identity: Identity) -> _Slot:
        slot = self._slots.pop(identity, None)
        if slot is not None:
            self._slots[identity] = slot
            slot.idle = False
            return slot
        slot = self._slots[identity] = _Slot()
        self._store.twin(identity, lambda body: self._loaded(identity, slot, body))
        return slot

    def _loaded(self, identity: Identity, slot: _Slot, body: bytes | None) -> None:
        slot.document = TwinDocument.parse(body) if body is not None else None
        self._bytes += _size(slot.document)
        # Not known until all that waited is done: what is known may be put away.
        while slot.waiting:
            slot.waiting.pop(0)(slot)
        if slot.missed:
            self._apply(identity, slot, lambda _earlier: None)
        slot.known = True
        if slot.idle and not slot.changed:
            self._put_away(identity, slot)
        self._make_room()

    def _make_room(self) -> None:
        """Put the least recently used away, stored if need be, until the rest is within the bound."""
        for identity, slot in list(self._slots.items()):
            if self._bytes <= self._max_bytes:
                return
            if slot.known:
                self._keep(identity, slot)
                self._put_away(identity, slot)

    def _keep(self, identity: Identity, slot: _Slot) -> None:
        if slot.changed:
            slot.changed = False
            self._store.keep_twin(identity, slot.document.body if slot.document is not None else None)

    def _put_away(self, identity: Identity, slot: _Slot) -> None:
        self._bytes -= _size(slot.document)
        del self._slots[identity]


def forget_twins(store: TwinStore, identities: Iterable[Identity]) -> None:
    """With the cache off nothing is kept, not even what an earlier run kept."""
    for identity in identities:
        store.keep_twin(identity, None)


def _size(document: Document) -> int:
    return len(document.body) if document is not None else 0
