"""The values that travel between rooms. Pure, frozen, valid once they exist."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    """A device or a module as IoT Hub knows it. `str()` is its MQTT client id: "device" or "device/module"."""

    device_id: str
    module_id: str | None = None
    # An identity is the key of most tables and is looked up several times a message: its hash is made once.
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        if not self.device_id or "/" in self.device_id:
            raise ValueError(f"device id {self.device_id!r}: expected a non-empty id without '/'")
        if self.module_id is not None and (not self.module_id or "/" in self.module_id):
            raise ValueError(f"module id {self.module_id!r}: expected a non-empty id without '/'")
        object.__setattr__(self, "_hash", hash((self.device_id, self.module_id)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self.device_id if self.module_id is None else f"{self.device_id}/{self.module_id}"

    @classmethod
    def parse(cls, client_id: str) -> Identity:
        """From an MQTT client id; raises ValueError for anything but "device" or "device/module"."""
        device_id, slash, module_id = client_id.partition("/")
        return cls(device_id, module_id if slash else None)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A device-to-cloud message as the device published it.

    `topic` is the whole MQTT topic, property bag included, never rewritten. `qos` is 0 or 1. The payload stays the
    bytes that came in; `repr` leaves it out, because no payload may reach a log.
    """

    identity: Identity
    topic: str
    payload: bytes
    qos: int
    retain: bool = False

    def __repr__(self) -> str:
        return f"Telemetry({self.identity}, {len(self.payload)} bytes, qos={self.qos})"

    @property
    def size(self) -> int:
        """Bytes that count against bounds: topic and payload."""
        return len(self.topic) + len(self.payload)


class DropReason(enum.Enum):
    """Why a message was dropped: the label of gatewayd_messages_dropped_total. Every drop has one."""

    QOS0_NO_ROOM = "qos0_no_room"
    WILL_SAID = "will_said"  # its device is at its bound, and what waits last of it is a will already
    TTL = "ttl"  # stored longer than the rule for its topic allows
    CAPACITY = "capacity"  # the outbox was full and its policy is to drop
    METHOD_REPLY_LATE = "method_reply_late"  # nobody waits for this reply any more
    METHOD_REPLY_NO_HUB = "method_reply_no_hub"  # the hub went away while the device worked
