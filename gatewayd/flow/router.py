"""Where a device's PUBLISH goes: telemetry, twin get, twin patch, method reply, or nowhere, with the reason. Pure.

A device speaks only for itself: telemetry topics of another device, or of another module of the same device, are
refused. Twin and method topics carry no id on the wire; they belong to whoever is connected. What is refused here ends
the connection, as it does at the hub.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from gatewayd.message import Identity
from gatewayd.protocol.iothub.operations import Operation, Topic, TopicFault, parse_from_device


class Way(enum.Enum):
    """The ways a PUBLISH of a device can go."""

    TELEMETRY = "telemetry"
    TWIN_GET = "twin_get"
    TWIN_PATCH = "twin_patch"
    METHOD_REPLY = "method_reply"
    REFUSED = "refused"


_WAYS: Final = {
    Operation.TELEMETRY: Way.TELEMETRY,
    Operation.TWIN_GET: Way.TWIN_GET,
    Operation.TWIN_PATCH: Way.TWIN_PATCH,
    Operation.METHOD_REPLY: Way.METHOD_REPLY,
}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a PUBLISH goes. `topic` is its topic taken apart, `fault` the reason of a refusal: one of them is set."""

    way: Way
    topic: Topic | None = None
    fault: TopicFault | None = None


def route(identity: Identity, topic: str) -> Route:
    """Decide for one PUBLISH of `identity`."""
    parsed = parse_from_device(identity, topic)
    if isinstance(parsed, TopicFault):
        return Route(Way.REFUSED, fault=parsed)
    return Route(_WAYS[parsed.operation], topic=parsed)
