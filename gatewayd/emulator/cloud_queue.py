"""The hub's queue of messages for one device, after "Send cloud-to-device messages from an IoT hub" (Microsoft). Pure.

A message is *enqueued*, then *invisible* (locked) while a device has it, and leaves as *completed* when the device has
acknowledged it. A lock that runs out, or a connection that ends, makes it enqueued again in its old place, until it was
delivered MAX_DELIVERIES times. Then, and when its expiry comes while it is enqueued, it is dead-lettered. The queue
holds 50.

A delivery over MQTT is known by its packet id. A message keeps it between deliveries, because the MQTT session does.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum, StrEnum

from gatewayd.emulator.topics import DEVICEBOUND

# "Maximum queue depth per device", "Maximum delivery count" by default, and the lock of a message (IoT Hub quotas and
# throttling; Send cloud-to-device messages from an IoT hub, Microsoft).
MAX_CLOUD_MESSAGES = 50
MAX_CLOUD_MESSAGE_BYTES = 64 * 1024
MAX_DELIVERIES = 10
LOCK_SECONDS = 60.0

# Of messages that have left their queue, so many are remembered.
KEPT_ENDS = 1024


class MessageState(StrEnum):
    """Where a cloud message is."""

    ENQUEUED = "enqueued"
    INVISIBLE = "invisible"
    COMPLETED = "completed"
    EXPIRED = "expired"
    DELIVERY_COUNT_EXCEEDED = "delivery_count_exceeded"
    PURGED = "purged"


class Receipt(Enum):
    """What a PUBACK means to the queue."""

    COMPLETED = "completed"
    LOCK_LOST = "lock_lost"  # it came after the lock had run out: nothing is completed
    OUT_OF_ORDER = "out_of_order"


@dataclass(frozen=True, slots=True)
class CloudMessage:
    """A message to a device: its place below the identity's resource, bag and body."""

    bag: str
    payload: bytes
    place: str = DEVICEBOUND
    expires_at: float | None = None  # wall seconds

    def __post_init__(self) -> None:
        if len(self.bag) + len(self.payload) > MAX_CLOUD_MESSAGE_BYTES:
            raise ValueError(f"a cloud message has at most {MAX_CLOUD_MESSAGE_BYTES} bytes")
        if wrong := {"+", "#", "\0"} & set(self.place + self.bag):
            raise ValueError(
                f"the topic of a cloud message may not hold {sorted(wrong)} [MQTT-3.3.2-2, MQTT-1.5.3-2]"
            )


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the service side may know of one message."""

    state: MessageState
    deliveries: int


@dataclass(slots=True)
class Entry:
    """One message in the queue. `packet_id` is 0 until the device was sent it with QoS 1."""

    number: int
    message: CloudMessage
    deliveries: int = 0
    packet_id: int = 0
    locked_until: float | None = None


class CloudQueue:
    """`now` is monotonic seconds, `wall` the hub's own idea of the time."""

    __slots__ = ("_ends", "_entries", "_number", "_under_way")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        # By packet id, in the order in which PUBACKs are due.
        self._under_way: dict[int, Entry] = {}
        self._ends: OrderedDict[int, Delivery] = OrderedDict()
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    # The service side

    def enqueue(self, message: CloudMessage) -> int:
        """The message's number, from 1; 0 when the queue is full, as the service answers 403004."""
        if len(self._entries) >= MAX_CLOUD_MESSAGES:
            return 0
        self._number += 1
        self._entries.append(Entry(self._number, message))
        return self._number

    def delivery(self, number: int) -> Delivery | None:
        """Where a message is, also a while after it has left."""
        for entry in self._entries:
            if entry.number == number:
                locked = entry.locked_until is not None
                return Delivery(MessageState.INVISIBLE if locked else MessageState.ENQUEUED, entry.deliveries)
        return self._ends.get(number)

    def purge(self) -> list[Entry]:
        """Give and forget everything that no device has."""
        return self._leave(self.enqueued(), MessageState.PURGED)

    # The device side

    def sweep(self, now: float, wall: float) -> list[Entry]:
        """End the locks that have run out, and give those that leave for the dead-letter queue."""
        for entry in self._entries:
            if entry.locked_until is not None and entry.locked_until <= now:
                entry.locked_until = None
        idle = [entry for entry in self._entries if entry.locked_until is None]
        expired = [e for e in idle if e.message.expires_at is not None and e.message.expires_at <= wall]
        left = self._leave(expired, MessageState.EXPIRED)
        exceeded = [e for e in idle if e.deliveries >= MAX_DELIVERIES and e not in expired]
        return left + self._leave(exceeded, MessageState.DELIVERY_COUNT_EXCEEDED)

    def enqueued(self) -> list[Entry]:
        """What may be delivered now, in its order."""
        return [entry for entry in self._entries if entry.locked_until is None]

    def in_flight(self) -> list[Entry]:
        """What the device was sent with QoS 1 and has not acknowledged, locked or not."""
        return list(self._under_way.values())

    def delivered(self, entry: Entry, packet_id: int, locked_until: float) -> None:
        """`entry` is on its way with QoS 1."""
        self._under_way[packet_id] = entry
        entry.packet_id = packet_id
        entry.locked_until = locked_until
        entry.deliveries += 1

    def written(self, entry: Entry) -> None:
        """`entry` was sent with QoS 0: nothing more will be heard of it."""
        entry.deliveries += 1
        self._leave([entry], MessageState.COMPLETED)

    def acknowledged(self, packet_id: int) -> Receipt:
        """The device has sent a PUBACK for one of those in flight."""
        entry = self._under_way[packet_id]
        if next(iter(self._under_way)) != packet_id:
            return Receipt.OUT_OF_ORDER
        if entry.locked_until is None:
            del self._under_way[packet_id]
            entry.packet_id = 0
            return Receipt.LOCK_LOST
        self._leave([entry], MessageState.COMPLETED)
        return Receipt.COMPLETED

    def unlock(self, *, forget: bool) -> None:
        """The device's connection is over, and with `forget` its MQTT session too."""
        for entry in self._entries:
            entry.locked_until = None
            if forget:
                entry.packet_id = 0
        if forget:
            self._under_way.clear()

    def next_unlock(self) -> float | None:
        """When the first lock runs out."""
        return min((e.locked_until for e in self._entries if e.locked_until is not None), default=None)

    def _leave(self, entries: list[Entry], state: MessageState) -> list[Entry]:
        for entry in entries:
            self._entries.remove(entry)
            self._under_way.pop(entry.packet_id, None)
            self._ends[entry.number] = Delivery(state, entry.deliveries)
            if len(self._ends) > KEPT_ENDS:
                self._ends.popitem(last=False)
        return entries
