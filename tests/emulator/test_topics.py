"""Topics: an identity has its own and the shared ones, nothing else."""

from __future__ import annotations

import pytest

from gatewayd.emulator.topics import (
    DEVICEBOUND,
    METHODS,
    IdentityTopics,
    TopicKind,
    add_property,
    message_id,
    request_id,
)


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("devices/leaf1/messages/events/", TopicKind.TELEMETRY),
        ("devices/leaf1/messages/events", TopicKind.TELEMETRY),
        ("devices/leaf1/messages/events/%24.mid=id%201&a%20b=c%2Fd%2Be", TopicKind.TELEMETRY),
        ("devices/leaf2/messages/events/", TopicKind.FOREIGN),
        ("devices/leaf1/modules/m/messages/events/", TopicKind.FOREIGN),
        ("devices/leaf1/messages/devicebound/", TopicKind.FOREIGN),
        ("$iothub/twin/GET/?$rid=1", TopicKind.TWIN_GET),
        ("$iothub/twin/PATCH/properties/reported/?$rid=1", TopicKind.TWIN_PATCH),
        ("$iothub/methods/res/200/?$rid=1", TopicKind.METHOD_REPLY),
        ("$iothub/twin/PATCH/properties/desired/?$version=1", TopicKind.FOREIGN),
        ("anything", TopicKind.FOREIGN),
    ],
)
def test_a_device_may_publish_to_its_own_topics_only(topic: str, kind: TopicKind) -> None:
    assert IdentityTopics.of("leaf1").kind(topic) is kind


def test_a_module_publishes_below_its_own_name() -> None:
    topics = IdentityTopics.of("leaf1/m")
    assert topics.kind("devices/leaf1/modules/m/messages/events/a=b") is TopicKind.TELEMETRY
    assert topics.bag("devices/leaf1/modules/m/messages/events/a=b") == "a=b"
    assert topics.kind("devices/leaf1/messages/events/") is TopicKind.FOREIGN


def test_a_device_may_subscribe_to_the_documented_filters_only() -> None:
    filters = IdentityTopics.of("leaf1").filters
    assert filters == {
        "devices/leaf1/messages/devicebound/#",
        "$iothub/methods/POST/#",
        "$iothub/twin/res/#",
        "$iothub/twin/PATCH/properties/desired/#",
    }
    assert "devices/leaf1/modules/m/#" in IdentityTopics.of("leaf1/m").filters


def test_a_message_goes_with_the_highest_qos_of_the_filters_that_match() -> None:
    device, module = IdentityTopics.of("d"), IdentityTopics.of("d/m")
    assert device.granted({"devices/d/messages/devicebound/#": 1}, DEVICEBOUND) == 1
    assert device.granted({METHODS: 1}, DEVICEBOUND) is None
    base = "devices/d/modules/m"
    assert module.granted({f"{base}/#": 0, f"{base}/inputs/#": 1}, "inputs/i") == 1
    assert module.granted({f"{base}/#": 0}, "inputs/i") == 0


@pytest.mark.parametrize(
    ("bag", "found"),
    [
        ("", ""),
        ("%24.mid=id%201&%24.ct=x", "id 1"),
        ("a=b&$.mid=7", "7"),
        ("mid=7", ""),
        ("x%24.mid=7", ""),
    ],
)
def test_the_message_id_is_the_system_property(bag: str, found: str) -> None:
    assert message_id(bag) == found


def test_a_property_is_added_to_a_full_and_to_an_empty_bag() -> None:
    assert add_property("", "mqtt-retain=true") == "mqtt-retain=true"
    assert add_property("a=b", "mqtt-retain=true") == "a=b&mqtt-retain=true"


def test_the_request_id_is_found_among_other_parameters() -> None:
    assert request_id("$iothub/twin/GET/?$version=2&$rid=abc") == "abc"
    assert request_id("$iothub/twin/GET/") == ""
