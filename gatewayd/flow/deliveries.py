"""The ledger of one identity's cloud messages: which are with the device, and which the hub may forget. Pure.

    WAITING --sent--> AT_DEVICE --acknowledged--> DONE --settle--> gone
       ^-------device_forgot-------'

The hub keeps a message until PUBACK and sends it again, in order, on every new connection. So a new connection leaves
only what the device has or had: what it sends again is compared, in order, with those, and an equal one (topic and
payload) *joins*: it is not sent to the device a second time. One that the device has acknowledged meanwhile is then
acknowledged to the hub at once. Entries that the hub has passed over it does not have any more. A message whose PUBACK
was lost with the connection comes before them all: it goes to the device again, and passes over nothing.

Promises: the hub is told in the order of its messages; nothing is DONE before the device has acknowledged it, or before
it was written to a device that asked for QoS 0. Within one hub connection nothing joins: two equal messages there are
two commands, and to take them for one would lose one.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Final

from gatewayd.upstream.hub_message import HubMessage

# What may be with the device without its PUBACK: sent again in one write when it comes back, which must fit the bound
# of a device's stream (1 MiB).
WINDOW_MESSAGES: Final = 16
WINDOW_BYTES: Final = 256 * 1024
# The hub queues at most 50 messages for a device (IoT Hub quotas). Beside those there can be what it has forgotten
# while the device has it still.
MAX_HELD: Final = 50 + WINDOW_MESSAGES


class Stage(enum.Enum):
    """Where a message stands."""

    WAITING = "waiting"
    AT_DEVICE = "at_device"
    DONE = "done"


class Offer(enum.Enum):
    """What became of a message the hub sent."""

    NEW = "new"
    JOINED = "joined"
    NO_ROOM = "no_room"  # left with the hub


class Delivery:
    """A message on its way to the device."""

    __slots__ = ("message", "owed", "packet_id", "stage")

    def __init__(self, message: HubMessage) -> None:
        self.message = message
        self.owed = True  # the hub waits for PUBACK on the present connection
        self.stage = Stage.WAITING
        self.packet_id = 0

    @property
    def size(self) -> int:
        return len(self.message.topic) + len(self.message.payload)


class Deliveries:
    """In the order in which the hub sent them on its present connection; behind those what it may send again."""

    __slots__ = ("_entries", "_passed", "_told", "_told_before")

    def __init__(self) -> None:
        self._entries: list[Delivery] = []
        self._passed = 0  # so many of them the present connection has sent, or has passed over
        # What the hub was told of last, on this connection and on the one before: whether it heard so is not known.
        self._told: deque[int] | None = None
        self._told_before: deque[int] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    # The hub

    def new_connection(self) -> None:
        """From here on the hub sends again what it still has; what the device never had comes that way too."""
        self._passed = 0
        self._told, self._told_before = None, self._told
        self._entries = [entry for entry in self._entries if entry.stage is not Stage.WAITING]
        for entry in self._entries:
            entry.owed = False

    def offer(self, message: HubMessage) -> Offer:
        """The hub sent a message. `settle` afterwards."""
        for at in range(self._passed, len(self._entries)):
            entry = self._entries[at]
            if entry.message.topic == message.topic and entry.message.payload == message.payload:
                entry.message = message
                entry.owed = True
                self._passed = at + 1
                return Offer.JOINED
        if self._told_before is None or _likeness(message) not in self._told_before:
            self._passed = len(self._entries)
        self._drop_passed()
        if len(self._entries) >= MAX_HELD:
            return Offer.NO_ROOM
        self._entries.insert(self._passed, Delivery(message))
        self._passed += 1
        return Offer.NEW

    def settle(self, tell: Callable[[HubMessage], bool]) -> int:
        """Tell the hub of what is done, as far as its order allows; how many it was told of.

        `tell` answers False when the connection can carry no PUBACK any more: the hub then sends the message again. It
        may bring the hub's next message inside the call.
        """
        told = 0
        self._drop_passed()
        while self._entries and self._entries[0].stage is Stage.DONE and self._entries[0].owed:
            entry = self._entries[0]
            entry.owed = False
            if not tell(entry.message):
                self._passed = 0  # this connection sends nothing more
                break
            told += 1
            if self._told is None:
                self._told = deque(maxlen=WINDOW_MESSAGES)
            self._told.append(_likeness(entry.message))
            self._drop_passed()
        return told

    def _drop_passed(self) -> None:
        """Nobody asks any more for what the device is done with, and the hub has been told of or has passed over."""
        while self._passed and self._entries[0].stage is Stage.DONE and not self._entries[0].owed:
            del self._entries[0]
            self._passed -= 1

    # The device

    def next_to_send(self) -> Delivery | None:
        """The oldest that waits, if the window has room for it."""
        count = size = 0
        for entry in self._entries:
            if entry.stage is Stage.AT_DEVICE:
                count += 1
                size += entry.size
            elif entry.stage is Stage.WAITING:
                fits = count == 0 or (count < WINDOW_MESSAGES and size + entry.size <= WINDOW_BYTES)
                return entry if fits else None
        return None

    def sent(self, entry: Delivery, packet_id: int) -> None:
        """Written to the device; 0 for QoS 0, which nobody acknowledges."""
        entry.packet_id = packet_id
        entry.stage = Stage.AT_DEVICE if packet_id else Stage.DONE

    def acknowledged(self, packet_id: int) -> bool:
        """The device has what was sent under this id; False when that is none of these. `settle` afterwards."""
        for entry in self._entries:
            if entry.stage is Stage.AT_DEVICE and entry.packet_id == packet_id:
                entry.stage = Stage.DONE
                return True
        return False

    def device_forgot(self) -> None:
        """The device has a new session: what it did not acknowledge waits again."""
        for entry in self._entries:
            if entry.stage is Stage.AT_DEVICE:
                entry.stage = Stage.WAITING
                entry.packet_id = 0


def _likeness(message: HubMessage) -> int:
    """Equal for equal messages. Two different ones that share it cost a double at the most."""
    return hash((message.topic, message.payload))
