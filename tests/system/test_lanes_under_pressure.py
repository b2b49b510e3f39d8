"""Lanes at their bounds: whoever was paused is read again, the books stay right, one lane spoils no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gatewayd.flow.lane import Lane, LaneBounds
from gatewayd.message import Identity, Telemetry
from tests.flow.test_dispatch import TOPIC, Bench, Hub

SIZE = len(TOPIC.format("a")) + 10
PAYLOAD = b"0123456789"


class Reader:
    """A device whose session says something as soon as it is read again, or as soon as it has a receipt."""

    def __init__(self) -> None:
        self.receipts: list[int] = []
        self.reading = True
        self.when_read: list[Callable[[], None]] = []
        self.when_receipted: list[Callable[[], None]] = []

    def receipt(self, packet_id: int) -> None:
        self.receipts.append(packet_id)
        while self.when_receipted:
            self.when_receipted.pop(0)()

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True
        while self.reading and self.when_read:
            self.when_read.pop(0)()


def lane(bench: Bench, name: str, hub: Hub | None = None) -> tuple[Lane, Reader]:
    made, device = bench.dispatch.lane(Identity(name)), Reader()
    bench.dispatch.device_arrived(made, device)
    made.hub = hub
    return made, device


def away_and_back(bench: Bench, made: Lane, device: Reader) -> Reader:
    bench.dispatch.device_left(made, device, comes_back=True)
    back = Reader()
    bench.dispatch.device_arrived(made, back)
    return back


def test_a_device_that_comes_back_to_a_full_lane_is_read_again_when_the_hub_has_its_messages() -> None:
    bench, hub = Bench(LaneBounds(max_messages=3)), Hub()
    made, device = lane(bench, "a")
    for packet_id in (1, 2, 3):
        bench.offer(made, packet_id)
    back = away_and_back(bench, made, device)
    assert not back.reading
    made.hub = hub
    bench.dispatch.pump(made)
    bench.hub_acknowledges_all(made, hub)
    assert back.reading
    for packet_id in (1, 2, 3):
        bench.offer(made, packet_id, dup=True)
    assert back.receipts == [1, 2, 3]
    assert bench.dispatch.unreceipted == 0


def test_what_nobody_claims_makes_room_for_what_is_new() -> None:
    bench, hub = Bench(LaneBounds(max_messages=3)), Hub(window=10)
    made, device = lane(bench, "a", hub)
    hub.shut = True
    for packet_id in (1, 2, 3):
        bench.offer(made, packet_id)
    back = away_and_back(bench, made, device)
    hub.shut = False
    bench.dispatch.pump(made)
    bench.hub_acknowledges_all(made, hub)
    hub.shut = hub.opens_soon = True
    bench.offer_qos0(made, PAYLOAD)
    bench.offer(made, 11)
    bench.offer(made, 12)
    assert bench.dispatch.unreceipted == 3
    assert not back.reading


def test_messages_that_nobody_claims_do_not_fill_the_bound_of_all_for_good() -> None:
    bench, hub = Bench(LaneBounds(max_bytes_in_all=2 * SIZE)), Hub()
    gone, device = lane(bench, "a")
    for packet_id in (1, 2):
        bench.offer(gone, packet_id, PAYLOAD)
    bench.dispatch.device_left(gone, device, comes_back=True)
    other, reader = lane(bench, "b")
    bench.offer(other, 1, PAYLOAD)
    assert not reader.reading
    gone.hub = other.hub = hub
    for one in (gone, other):
        bench.dispatch.pump(one)
        bench.hub_acknowledges_all(one, hub)
    assert reader.reading


def test_a_lane_that_is_forgotten_lets_those_be_read_who_waited_for_its_room() -> None:
    bench = Bench(LaneBounds(max_bytes_in_all=4 * SIZE))
    gone, device = lane(bench, "a")
    for packet_id in (1, 2, 3, 4):
        bench.offer(gone, packet_id, PAYLOAD)
    bench.dispatch.device_left(gone, device, comes_back=True)
    other, reader = lane(bench, "b")
    bench.offer(other, 1, PAYLOAD)
    assert not reader.reading
    bench.dispatch.forget(gone.identity)
    assert reader.reading


def test_a_device_whose_messages_get_through_goes_on_beside_those_that_fill_the_bound_of_all() -> None:
    bench, hub = Bench(LaneBounds(max_bytes_in_all=2 * SIZE)), Hub()
    for name in ("stuck", "too"):
        stuck, _ = lane(bench, name)
        bench.offer(stuck, 1, PAYLOAD)
    fine, device = lane(bench, "a", hub)
    for packet_id in (1, 2, 3):
        assert device.reading
        bench.offer(fine, packet_id, PAYLOAD)
        assert not device.reading
        bench.hub_acknowledges_all(fine, hub)
    assert device.receipts == [1, 2, 3]


def test_a_device_that_is_read_again_may_make_room_for_another_at_once() -> None:
    bench, hub = Bench(LaneBounds(max_bytes_in_all=3 * SIZE)), Hub()
    first, one = lane(bench, "a")
    second, two = lane(bench, "b")
    third, three = lane(bench, "c")
    for made in (first, second, third):
        bench.offer(made, 1, PAYLOAD)
    for made in (first, second):
        bench.dispatch.offered(made, 2, Telemetry(made.identity, "t", b"", 1), dup=False)
    assert (one.reading, two.reading, three.reading) == (False, False, False)

    def fills_the_bound_and_leaves() -> None:
        bench.offer(first, 3, PAYLOAD)
        first.hub = hub
        bench.dispatch.pump(first)
        bench.hub_acknowledges_all(first, hub)

    one.when_read.append(fills_the_bound_and_leaves)
    bench.dispatch.forget(third.identity)
    assert (one.reading, two.reading) == (True, True)


def test_what_a_device_says_while_it_gets_a_receipt_is_booked_once() -> None:
    bench, hub = Bench(LaneBounds(max_bytes_in_all=2 * SIZE)), Hub(window=100)
    made, device = lane(bench, "a", hub)
    bench.offer(made, 1, PAYLOAD)
    for packet_id in range(2, 20):
        device.when_receipted.append(partial(bench.offer, made, packet_id, PAYLOAD))
        bench.dispatch.acknowledged(made, hub.unacknowledged.pop(0))
    bench.hub_acknowledges_all(made, hub)
    assert bench.dispatch.unreceipted == 0
    bench.offer(made, 90, PAYLOAD)
    assert device.reading


def test_qos_0_messages_that_wait_keep_to_the_bound_of_all() -> None:
    bench, hub = Bench(LaneBounds(max_bytes_in_all=2 * SIZE)), Hub()
    hub.shut = hub.opens_soon = True
    made, _ = lane(bench, "a", hub)
    other, _ = lane(bench, "b", hub)
    for one in (made, other, made, other):
        bench.offer_qos0(one, PAYLOAD)
    assert bench.dispatch.unreceipted == 2
    assert bench.value("messages_dropped_total", reason="qos0_no_room") == 2


def test_wider_bounds_let_the_paused_be_read() -> None:
    bench = Bench(LaneBounds(max_messages=1))
    made, device = lane(bench, "a")
    bench.offer(made, 1)
    assert not device.reading
    bench.dispatch.retune(LaneBounds(max_messages=2))
    assert device.reading
