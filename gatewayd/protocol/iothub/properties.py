"""The property bag at the end of an IoT Hub topic: `name=value` joined by `&`, each part percent-encoded.

Decoding and encoding leave properties unharmed: order and doubles are kept, a bare `name` is null and `name=` is the
empty string, `+` stays a plus sign, and bytes that are no UTF-8 survive the round trip. The text may differ (`%2a`
becomes `%2A`), so a bag that only passes through is never decoded and encoded again.

System properties begin with `$.`; the `$` travels as `%24`. The list follows Microsoft's article "Communicate with
an IoT hub using the MQTT protocol" and the topic code of the Azure device SDKs.
"""

from __future__ import annotations

import enum
from urllib.parse import quote, unquote

# A value of None is null: the bare name.
Properties = tuple[tuple[str, str | None], ...]


class SystemProperty(enum.StrEnum):
    """The names the hub gives a meaning, as they are once decoded."""

    MESSAGE_ID = "$.mid"
    CORRELATION_ID = "$.cid"
    USER_ID = "$.uid"
    CONTENT_TYPE = "$.ct"
    CONTENT_ENCODING = "$.ce"
    CREATION_TIME = "$.ctime"
    EXPIRY_TIME = "$.exp"
    TO = "$.to"
    OUTPUT_NAME = "$.on"
    INTERFACE_ID = "$.ifid"
    COMPONENT_NAME = "$.sub"
    CONNECTION_DEVICE_ID = "$.cdid"
    CONNECTION_MODULE_ID = "$.cmid"
    DIAGNOSTIC_ID = "$.diagid"
    DIAGNOSTIC_CONTEXT = "$.diagctx"
    ACK = "iothub-ack"


def decode(bag: str) -> Properties:
    """The properties of a bag, in its order. A leading `?` and empty parts are passed over."""
    properties: list[tuple[str, str | None]] = []
    for part in bag.removeprefix("?").split("&"):
        if not part:
            continue
        name, equals, value = part.partition("=")
        properties.append((_decoded(name), _decoded(value) if equals else None))
    return tuple(properties)


def encode(properties: Properties) -> str:
    """The bag of these properties, in their order; raises ValueError for an empty name, which no bag can hold."""
    parts: list[str] = []
    for name, value in properties:
        if not name:
            raise ValueError("a property has an empty name")
        parts.append(_encoded(name) if value is None else f"{_encoded(name)}={_encoded(value)}")
    return "&".join(parts)


def find(bag: str, name: str) -> str | None:
    """The first value of `name` in a bag; None when it is absent or null."""
    return next((value for key, value in decode(bag) if key == name), None)


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _encoded(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")
