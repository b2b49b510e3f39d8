"""The telemetry the hub has received: what tests and the demo compare with what devices were receipted for.

Two levels. The newest messages are kept whole, bounded by number and bytes. Beyond that each message is accounted for:
by its place in the order of its identity, with a digest of its payload and its bag (`arrivals`), and by its message id
(`$.mid`): how many there were, how many distinct, how many came twice. Both have a bound; what comes after it is
counted as unaccounted, so that a result built on it can be refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gatewayd.emulator.arrivals import Arrivals
from gatewayd.emulator.property_bag import Properties, read
from gatewayd.emulator.topics import message_id
from gatewayd.emulator.watch import Watch

KEPT_MESSAGES = 10_000
KEPT_BYTES = 32 * 1024 * 1024
MAX_MESSAGE_IDS = 2_000_000
MAX_ARRIVALS = 2_000_000


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One telemetry message at the hub; `bag` is its property bag as it was sent, plus what the hub adds."""

    sequence: int
    identity: str
    bag: str
    payload: bytes
    qos: int
    dup: bool
    connection: int
    wall: float
    monotonic: float

    @property
    def message_id(self) -> str:
        return message_id(self.bag)

    @property
    def properties(self) -> Properties:
        return read(self.bag)


class Ledger:
    """Counts every message, keeps the newest."""

    def __init__(
        self,
        *,
        kept_messages: int = KEPT_MESSAGES,
        kept_bytes: int = KEPT_BYTES,
        max_message_ids: int = MAX_MESSAGE_IDS,
        max_arrivals: int = MAX_ARRIVALS,
    ) -> None:
        self._kept: deque[ReceivedMessage] = deque()
        self._kept_messages = kept_messages
        self._room = kept_bytes
        self._ids: dict[str, set[str]] = {}
        self._ids_left = max_message_ids
        self._arrivals: dict[str, Arrivals] = {}
        self._arrivals_left = max_arrivals
        self._watch: Watch[ReceivedMessage] = Watch()
        self.received = 0
        self.received_bytes = 0
        self.distinct = 0
        self.duplicates = 0
        self.marked_dup = 0
        self.without_id = 0
        self.unaccounted = 0

    def add(
        self,
        identity: str,
        bag: str,
        payload: bytes,
        *,
        qos: int,
        dup: bool,
        connection: int,
        wall: float,
        monotonic: float,
    ) -> ReceivedMessage:
        message = ReceivedMessage(
            self.received, identity, bag, payload, qos, dup, connection, wall, monotonic
        )
        self.received += 1
        self.received_bytes += len(payload)
        self.marked_dup += dup
        if not (self._count_id(identity, message.message_id) & self._place(message)):
            self.unaccounted += 1
        self._keep(message)
        self._watch.tell(message)
        return message

    def of(self, identity: str | None = None, since: int = 0) -> list[ReceivedMessage]:
        """The kept messages, oldest first, from sequence `since` on; of one identity or of all."""
        return [
            message
            for message in self._kept
            if message.sequence >= since and (identity is None or message.identity == identity)
        ]

    def arrivals(self, identity: str) -> Arrivals:
        """Everything one identity sent, in the order in which it came."""
        return self._arrivals.get(identity, Arrivals())

    def ids(self, identity: str) -> frozenset[str]:
        """Every accounted message id of one identity."""
        return frozenset(self._ids.get(identity, ()))

    def identities(self) -> list[str]:
        """Everyone who sent a message with an id."""
        return list(self._ids)

    def missing(self, identity: str, message_ids: Iterable[str]) -> list[str]:
        """Those of `message_ids` that the hub does not have."""
        here = self._ids.get(identity, set())
        return [wanted for wanted in message_ids if wanted not in here]

    async def wait_for(
        self, predicate: Callable[[ReceivedMessage], bool], *, since: int = 0, within: float = 10.0
    ) -> ReceivedMessage:
        """The first message that matches, kept or coming; TimeoutError after `within` seconds."""
        return await self._watch.first(self.of(since=since), predicate, within)

    async def wait_for_count(self, count: int, *, within: float = 10.0) -> None:
        """Until the hub has received `count` messages since its start."""
        if self.received < count:
            await self._watch.first((), lambda message: message.sequence + 1 >= count, within)

    def _place(self, message: ReceivedMessage) -> bool:
        """Give a message its place among its identity's; False at the bound."""
        if self._arrivals_left <= 0:
            return False
        self._arrivals_left -= 1
        arrivals = self._arrivals.get(message.identity)
        if arrivals is None:
            arrivals = self._arrivals[message.identity] = Arrivals()
        arrivals.add(message.bag, message.payload, dup=message.dup)
        return True

    def _count_id(self, identity: str, mid: str) -> bool:
        """Count a message by its id; False at the bound."""
        if not mid:
            self.without_id += 1
            return True
        seen = self._ids.setdefault(identity, set())
        if mid in seen:
            self.duplicates += 1
        elif self._ids_left > 0:
            self._ids_left -= 1
            seen.add(mid)
            self.distinct += 1
        else:
            return False
        return True

    def _keep(self, message: ReceivedMessage) -> None:
        self._kept.append(message)
        self._room -= _weight(message)
        while self._kept and (self._room < 0 or len(self._kept) > self._kept_messages):
            self._room += _weight(self._kept.popleft())


def _weight(message: ReceivedMessage) -> int:
    return len(message.payload) + len(message.bag) + 256  # 256: the object itself, roughly
