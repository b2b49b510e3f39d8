"""What a lane owes the hub."""

from __future__ import annotations

from gatewayd.flow.in_flight import InFlight
from gatewayd.flow.lane import Lane
from gatewayd.message import Identity, Telemetry


def test_a_lane_owes_the_hub_what_is_in_memory_and_what_is_on_disk() -> None:
    lane = Lane(Identity("dev-1"), InFlight(max_messages=4, max_bytes=1000))
    assert not lane.owes_the_hub
    lane.in_flight.offer(
        1, Telemetry(lane.identity, "devices/dev-1/messages/events/", b"x", 1), dup=False, now=0.0
    )
    assert lane.owes_the_hub
    (held,) = lane.in_flight.to_store(qos0=False, max_messages=100, max_bytes=1 << 20)
    lane.in_flight.stored(held)
    lane.backlog.add(0)
    assert lane.owes_the_hub
    lane.backlog.dropped(1)
    assert not lane.owes_the_hub, "a message that waits only for its receipt is in custody"
