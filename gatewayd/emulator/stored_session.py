"""What the hub keeps for an identity between connections: subscriptions and its queue of cloud messages. Pure.

With CleanSession 0 both outlive the connection, with CleanSession 1 the subscriptions do not. The queue holds 50
messages as the service's does; a message leaves it when the device has acknowledged it (PUBACK is "complete").
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

# "Maximum queue depth per device" of cloud-to-device messages (IoT Hub quotas and throttling, Microsoft).
MAX_CLOUD_MESSAGES = 50
MAX_CLOUD_MESSAGE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class CloudMessage:
    """A message to a device: property bag, already encoded, and body."""

    bag: str
    payload: bytes

    def __post_init__(self) -> None:
        if len(self.bag) + len(self.payload) > MAX_CLOUD_MESSAGE_BYTES:
            raise ValueError(f"a cloud message has at most {MAX_CLOUD_MESSAGE_BYTES} bytes")


@dataclass(slots=True)
class StoredSession:
    """One identity's state at the hub."""

    kept: bool = False  # a CleanSession 0 connection made it: the next one finds session-present
    subscriptions: dict[str, int] = field(default_factory=dict)  # filter -> granted QoS
    cloud_messages: deque[CloudMessage] = field(default_factory=deque)

    def open(self, *, clean: bool, lost: bool) -> bool:
        """A connection is accepted; says session-present. `lost` forgets what was stored (a fault)."""
        present = self.kept and not clean and not lost
        if not present:
            self.subscriptions.clear()
        self.kept = not clean
        return present

    def enqueue(self, message: CloudMessage) -> bool:
        """False when the queue is full, as the service answers 403004."""
        if len(self.cloud_messages) >= MAX_CLOUD_MESSAGES:
            return False
        self.cloud_messages.append(message)
        return True
