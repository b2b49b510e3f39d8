"""Topics as operations. Oracles: the documented topics by letter, and paho's own topic matcher for the filters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from gatewayd.message import Identity
from gatewayd.protocol.iothub import operations
from gatewayd.protocol.iothub.operations import (
    TO_HUB,
    Operation,
    Topic,
    TopicFault,
    parse_from_device,
    parse_from_hub,
    subscriptions,
)

DEVICE = Identity("dev-01")
MODULE = Identity("dev-01", "mod-a")


@pytest.mark.parametrize(
    ("identity", "topic", "expected"),
    [
        (DEVICE, "devices/dev-01/messages/events/", Topic(Operation.TELEMETRY)),
        (DEVICE, "devices/dev-01/messages/events", Topic(Operation.TELEMETRY)),
        (DEVICE, "devices/dev-01/messages/events/a=b&c", Topic(Operation.TELEMETRY, bag="a=b&c")),
        (MODULE, "devices/dev-01/modules/mod-a/messages/events/", Topic(Operation.TELEMETRY)),
        (DEVICE, "$iothub/twin/GET/?$rid=7", Topic(Operation.TWIN_GET, request_id="7")),
        (
            DEVICE,
            "$iothub/twin/PATCH/properties/reported/?$rid=a%20b",
            Topic(Operation.TWIN_PATCH, request_id="a%20b"),
        ),
        (
            DEVICE,
            "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=4",
            Topic(Operation.TWIN_PATCH, request_id="1", version=4),
        ),
        (
            DEVICE,
            "$iothub/methods/res/200/?$rid=1f",
            Topic(Operation.METHOD_REPLY, request_id="1f", status=200),
        ),
        (DEVICE, "devices/dev-02/messages/events/", TopicFault.FOREIGN),
        (DEVICE, "devices/dev-011/messages/events/", TopicFault.FOREIGN),
        (DEVICE, "devices/dev-01/modules/mod-a/messages/events/", TopicFault.FOREIGN),
        (MODULE, "devices/dev-01/messages/events/", TopicFault.FOREIGN),
        (MODULE, "devices/dev-01/modules/mod-b/messages/events/", TopicFault.FOREIGN),
        (DEVICE, "devices/DEV-01/messages/events/", TopicFault.FOREIGN),
        (DEVICE, "devices/dev-01/messages/eventsandmore", TopicFault.FOREIGN),
        (DEVICE, "devices/dev-01/messages/devicebound/", TopicFault.UNKNOWN),
        (DEVICE, "factory/line/1", TopicFault.UNKNOWN),
        (DEVICE, "", TopicFault.UNKNOWN),
        (DEVICE, "$iothub/twin/GET/", TopicFault.NO_REQUEST_ID),
        (DEVICE, "$iothub/twin/GET/?$rid=", TopicFault.NO_REQUEST_ID),
        (DEVICE, "$iothub/twin/GET/$rid=7", TopicFault.NO_REQUEST_ID),
        (DEVICE, "$iothub/methods/res/ok/?$rid=1", TopicFault.BAD_STATUS),
        (DEVICE, "$iothub/methods/res/-1/?$rid=1", TopicFault.BAD_STATUS),
        (DEVICE, "$iothub/methods/res/9999999999/?$rid=1", TopicFault.BAD_STATUS),
        (DEVICE, "$iothub/methods/res/200", TopicFault.NO_REQUEST_ID),
        (DEVICE, "$iothub/twin/res/200/?$rid=1", TopicFault.UNKNOWN),
        (DEVICE, "$iothub/methods/POST/reboot/?$rid=1", TopicFault.UNKNOWN),
    ],
)
def test_a_publish_of_a_device_is(identity: Identity, topic: str, expected: Topic | TopicFault) -> None:
    assert parse_from_device(identity, topic) == expected


@pytest.mark.parametrize(
    ("identity", "topic", "expected"),
    [
        (
            DEVICE,
            "devices/dev-01/messages/devicebound/%24.mid=1&x",
            Topic(Operation.CLOUD_MESSAGE, bag="%24.mid=1&x"),
        ),
        (DEVICE, "devices/dev-01/messages/devicebound", Topic(Operation.CLOUD_MESSAGE)),
        (DEVICE, "devices/dev-02/messages/devicebound/", TopicFault.FOREIGN),
        (DEVICE, "devices/dev-01/messages/deviceboundless", TopicFault.FOREIGN),
        (
            MODULE,
            "devices/dev-01/modules/mod-a/inputs/in1/a=b",
            Topic(Operation.MODULE_INPUT, bag="a=b", name="in1"),
        ),
        (MODULE, "devices/dev-01/modules/mod-a/inputs//a=b", TopicFault.UNKNOWN),
        (
            DEVICE,
            "$iothub/methods/POST/reboot/?$rid=1",
            Topic(Operation.METHOD_CALL, request_id="1", name="reboot"),
        ),
        (DEVICE, "$iothub/methods/POST//?$rid=1", TopicFault.UNKNOWN),
        (DEVICE, "$iothub/methods/POST/reboot/", TopicFault.NO_REQUEST_ID),
        (DEVICE, "$iothub/twin/res/200/?$rid=9", Topic(Operation.TWIN_REPLY, request_id="9", status=200)),
        (
            DEVICE,
            "$iothub/twin/res/204/?$rid=9&$version=3",
            Topic(Operation.TWIN_REPLY, request_id="9", status=204, version=3),
        ),
        (DEVICE, "$iothub/twin/res/x/?$rid=9", TopicFault.BAD_STATUS),
        (
            DEVICE,
            "$iothub/twin/PATCH/properties/desired/?$version=5",
            Topic(Operation.TWIN_DESIRED, version=5),
        ),
        (DEVICE, "$iothub/other", TopicFault.UNKNOWN),
    ],
)
def test_a_publish_of_the_hub_is(identity: Identity, topic: str, expected: Topic | TopicFault) -> None:
    assert parse_from_hub(identity, topic) == expected


def test_what_we_build_towards_the_hub_we_also_read() -> None:
    for topic in (
        operations.telemetry_topic(DEVICE, "a=b"),
        operations.twin_get_topic("r"),
        operations.twin_patch_topic("r"),
        operations.method_reply_topic(200, "r"),
    ):
        parsed = parse_from_device(DEVICE, topic)
        assert isinstance(parsed, Topic)
        assert parsed.operation in TO_HUB


@pytest.mark.parametrize("identity", [DEVICE, MODULE])
def test_every_topic_of_the_hub_matches_a_documented_filter(identity: Identity) -> None:
    topics = [
        operations.method_call_topic("m", "r"),
        operations.twin_reply_topic(204, "r", 3),
        operations.twin_desired_topic(4),
    ]
    if identity.module_id is None:
        topics.append(operations.cloud_message_topic(identity, "a=b"))
    else:
        topics.append(operations.module_input_topic(identity, "in1", "a=b"))
    for topic in topics:
        parsed = parse_from_hub(identity, topic)
        assert isinstance(parsed, Topic)
        matching = {op for name, op in subscriptions(identity).items() if topic_matches_sub(name, topic)}
        assert matching == {parsed.operation}


def test_a_device_has_the_four_documented_filters() -> None:
    assert set(subscriptions(DEVICE)) == {
        "devices/dev-01/messages/devicebound/#",
        "$iothub/methods/POST/#",
        "$iothub/twin/res/#",
        "$iothub/twin/PATCH/properties/desired/#",
    }


@given(st.text(max_size=60))
def test_no_text_makes_the_parsers_fail(text: str) -> None:
    for prefix in ("", "devices/dev-01/messages/events", "$iothub/methods/res/", "$iothub/twin/", "devices/"):
        assert isinstance(parse_from_device(DEVICE, prefix + text), Topic | TopicFault)
        assert isinstance(parse_from_hub(MODULE, prefix + text), Topic | TopicFault)
