"""The topics of the hub over MQTT, as "Communicate with an IoT hub using the MQTT protocol" (Microsoft) lists them.

A device may publish and subscribe only to topics of its own identity; every other topic closes the connection, every
other filter is answered 0x80. Knows names only, no connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from gatewayd.emulator.registry import resource_of

# More than the documented filters cannot be held: devicebound, methods, twin replies, desired changes, module inputs.
MAX_SUBSCRIPTIONS = 5


class TopicKind(Enum):
    """What a publish of a device asks of the hub."""

    TELEMETRY = "telemetry"
    TWIN_GET = "twin_get"
    TWIN_PATCH = "twin_patch"
    METHOD_REPLY = "method_reply"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class IdentityTopics:
    """The topics of one identity."""

    events: str
    commands: str
    filters: frozenset[str]

    @classmethod
    def of(cls, name: str) -> IdentityTopics:
        base = resource_of(name)
        commands = f"{base}/messages/devicebound/"
        own = {f"{base}/#", f"{base}/inputs/#"} if "/" in name else {f"{commands}#"}
        return cls(f"{base}/messages/events/", commands, frozenset(own) | _SHARED_FILTERS)

    def kind(self, topic: str) -> TopicKind:
        if topic.startswith(self.events) or topic == self.events[:-1]:
            return TopicKind.TELEMETRY
        for prefix, kind in _SHARED_TOPICS:
            if topic.startswith(prefix):
                return kind
        return TopicKind.FOREIGN

    def bag(self, topic: str) -> str:
        """The property bag of a telemetry topic, as it was sent."""
        return topic[len(self.events) :]


_SHARED_FILTERS = frozenset(
    {"$iothub/methods/POST/#", "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"}
)
_SHARED_TOPICS = (
    ("$iothub/twin/GET/?$rid=", TopicKind.TWIN_GET),
    ("$iothub/twin/PATCH/properties/reported/?$rid=", TopicKind.TWIN_PATCH),
    ("$iothub/methods/res/", TopicKind.METHOD_REPLY),
)


def add_property(bag: str, encoded: str) -> str:
    """The bag with one more property, already percent-encoded."""
    return f"{bag}&{encoded}" if bag else encoded


def message_id(bag: str) -> str:
    """The value of the system property `$.mid`, or the empty string."""
    if "mid=" not in bag:
        return ""
    for part in bag.split("&"):
        name, _, value = part.partition("=")
        if name in {"%24.mid", "$.mid"}:
            return unquote(value)
    return ""


def request_id(topic: str) -> str:
    """The `$rid` of a twin request or method reply."""
    _, _, query = topic.partition("?")
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "$rid":
            return value
    return ""
