"""IoT Hub's MQTT topics as operations: what a PUBLISH asks for, and how each topic is built.

Parsing never raises: a topic that is no operation of this identity is a `TopicFault`. A request id is opaque; it is
kept as it stands, still encoded, so that the answer carries the very same text. Topics follow Microsoft's article
"Communicate with an IoT hub using the MQTT protocol".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from gatewayd.message import Identity

METHODS_PREFIX: Final = "$iothub/methods/POST/"
METHOD_REPLY_PREFIX: Final = "$iothub/methods/res/"
TWIN_REPLY_PREFIX: Final = "$iothub/twin/res/"
TWIN_GET_TOPIC: Final = "$iothub/twin/GET/"
TWIN_PATCH_TOPIC: Final = "$iothub/twin/PATCH/properties/reported/"
TWIN_DESIRED_TOPIC: Final = "$iothub/twin/PATCH/properties/desired/"


class Operation(enum.Enum):
    """Everything that passes between a device and the hub."""

    TELEMETRY = "telemetry"
    TWIN_GET = "twin_get"
    TWIN_PATCH = "twin_patch"
    METHOD_REPLY = "method_reply"
    CLOUD_MESSAGE = "cloud_message"
    MODULE_INPUT = "module_input"
    METHOD_CALL = "method_call"
    TWIN_REPLY = "twin_reply"
    TWIN_DESIRED = "twin_desired"


TO_HUB: Final = frozenset(
    {Operation.TELEMETRY, Operation.TWIN_GET, Operation.TWIN_PATCH, Operation.METHOD_REPLY}
)


class TopicFault(enum.Enum):
    """Why a topic is no operation of this identity. The value is the reason in words for the log."""

    FOREIGN = "topic of another identity"
    UNKNOWN = "topic is not one of IoT Hub's"
    NO_REQUEST_ID = "topic has no $rid"
    BAD_STATUS = "method reply has no numeric status"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic taken apart. Fields that an operation does not have keep their empty value."""

    operation: Operation
    bag: str = ""
    request_id: str = ""
    status: int = 0
    version: int | None = None
    name: str = ""


def events_prefix(identity: Identity) -> str:
    """The beginning of every telemetry topic of this identity, without the last slash."""
    return f"{_base(identity)}/messages/events"


def telemetry_topic(identity: Identity, bag: str = "") -> str:
    return f"{events_prefix(identity)}/{bag}"


def cloud_message_topic(identity: Identity, bag: str = "") -> str:
    return f"{_base(identity)}/messages/devicebound/{bag}"


def module_input_topic(identity: Identity, input_name: str, bag: str = "") -> str:
    return f"{_base(identity)}/inputs/{input_name}/{bag}"


def method_call_topic(method: str, request_id: str) -> str:
    return f"{METHODS_PREFIX}{method}/?$rid={request_id}"


def method_reply_topic(status: int, request_id: str) -> str:
    return f"{METHOD_REPLY_PREFIX}{status}/?$rid={request_id}"


def twin_get_topic(request_id: str) -> str:
    return f"{TWIN_GET_TOPIC}?$rid={request_id}"


def twin_patch_topic(request_id: str) -> str:
    return f"{TWIN_PATCH_TOPIC}?$rid={request_id}"


def twin_reply_topic(status: int, request_id: str, version: int | None = None) -> str:
    suffix = "" if version is None else f"&$version={version}"
    return f"{TWIN_REPLY_PREFIX}{status}/?$rid={request_id}{suffix}"


def twin_desired_topic(version: int) -> str:
    return f"{TWIN_DESIRED_TOPIC}?$version={version}"


def parse_from_device(identity: Identity, topic: str) -> Topic | TopicFault:
    """What a PUBLISH of `identity` towards the hub asks for. Telemetry is taken with and without the last slash."""
    prefix = events_prefix(identity)
    if topic.startswith(prefix):
        rest = topic[len(prefix) :]
        if not rest or rest[0] == "/":
            return Topic(Operation.TELEMETRY, bag=rest[1:])
    if topic.startswith("devices/"):
        return TopicFault.FOREIGN if "/messages/events" in topic else TopicFault.UNKNOWN
    if topic.startswith(TWIN_GET_TOPIC):
        return _with_request_id(Operation.TWIN_GET, topic[len(TWIN_GET_TOPIC) :])
    if topic.startswith(TWIN_PATCH_TOPIC):
        return _with_request_id(Operation.TWIN_PATCH, topic[len(TWIN_PATCH_TOPIC) :])
    if topic.startswith(METHOD_REPLY_PREFIX):
        status, _, rest = topic[len(METHOD_REPLY_PREFIX) :].partition("/")
        number = _number(status)
        if number is None:
            return TopicFault.BAD_STATUS
        return _with_request_id(Operation.METHOD_REPLY, rest, status=number)
    return TopicFault.UNKNOWN


def parse_from_hub(identity: Identity, topic: str) -> Topic | TopicFault:
    """What a PUBLISH of the hub to `identity` is."""
    base = _base(identity)
    if topic.startswith(f"{base}/messages/devicebound"):
        rest = topic[len(base) + len("/messages/devicebound") :]
        if not rest or rest[0] == "/":
            return Topic(Operation.CLOUD_MESSAGE, bag=rest[1:])
    if identity.module_id is not None and topic.startswith(f"{base}/inputs/"):
        name, _, bag = topic[len(base) + len("/inputs/") :].partition("/")
        return Topic(Operation.MODULE_INPUT, bag=bag, name=name) if name else TopicFault.UNKNOWN
    if topic.startswith("devices/"):
        return TopicFault.FOREIGN
    if topic.startswith(METHODS_PREFIX):
        name, _, rest = topic[len(METHODS_PREFIX) :].partition("/")
        return _with_request_id(Operation.METHOD_CALL, rest, name=name) if name else TopicFault.UNKNOWN
    if topic.startswith(TWIN_REPLY_PREFIX):
        status, _, rest = topic[len(TWIN_REPLY_PREFIX) :].partition("/")
        number = _number(status)
        if number is None:
            return TopicFault.BAD_STATUS
        return _with_request_id(Operation.TWIN_REPLY, rest, status=number)
    if topic.startswith(TWIN_DESIRED_TOPIC):
        version = _parameter(topic[len(TWIN_DESIRED_TOPIC) :], "$version")
        return Topic(Operation.TWIN_DESIRED, version=_number(version))
    return TopicFault.UNKNOWN


def subscriptions(identity: Identity) -> dict[str, Operation]:
    """Every topic filter IoT Hub documents for this identity, and what it brings."""
    base = _base(identity)
    filters = {
        f"{METHODS_PREFIX}#": Operation.METHOD_CALL,
        f"{TWIN_REPLY_PREFIX}#": Operation.TWIN_REPLY,
        f"{TWIN_DESIRED_TOPIC}#": Operation.TWIN_DESIRED,
    }
    if identity.module_id is None:
        filters[f"{base}/messages/devicebound/#"] = Operation.CLOUD_MESSAGE
    else:
        filters[f"{base}/#"] = Operation.MODULE_INPUT
        filters[f"{base}/inputs/#"] = Operation.MODULE_INPUT
    return filters


def _base(identity: Identity) -> str:
    if identity.module_id is None:
        return f"devices/{identity.device_id}"
    return f"devices/{identity.device_id}/modules/{identity.module_id}"


def _with_request_id(
    operation: Operation, query: str, *, status: int = 0, name: str = ""
) -> Topic | TopicFault:
    request_id = _parameter(query, "$rid")
    if not request_id:
        return TopicFault.NO_REQUEST_ID
    return Topic(
        operation,
        request_id=request_id,
        status=status,
        version=_number(_parameter(query, "$version")),
        name=name,
    )


def _parameter(query: str, name: str) -> str:
    """The value of `name` in `?name=value&…`, as it stands; empty when it is not there."""
    if not query.startswith("?"):
        return ""
    for part in query[1:].split("&"):
        key, _, value = part.partition("=")
        if key == name:
            return value
    return ""


def _number(text: str) -> int | None:
    # Nine digits hold every status and version there is; a longer run is no number of the hub's.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
