"""The topics of the hub over MQTT, as "Communicate with an IoT hub using the MQTT protocol" (Microsoft) lists them.

A device may publish and subscribe only to topics of its own identity; every other topic closes the connection, every
other filter is answered 0x80. Knows names only, no connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from gatewayd.emulator.registry import resource_of

METHODS = "$iothub/methods/POST/#"
TWIN_REPLIES = "$iothub/twin/res/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"

# More than the documented filters cannot be held: devicebound, methods, twin replies, desired changes, module inputs.
MAX_SUBSCRIPTIONS = 5


# The place of a device's cloud messages below its resource.
DEVICEBOUND = "messages/devicebound"


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

    name: str
    base: str
    filters: frozenset[str]

    @classmethod
    def of(cls, name: str) -> IdentityTopics:
        base = resource_of(name)
        own = {f"{base}/#", f"{base}/inputs/#"} if "/" in name else {f"{base}/{DEVICEBOUND}/#"}
        return cls(name, base, frozenset(own) | _SHARED_FILTERS)

    @property
    def events(self) -> str:
        return f"{self.base}/messages/events/"

    def granted(self, subscriptions: Mapping[str, int], place: str) -> int | None:
        """The QoS with which a message below `place` goes to whoever subscribed so; None: nobody did."""
        filters = {f"{self.base}/#", f"{self.base}/{place.partition('/')[0]}/#", f"{self.base}/{place}/#"}
        return max(
            (qos for topic_filter, qos in subscriptions.items() if topic_filter in filters), default=None
        )

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


_SHARED_FILTERS = frozenset({METHODS, TWIN_REPLIES, DESIRED})
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
