"""A device speaks for itself alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.flow.router import Way, route
from gatewayd.message import Identity
from gatewayd.protocol.iothub.operations import TO_HUB, TopicFault

DEVICE = Identity("dev-01")
MODULE = Identity("dev-01", "mod-a")


@pytest.mark.parametrize(
    ("topic", "way"),
    [
        ("devices/dev-01/messages/events/", Way.TELEMETRY),
        ("$iothub/twin/GET/?$rid=1", Way.TWIN_GET),
        ("$iothub/twin/PATCH/properties/reported/?$rid=1", Way.TWIN_PATCH),
        ("$iothub/methods/res/200/?$rid=1", Way.METHOD_REPLY),
    ],
)
def test_a_devices_own_topics_go_their_way(topic: str, way: Way) -> None:
    found = route(DEVICE, topic)
    assert found.way is way
    assert found.topic is not None
    assert found.fault is None


def test_a_module_publishes_below_its_own_name() -> None:
    assert route(MODULE, "devices/dev-01/modules/mod-a/messages/events/").way is Way.TELEMETRY


@pytest.mark.parametrize(
    ("identity", "topic", "fault"),
    [
        (DEVICE, "devices/dev-02/messages/events/", TopicFault.FOREIGN),
        (DEVICE, "devices/dev-01/modules/mod-a/messages/events/", TopicFault.FOREIGN),
        (MODULE, "devices/dev-01/messages/events/", TopicFault.FOREIGN),
        (DEVICE, "anything/else", TopicFault.UNKNOWN),
        (DEVICE, "$iothub/twin/GET/", TopicFault.NO_REQUEST_ID),
        (DEVICE, "$iothub/methods/res/x/?$rid=1", TopicFault.BAD_STATUS),
    ],
)
def test_other_topics_are_refused_with_the_reason(identity: Identity, topic: str, fault: TopicFault) -> None:
    found = route(identity, topic)
    assert (found.way, found.fault, found.topic) == (Way.REFUSED, fault, None)


def test_every_operation_towards_the_hub_has_a_way() -> None:
    assert {operation.value for operation in TO_HUB} | {"refused"} == {way.value for way in Way}


@given(
    st.text("ab1-", min_size=1, max_size=4),
    st.text("ab1-", min_size=1, max_size=4),
    st.text("ab1-/=&", max_size=8),
)
def test_telemetry_passes_only_under_the_own_name(own: str, other: str, bag: str) -> None:
    found = route(Identity(own), f"devices/{other}/messages/events/{bag}")
    assert (found.way is Way.TELEMETRY) == (own == other)
