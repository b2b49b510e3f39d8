"""What a desk of the way back can be tested over: one hub and one device, noted and with switches, and a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.flow.ways import Reach
from gatewayd.message import Identity


@dataclass
class RecordedWays:
    """`Ways` without sockets: what was said stands in lists, and the switches say what can be said."""

    hub: Reach = Reach.UP
    takes: bool = True  # the hub session takes what is said while `hub` is UP
    congested: bool = False  # the device takes nothing now, subscribed or not
    filters: set[str] = field(
        default_factory=set
    )  # what the device is subscribed to; empty also when it is absent
    said_to_hub: list[tuple[str, bytes]] = field(default_factory=list)
    said_to_device: list[tuple[str, bytes]] = field(default_factory=list)
    qos_to_device: list[int] = field(default_factory=list)
    when_spoken_to: Callable[[], None] | None = (
        None  # what happens inside the hub session when it is written to
    )

    def to_hub(self, identity: Identity, topic: str, payload: bytes) -> bool:
        if self.when_spoken_to is not None:
            self.when_spoken_to()
        if self.hub is not Reach.UP or not self.takes:
            return False
        self.said_to_hub.append((topic, payload))
        return True

    def to_device(self, identity: Identity, topic_filter: str, topic: str, payload: bytes, qos: int) -> bool:
        if topic_filter not in self.filters or self.congested:
            return False
        self.said_to_device.append((topic, payload))
        self.qos_to_device.append(qos)
        return True

    def listens(self, identity: Identity, topic_filter: str) -> bool:
        return topic_filter in self.filters

    def reach(self, identity: Identity) -> Reach:
        return self.hub


class MemoryTwinStore:
    """A `TwinStore` that answers when told to, each call in its order."""

    def __init__(self, kept: dict[Identity, bytes] | None = None) -> None:
        self.kept = kept or {}
        self.writes: list[Identity] = []
        self.reads = 0
        self._calls: list[Callable[[], None]] = []

    def keep_twin(self, identity: Identity, document: bytes | None) -> None:
        self.writes.append(identity)
        if document is None:
            self.kept.pop(identity, None)
        else:
            self.kept[identity] = document

    def twin(self, identity: Identity, done: Callable[[bytes | None], None]) -> None:
        self.reads += 1
        kept = self.kept.get(identity)  # as it is now: a later write does not change an earlier read
        self._calls.append(lambda: done(kept))

    def answer(self) -> None:
        """Let what was asked be answered."""
        while self._calls:
            self._calls.pop(0)()
