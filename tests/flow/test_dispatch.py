"""Lanes: from what a device offered to what the hub session carries, and receipts back."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from gatewayd.clock import ManualClock
from gatewayd.flow.dispatch import Dispatch
from gatewayd.flow.lane import Lane, LaneBounds
from gatewayd.message import Identity, Telemetry
from gatewayd.metrics import Metrics

TOPIC = "devices/{}/messages/events/"


class Hub:
    """A hub session with a window, which can be shut as a handover does."""

    def __init__(self, window: int = 4) -> None:
        self.window = window
        self.shut = False
        self.opens_soon = False
        self.carried: list[bytes] = []
        self.unacknowledged: list[int] = []

    @property
    def can_publish(self) -> bool:
        return not self.shut and len(self.unacknowledged) < self.window

    def publish(self, message: Telemetry) -> int:
        assert self.can_publish
        self.carried.append(message.payload)
        if message.qos == 0:
            return 0
        self.unacknowledged.append(len(self.carried))
        return len(self.carried)


class Device:
    """A device session that notes what it is told."""

    def __init__(self) -> None:
        self.receipts: list[int] = []
        self.reading = True
        self.pauses = 0

    def receipt(self, packet_id: int) -> None:
        self.receipts.append(packet_id)

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False
        self.pauses += 1

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class Bench:
    """A dispatch with lanes of real ledgers."""

    def __init__(self, bounds: LaneBounds | None = None) -> None:
        self.registry = CollectorRegistry()
        self.clock = ManualClock()
        self.dispatch = Dispatch(bounds or LaneBounds(), Metrics(self.registry), self.clock.monotonic)

    def lane(self, name: str, hub: Hub | None = None) -> tuple[Lane, Device]:
        lane = self.dispatch.lane(Identity(name))
        device = Device()
        self.dispatch.device_arrived(lane, device)
        lane.hub = hub
        return lane, device

    def offer(self, lane: Lane, packet_id: int, payload: bytes = b"x", *, dup: bool = False) -> None:
        message = Telemetry(lane.identity, TOPIC.format(lane.identity), payload, 1)
        self.dispatch.offered(lane, packet_id, message, dup=dup)

    def offer_qos0(self, lane: Lane, payload: bytes) -> None:
        self.dispatch.offered_qos0(lane, Telemetry(lane.identity, TOPIC.format(lane.identity), payload, 0))

    def hub_acknowledges_all(self, lane: Lane, hub: Hub) -> None:
        while hub.unacknowledged:
            self.dispatch.acknowledged(lane, hub.unacknowledged.pop(0))

    def value(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"gatewayd_{name}", labels)
        assert value is not None, name
        return value

    def stage(self, stage: str) -> float:
        return self.value("messages_total", direction="device_to_cloud", stage=stage)


def test_a_message_goes_to_the_hub_and_is_receipted_when_the_hub_has_it() -> None:
    bench, hub = Bench(), Hub()
    lane, device = bench.lane("d", hub)
    bench.offer(lane, 1, b"hello")
    assert (hub.carried, device.receipts) == ([b"hello"], [])
    bench.clock.advance(0.25)
    bench.hub_acknowledges_all(lane, hub)
    assert device.receipts == [1]
    assert bench.value("message_latency_seconds_sum") == 0.25


def test_the_window_is_kept_and_refilled_in_order() -> None:
    bench, hub = Bench(), Hub(window=2)
    lane, device = bench.lane("d", hub)
    for packet_id in range(1, 6):
        bench.offer(lane, packet_id, b"%d" % packet_id)
    assert hub.carried == [b"1", b"2"]
    bench.hub_acknowledges_all(lane, hub)
    assert hub.carried == [b"1", b"2", b"3", b"4", b"5"]
    assert device.receipts == [1, 2, 3, 4, 5]


def test_messages_wait_while_a_handover_holds_and_go_when_it_is_over() -> None:
    bench, hub = Bench(), Hub()
    lane, _ = bench.lane("d", hub)
    hub.shut = True
    bench.offer(lane, 1)
    assert hub.carried == []
    hub.shut = False
    bench.dispatch.pump(lane)
    assert hub.carried == [b"x"]


def test_a_device_at_its_bound_is_not_read_until_there_is_room() -> None:
    bench, hub = Bench(LaneBounds(max_messages=3)), Hub()
    lane, device = bench.lane("d", hub)
    hub.shut = True
    for packet_id in (1, 2, 3):
        assert device.reading
        bench.offer(lane, packet_id)
    assert not device.reading
    assert bench.value("read_pauses_total") == 1
    hub.shut = False
    bench.dispatch.pump(lane)
    bench.hub_acknowledges_all(lane, hub)
    assert device.reading


def test_the_bound_of_all_together_stops_the_one_who_reaches_it_and_opens_for_all() -> None:
    size = len(TOPIC.format("a")) + 10
    bench, hub = Bench(LaneBounds(max_bytes_in_all=2 * size)), Hub()
    first, first_device = bench.lane("a", hub)
    second, second_device = bench.lane("b")
    bench.offer(first, 1, b"0123456789")
    bench.offer(second, 1, b"0123456789")
    assert (first_device.reading, second_device.reading) == (True, False)
    bench.hub_acknowledges_all(first, hub)
    assert second_device.reading


def test_a_full_device_disturbs_no_other() -> None:
    bench, hub = Bench(LaneBounds(max_messages=1)), Hub()
    stuck, stuck_device = bench.lane("stuck")
    bench.offer(stuck, 1)
    fine, fine_device = bench.lane("fine", hub)
    bench.offer(fine, 1)
    bench.hub_acknowledges_all(fine, hub)
    assert (stuck_device.reading, fine_device.reading, fine_device.receipts) == (False, True, [1])


def test_a_qos_0_message_is_carried_when_there_is_room_and_counted_as_dropped_when_not() -> None:
    bench, hub = Bench(), Hub()
    lane, _ = bench.lane("d", hub)
    bench.offer_qos0(lane, b"carried")
    lane.hub = None
    bench.offer_qos0(lane, b"dropped")
    assert hub.carried == [b"carried"]
    assert bench.value("messages_dropped_total", reason="qos0_no_room") == 1
    assert bench.dispatch.unreceipted == 0


def test_a_qos_0_message_waits_out_a_handover_in_its_place() -> None:
    bench, hub = Bench(), Hub()
    lane, _ = bench.lane("d", hub)
    hub.shut = hub.opens_soon = True
    bench.offer(lane, 1, b"one")
    bench.offer_qos0(lane, b"two")
    bench.offer(lane, 2, b"three")
    hub.shut = False
    bench.dispatch.pump(lane)
    assert hub.carried == [b"one", b"two", b"three"]


def test_a_hub_session_that_is_gone_for_good_leaves_the_messages_to_the_next_one() -> None:
    bench, first, second = Bench(), Hub(), Hub()
    lane, device = bench.lane("d", first)
    bench.offer(lane, 1, b"again")
    bench.dispatch.hub_forgot(lane)
    lane.hub = second
    bench.dispatch.pump(lane)
    bench.hub_acknowledges_all(lane, second)
    assert (second.carried, device.receipts) == ([b"again"], [1])


def test_a_device_that_took_over_is_not_thrown_out_by_the_leave_of_the_older() -> None:
    bench, hub = Bench(), Hub()
    lane, older = bench.lane("d", hub)
    newer = Device()
    bench.dispatch.device_arrived(lane, newer)
    bench.dispatch.device_left(lane, older, comes_back=True)
    bench.offer(lane, 1)
    bench.hub_acknowledges_all(lane, hub)
    assert newer.receipts == [1]


def test_received_equals_receipted_plus_held() -> None:
    bench, hub = Bench(), Hub(window=3)
    lane, _ = bench.lane("d", hub)
    for packet_id in range(1, 8):
        bench.offer(lane, packet_id)
    bench.dispatch.acknowledged(lane, hub.unacknowledged.pop(0))
    assert bench.stage("received") == bench.stage("receipted") + bench.dispatch.unreceipted == 7
    assert bench.value("messages_unreceipted") == 6


def test_forgetting_a_lane_gives_its_room_back() -> None:
    bench = Bench(LaneBounds(max_bytes_in_all=1))
    lane, device = bench.lane("a")
    bench.offer(lane, 1)
    assert not device.reading
    bench.dispatch.forget(lane.identity)
    other, other_device = bench.lane("b", Hub())
    bench.dispatch.device_arrived(other, other_device)
    assert other_device.reading
    assert bench.dispatch.unreceipted == 0


def test_a_device_that_comes_and_goes_at_its_bound_adds_nothing_as_its_connections_end() -> None:
    bench = Bench(LaneBounds(max_messages=3))
    lane, device = bench.lane("d")
    for packet_id in range(1, 100):
        bench.offer(lane, packet_id)
        if not device.reading:
            bench.offer(lane, packet_id + 1000)  # it was read with the one before, and is told at the end
            bench.dispatch.device_left(lane, device, comes_back=False)
            device = Device()
            bench.dispatch.device_arrived(lane, device)
    assert len(lane.in_flight) == 3
    assert bench.stage("received") == 3
