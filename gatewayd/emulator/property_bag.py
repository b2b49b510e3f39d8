"""Message properties as the service side has them, and the bag at the end of a topic that carries them. Pure.

A bag is `name=value` joined by `&`, each part percent-encoded; a bare name is null, `name=` the empty string. System
properties travel under short names (`$.mid`), which the service side spells out (`message-id`); the list is that of
"Communicate with an IoT hub using the MQTT protocol" (Microsoft) and of the device SDKs' topic code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, unquote

SYSTEM_NAMES = {
    "$.mid": "message-id",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.ctime": "creation-time",
    "$.exp": "expiry-time",
    "$.to": "to",
    "$.on": "output-name",
    "$.ifid": "interface-id",
    "$.sub": "component-name",
    "$.cdid": "connection-device-id",
    "$.cmid": "connection-module-id",
    "$.diagid": "diagnostic-id",
    "$.diagctx": "diagnostic-context",
    "iothub-ack": "ack",
}

ACKS = frozenset({"", "none", "positive", "negative", "full"})


@dataclass(frozen=True, slots=True)
class Properties:
    """What a bag says. A value of None is null; a name that comes twice has its last value, as with the service."""

    system: dict[str, str | None]
    custom: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class CloudProperties:
    """What the service side may say of a message to a device. `lifetime` seconds from the sending on; None: no end."""

    message_id: str = ""
    correlation_id: str = ""
    user_id: str = ""
    content_type: str = ""
    content_encoding: str = ""
    ack: str = ""
    lifetime: float | None = None
    custom: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ack not in ACKS:
            raise ValueError(f"ack {self.ack!r}: allowed {sorted(ACKS - {''})}")
        if self.lifetime is not None and self.lifetime <= 0:
            raise ValueError(f"lifetime={self.lifetime}: above 0")
        if wrong := [name for name in self.custom if not name or name in SYSTEM_NAMES]:
            raise ValueError(f"custom properties {wrong}: the names are empty or the system's")

    def bag(self, to: str, wall: float) -> str:
        """As the hub writes it for a device; `to` is the address of the device's queue."""
        system = {
            "$.mid": self.message_id,
            "$.cid": self.correlation_id,
            "$.uid": self.user_id,
            "$.to": to,
            "$.ct": self.content_type,
            "$.ce": self.content_encoding,
            "$.exp": "" if self.lifetime is None else _instant(wall + self.lifetime),
            "iothub-ack": self.ack,
        }
        return encode({**{name: value for name, value in system.items() if value}, **self.custom})


def read(bag: str) -> Properties:
    """The properties of a bag, system ones under the service's names."""
    properties = Properties({}, {})
    for part in bag.split("&"):
        if not part:
            continue
        name, equals, value = part.partition("=")
        decoded = unquote(name)
        spelled_out = SYSTEM_NAMES.get(decoded)
        kind = properties.custom if spelled_out is None else properties.system
        kind[spelled_out or decoded] = unquote(value) if equals else None
    return properties


def encode(properties: Mapping[str, str | None]) -> str:
    """The bag of these properties, in their order."""
    return "&".join(
        quote(name, safe="") + ("" if value is None else f"={quote(value, safe='')}")
        for name, value in properties.items()
    )


def _instant(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
