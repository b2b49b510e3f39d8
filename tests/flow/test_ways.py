"""The ways that desks are given: what a desk may count on, shown with the ways its tests use."""

from __future__ import annotations

import pytest

from gatewayd.flow.ways import Reach, Ways
from gatewayd.message import Identity
from tests.support.way_rig import RecordedWays

DEVICE = Identity("press-1")


@pytest.mark.parametrize("reach", [Reach.OPENING, Reach.DOWN])
def test_a_hub_that_is_not_up_takes_nothing(reach: Reach) -> None:
    ways: Ways = RecordedWays(hub=reach)
    assert ways.reach(DEVICE) is reach
    assert not ways.to_hub(DEVICE, "$iothub/methods/res/200/?$rid=1", b"")


def test_a_device_hears_only_what_it_is_subscribed_to() -> None:
    ways: Ways = RecordedWays(filters={"a/#"})
    assert ways.to_device(DEVICE, "a/#", "a/1", b"", 0)
    assert not ways.to_device(DEVICE, "b/#", "b/1", b"", 0)
    assert ways.listens(DEVICE, "a/#")
    assert not ways.listens(DEVICE, "b/#")
