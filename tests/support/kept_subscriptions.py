"""A store of subscriptions that keeps them in memory, and answers when a test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gatewayd.message import Identity


@dataclass
class KeptSubscriptions:
    """`kept` is what a restart would find. With `at_once` a write is answered inside the call."""

    at_once: bool = True
    kept: dict[Identity, dict[str, int]] = field(default_factory=dict)
    writes: int = 0
    _waiting: deque[tuple[Identity, dict[str, int], Callable[[bool], None]]] = field(default_factory=deque)

    def keep_subscriptions(
        self, identity: Identity, filters: Mapping[str, int], done: Callable[[bool], None]
    ) -> None:
        self.writes += 1
        self._waiting.append((identity, dict(filters), done))
        if self.at_once:
            self.answer()

    def answer(self, *, durable: bool = True) -> None:
        """The oldest write that waits is on disk, or could not be written."""
        identity, filters, done = self._waiting.popleft()
        if durable and filters:
            self.kept[identity] = filters
        elif durable:
            self.kept.pop(identity, None)
        done(durable)
