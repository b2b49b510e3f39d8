"""Custody: what goes to disk and when, what is receipted from there, and how it comes to the hub."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from gatewayd.flow import custody as custody_module
from gatewayd.flow.custody import EXPIRE_SECONDS, Custody, CustodyPolicy
from gatewayd.flow.dispatch import Dispatch
from gatewayd.flow.lane import Lane, LaneBounds
from gatewayd.flow.storing_rules import StoringRules, TopicRule
from gatewayd.message import DropReason, Identity, Telemetry
from gatewayd.metrics import Metrics
from gatewayd.store.messages import Health
from tests.flow.test_dispatch import TOPIC, Device, Hub
from tests.support.hand_store import HandStore
from tests.support.virtual_time import VirtualTime


class Site:
    """Lanes over a store by hand, in virtual time. What custody wants done soon is done by `turn()`."""

    def __init__(self, policy: CustodyPolicy | None = None, *, answers_at_once: bool = True) -> None:
        self.registry = CollectorRegistry()
        self.time = VirtualTime(wall=1_700_000_000.0)
        self.clock = self.time.clock
        metrics = Metrics(self.registry)
        self.dispatch = Dispatch(LaneBounds(), metrics, self.clock.monotonic)
        self.store = HandStore(answers_at_once=answers_at_once)
        self.trusted = True
        self._soon: list[Callable[[], None]] = []
        self.custody = Custody(
            self.dispatch,
            self.store,
            policy or CustodyPolicy(),
            clock=self.clock,
            clock_trusted=lambda: self.trusted,
            wheel=self.time.wheel,
            soon=self._soon.append,
            metrics=metrics,
        )
        self.dispatch.custody = self.custody

    def lane(self, name: str = "dev-1", hub: Hub | None = None) -> tuple[Lane, Device]:
        lane = self.dispatch.lane(Identity(name))
        device = Device()
        self.dispatch.device_arrived(lane, device)
        lane.hub = hub
        return lane, device

    def offer(self, lane: Lane, packet_id: int, payload: bytes, bag: str = "") -> None:
        topic = TOPIC.format(lane.identity) + bag
        self.dispatch.offered(lane, packet_id, Telemetry(lane.identity, topic, payload, 1), dup=False)

    def turn(self) -> None:
        while self._soon:
            self._soon.pop(0)()

    def advance(self, seconds: float) -> None:
        self.turn()
        self.time.pass_seconds(seconds)
        self.turn()

    def acknowledge(self, lane: Lane, hub: Hub, count: int = 1) -> None:
        for _ in range(count):
            self.dispatch.acknowledged(lane, hub.unacknowledged.pop(0))

    def value(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"gatewayd_{name}", labels)
        assert value is not None, name
        return value


def test_with_the_hub_reachable_nothing_is_stored() -> None:
    site, hub = Site(), Hub()
    lane, device = site.lane(hub=hub)
    for packet_id in range(1, 200):
        site.offer(lane, packet_id, b"x")
        site.advance(0.1)
        site.acknowledge(lane, hub)
    site.advance(60.0)
    assert len(device.receipts) == 199
    assert site.store.appends == 0


def test_a_message_that_waited_for_spill_after_is_stored_and_receipted_from_there() -> None:
    site = Site()
    lane, device = site.lane()
    site.offer(lane, 7, b"x")
    site.advance(4.9)
    assert not device.receipts
    site.advance(0.7)
    assert device.receipts == [7]
    assert site.store.payloads == [b"x"]
    assert site.value("messages_total", direction="device_to_cloud", stage="stored") == 1


def test_no_receipt_comes_before_the_store_has_answered() -> None:
    site = Site(answers_at_once=False)
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    site.offer(lane, 7, b"x")
    site.advance(60.0)
    assert not device.receipts
    site.store.answer()
    assert device.receipts == [7]


def test_while_the_hub_session_is_down_a_message_is_stored_at_once() -> None:
    site = Site()
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    site.offer(lane, 1, b"a")
    site.offer(lane, 2, b"b")
    site.turn()
    assert device.receipts == [1, 2]
    assert site.store.appends == 1  # one for the turn of the loop


def test_what_was_waiting_when_the_hub_session_went_down_is_stored_then() -> None:
    site, hub = Site(), Hub(window=1)
    lane, device = site.lane(hub=hub)
    site.offer(lane, 1, b"sent")
    site.offer(lane, 2, b"waits")
    hub.shut = True
    site.dispatch.hub_went_down(lane)
    site.turn()
    assert device.receipts == [1, 2]
    assert site.store.payloads == [b"sent", b"waits"]


def test_a_message_that_was_sent_and_stored_is_settled_by_the_hubs_acknowledgement_and_not_sent_twice() -> (
    None
):
    site, hub = Site(), Hub()
    lane, device = site.lane(hub=hub)
    site.offer(lane, 1, b"x")
    site.advance(6.0)
    assert device.receipts == [1]
    assert site.store.leased
    site.acknowledge(lane, hub)
    assert not site.store.kept
    site.dispatch.hub_opened(lane)
    site.advance(1.0)
    assert hub.carried == [b"x"]


def test_a_message_the_hub_acknowledged_while_it_was_being_stored_is_settled_as_soon_as_it_is() -> None:
    site, hub = Site(answers_at_once=False), Hub()
    lane, device = site.lane(hub=hub)
    site.offer(lane, 1, b"x")
    site.advance(6.0)
    site.acknowledge(lane, hub)
    assert device.receipts == [1]
    site.store.answer()
    assert not site.store.kept
    assert lane.backlog.is_empty
    assert device.receipts == [1]


def test_the_backlog_goes_before_what_is_new() -> None:
    site = Site()
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    for number in range(40):
        site.offer(lane, number + 1, b"old %d" % number)
    site.turn()
    hub = Hub()
    lane.hub = hub
    site.offer(lane, 100, b"new")
    site.dispatch.hub_opened(lane)
    for _ in range(60):
        site.advance(0.5)
        site.acknowledge(lane, hub, len(hub.unacknowledged))
    assert hub.carried == [b"old %d" % number for number in range(40)] + [b"new"]
    assert not site.store.kept
    assert device.receipts == [*range(1, 41), 100]


def test_a_message_of_a_higher_priority_overtakes_a_backlog_and_an_equal_one_does_not() -> None:
    rules = StoringRules((TopicRule("*level=alarm*", 5),))
    site, hub = Site(CustodyPolicy(rules=rules)), Hub(window=1)
    lane, _ = site.lane()
    site.dispatch.hub_went_down(lane)
    for number in range(3):
        site.offer(lane, number + 1, b"old %d" % number)
    site.offer(lane, 4, b"old alarm", "level=alarm")
    site.turn()
    lane.hub = hub
    site.offer(lane, 5, b"new")
    site.dispatch.hub_opened(lane)
    for _ in range(10):
        site.advance(0.5)
        site.acknowledge(lane, hub, len(hub.unacknowledged))
    assert hub.carried == [b"old alarm", b"old 0", b"old 1", b"old 2", b"new"]

    hub.shut = True
    site.dispatch.hub_went_down(lane)
    site.offer(lane, 6, b"old again")
    site.turn()
    site.dispatch.hub_opened(lane)
    site.offer(lane, 7, b"new alarm", "level=alarm")
    hub.shut = False
    site.dispatch.pump(lane)
    assert hub.carried[5] == b"new alarm"


def test_what_the_hub_session_forgot_is_stored_again_and_goes_first() -> None:
    site, hub = Site(), Hub()
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    for number in range(6):
        site.offer(lane, number + 1, b"%d" % number)
    site.turn()
    lane.hub = hub
    site.dispatch.hub_opened(lane)
    site.advance(1.0)
    assert hub.carried == [b"0", b"1", b"2", b"3"]
    site.acknowledge(lane, hub)
    site.dispatch.hub_forgot(lane)
    assert not site.store.leased
    again = Hub(window=16)
    lane.hub = again
    site.dispatch.hub_opened(lane)
    site.advance(1.0)
    assert again.carried == [b"1", b"2", b"3", b"4", b"5"]
    assert device.receipts == [1, 2, 3, 4, 5, 6]


def test_a_lease_that_comes_when_the_hub_session_is_gone_goes_back() -> None:
    site = Site(answers_at_once=False)
    lane, _ = site.lane()
    site.dispatch.hub_went_down(lane)
    site.offer(lane, 1, b"x")
    site.turn()
    site.store.answer()
    lane.hub = hub = Hub()
    site.dispatch.hub_opened(lane)  # asks for a lease
    site.dispatch.hub_went_down(lane)
    site.store.answer()
    assert not site.store.leased
    site.dispatch.hub_opened(lane)
    site.store.answer()
    site.advance(1.0)
    assert hub.carried == [b"x"]


@pytest.mark.parametrize("health", [Health.AT_BOUND, Health.DISK_FULL, Health.FAILING])
def test_what_the_store_refuses_stays_with_the_device_and_is_tried_again(health: Health) -> None:
    site = Site()
    lane, device = site.lane()
    other, _ = site.lane("dev-2")
    for one in (lane, other):
        site.dispatch.hub_went_down(one)
    site.store.health = health
    site.offer(lane, 1, b"x")
    site.offer(other, 1, b"y")
    site.advance(10.0)
    assert not device.receipts
    assert 10 <= site.store.appends <= 25  # one lane's a look, not one a device
    site.store.health = Health.OK
    site.advance(2.0)
    assert device.receipts == [1]
    assert sorted(site.store.payloads) == [b"x", b"y"]


def test_a_message_the_store_refused_goes_to_the_hub_when_it_is_back() -> None:
    site, hub = Site(), Hub()
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    site.store.health = Health.DISK_FULL
    site.offer(lane, 1, b"x")
    site.advance(3.0)
    lane.hub = hub
    site.dispatch.hub_opened(lane)
    site.acknowledge(lane, hub)
    assert device.receipts == [1]
    assert not site.store.kept


def test_drain_keeps_to_the_pace_and_devices_take_turns() -> None:
    site = Site(CustodyPolicy(sends_per_second=100))
    lanes = []
    for number in range(5):
        lane, _ = site.lane(f"dev-{number}")
        site.dispatch.hub_went_down(lane)
        for packet_id in range(1, 61):
            site.offer(lane, packet_id, b"%d" % packet_id)
        lanes.append(lane)
    site.turn()
    assert len(site.store.kept) == 300
    sent: list[tuple[float, str]] = []

    class Free(Hub):
        def __init__(self, name: str) -> None:
            super().__init__(window=1000)
            self.name = name

        def publish(self, message: Telemetry) -> int:
            sent.append((site.clock.monotonic(), self.name))
            return super().publish(message)

    hubs = [Free(str(lane.identity)) for lane in lanes]
    for lane, hub in zip(lanes, hubs, strict=True):
        lane.hub = hub
        site.dispatch.hub_opened(lane)
    while len(sent) < 300:
        site.advance(0.01)
        for lane, hub in zip(lanes, hubs, strict=True):
            site.acknowledge(lane, hub, len(hub.unacknowledged))
    times = [at for at, _ in sent]
    assert max(sum(1 for other in times if at <= other < at + 1.0) for at in times) <= 100
    assert times[-1] - times[0] < 3.6
    first = [name for _, name in sent[:50]]
    assert all(first.count(str(lane.identity)) == 10 for lane in lanes)
    assert not site.store.kept


def test_a_hub_session_that_stands_still_with_much_leased_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(custody_module, "LEASED_BYTES", 100)
    site = Site(CustodyPolicy(sends_per_second=10_000))
    stuck, _ = site.lane("stuck")
    well, _ = site.lane("well")
    for lane in (stuck, well):
        site.dispatch.hub_went_down(lane)
        for packet_id in range(1, 9):
            site.offer(lane, packet_id, b"x" * 50)
    site.turn()
    stuck.hub, well.hub = Hub(window=8), Hub(window=8)
    site.dispatch.hub_opened(stuck)
    site.advance(1.0)
    assert len(stuck.hub.carried) == 8
    site.dispatch.hub_opened(well)
    for _ in range(20):
        site.advance(0.1)
        site.acknowledge(well, well.hub, len(well.hub.unacknowledged))
    assert len(well.hub.carried) == 8
    assert set(site.store.leases[-8:]) <= {0, 1}  # one at a time, near the bound


def test_what_an_earlier_run_left_drains_without_a_device() -> None:
    earlier = Site()
    lane, _ = earlier.lane()
    earlier.dispatch.hub_went_down(lane)
    earlier.offer(lane, 1, b"x")
    earlier.turn()
    site = Site()
    site.store.kept = earlier.store.kept
    site.custody.restore(lane.identity, 1, 0)
    restored = site.dispatch.lane(lane.identity)
    assert restored.owes_the_hub
    restored.hub = hub = Hub()
    site.dispatch.hub_opened(restored)
    site.advance(1.0)
    site.acknowledge(restored, hub)
    assert hub.carried == [b"x"]
    assert not restored.owes_the_hub


def test_a_drop_of_the_store_is_counted_and_lets_new_messages_pass() -> None:
    site, hub = Site(), Hub()
    lane, _ = site.lane()
    site.dispatch.hub_went_down(lane)
    site.offer(lane, 1, b"old")
    site.turn()
    site.store.kept.clear()
    site.custody.dropped(lane.identity, 1, 3, DropReason.TTL)
    assert site.value("messages_dropped_total", reason="ttl") == 1
    lane.hub = hub
    site.dispatch.hub_opened(lane)
    site.offer(lane, 2, b"new")
    assert hub.carried == [b"new"]


def test_a_backlog_that_the_store_does_not_have_any_more_holds_nothing_back() -> None:
    site, hub = Site(), Hub()
    lane, _ = site.lane()
    site.custody.restore(lane.identity, 5, 0)
    lane.hub = hub
    site.dispatch.hub_opened(lane)
    site.offer(lane, 1, b"new")
    assert hub.carried == [b"new"]
    assert site.store.leases == [0]


def test_time_to_live_counts_from_the_receipt_of_the_message_on_the_wall_clock() -> None:
    rules = StoringRules((TopicRule("*short*", 0, 60.0),), ttl=600.0)
    site = Site(CustodyPolicy(rules=rules))
    lane, _ = site.lane()
    came = site.clock.wall()
    site.offer(lane, 1, b"a", "short")
    site.offer(lane, 2, b"b")
    site.advance(6.0)
    first, second = site.store.kept.values()
    assert first.received_at == pytest.approx(came)
    assert first.expires_at == pytest.approx(came + 60.0)
    assert second.expires_at == pytest.approx(came + 600.0)


def test_nothing_expires_by_a_clock_that_is_known_wrong() -> None:
    site = Site()
    site.trusted = False
    site.custody.tick()
    assert not site.store.expired_at
    site.trusted = True
    for _ in range(int(EXPIRE_SECONDS) + 2):
        site.advance(1.0)
        site.custody.tick()
    assert len(site.store.expired_at) == 2


def test_qos_0_is_stored_while_the_hub_is_away_only_where_that_is_asked_for() -> None:
    for asked in (False, True):
        site = Site(CustodyPolicy(store_qos0=asked))
        lane, device = site.lane()
        site.dispatch.hub_went_down(lane)
        message = Telemetry(lane.identity, TOPIC.format(lane.identity), b"x", 0)
        site.dispatch.offered_qos0(lane, message)
        site.turn()
        assert site.store.payloads == ([b"x"] if asked else [])
        assert site.value("messages_dropped_total", reason="qos0_no_room") == (not asked)
        assert not device.receipts
        assert not len(lane.in_flight)
    lane.hub = hub = Hub()
    site.dispatch.hub_opened(lane)
    site.advance(1.0)
    assert hub.carried == [b"x"]
    assert not site.store.kept


def test_a_will_comes_into_custody_though_nobody_waits_for_a_receipt() -> None:
    site = Site()
    lane, device = site.lane()
    site.dispatch.device_left(lane, device, comes_back=True)
    site.dispatch.said_for(lane, Telemetry(lane.identity, TOPIC.format(lane.identity), b"gone", 1))
    site.advance(6.0)
    assert site.store.payloads == [b"gone"]
    assert not len(lane.in_flight)
    assert site.value("messages_unreceipted") == 0


def test_a_stop_stores_what_the_hub_has_not_taken() -> None:
    site, hub = Site(), Hub(window=1)
    lane, device = site.lane(hub=hub)
    for packet_id in (1, 2, 3):
        site.offer(lane, packet_id, b"%d" % packet_id)
    site.custody.spill_all()
    assert device.receipts == [1, 2, 3]
    assert site.store.payloads == [b"1", b"2", b"3"]


def test_a_device_that_left_before_its_receipt_claims_a_stored_message_when_it_is_back() -> None:
    site = Site()
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    site.offer(lane, 9, b"x")
    site.dispatch.device_left(lane, device, comes_back=True)
    site.turn()
    back = Device()
    site.dispatch.device_arrived(lane, back)
    message = Telemetry(lane.identity, TOPIC.format(lane.identity), b"x", 1)
    site.dispatch.offered(lane, 9, message, dup=True)
    assert back.receipts == [9]
    assert site.store.payloads == [b"x"]


def test_memory_of_a_lane_is_free_again_once_its_messages_are_stored() -> None:
    site = Site()
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    for packet_id in range(1, 1001):
        site.offer(lane, packet_id, b"x" * 1000)
        site.turn()
    assert lane.in_flight.held_bytes == 0
    assert device.reading
    assert device.pauses == 0


def test_what_cannot_be_read_now_still_goes_before_what_is_new() -> None:
    site, hub = Site(), Hub(window=100)
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    site.offer(lane, 1, b"stored")
    site.turn()
    assert device.receipts == [1]
    site.store.health = Health.FAILING
    lane.hub = hub
    site.dispatch.hub_opened(lane)
    site.offer(lane, 2, b"new")
    site.advance(60.0)
    assert hub.carried == []
    assert device.receipts == [1]
    site.store.health = Health.OK
    site.custody.store_is_well()
    site.advance(1.0)
    site.acknowledge(lane, hub, len(hub.unacknowledged))
    site.advance(10.0)
    assert hub.carried == [b"stored", b"new"]


def test_what_came_later_is_not_stored_when_the_outbox_refuses_what_came_before_it() -> None:
    site = Site(answers_at_once=False)
    lane, device = site.lane()
    lane.hub = hub = Hub()
    hub.shut = True
    site.dispatch.hub_went_down(lane)
    site.offer(lane, 1, b"first")
    site.turn()
    site.offer(lane, 2, b"second")
    site.turn()
    site.store.health = Health.DISK_FULL
    site.store.answer_one()
    site.store.health = Health.OK
    site.store.answer()
    site.advance(1.0)
    site.store.answer()
    assert device.receipts == [1, 2]
    assert site.store.payloads == [b"first", b"second"]


def test_what_came_while_the_outbox_wrote_is_stored_right_after_it() -> None:
    site = Site(answers_at_once=False)
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    for packet_id in (1, 2, 3):
        site.offer(lane, packet_id, b"%d" % packet_id)
        site.turn()
    assert site.store.appends == 1
    site.store.answer()
    site.turn()
    site.store.answer()
    assert device.receipts == [1, 2, 3]
    assert site.store.appends == 2


def test_a_stop_stores_what_came_while_the_outbox_wrote() -> None:
    site = Site(answers_at_once=False)
    lane, device = site.lane()
    site.offer(lane, 1, b"x")
    site.custody.spill_all()
    site.offer(lane, 2, b"y")
    site.store.answer()
    site.turn()
    site.store.answer()
    assert device.receipts == [1, 2]


def test_an_answer_of_the_outbox_that_comes_late_takes_no_lane_from_a_device_that_is_back() -> None:
    site, hub = Site(answers_at_once=False), Hub()
    lane, device = site.lane(hub=hub)
    site.offer(lane, 1, b"x")
    site.advance(6.0)
    site.acknowledge(lane, hub)
    site.dispatch.device_left(lane, device, comes_back=False)
    site.dispatch.hub_forgot(lane)
    site.dispatch.forget(lane.identity)
    again, _ = site.lane()
    assert again is not lane
    site.store.answer()
    assert site.dispatch.lane(lane.identity) is again
    assert not site.store.kept


def test_a_device_that_is_read_again_as_its_messages_are_stored_does_not_overtake_them() -> None:
    site, hub = Site(answers_at_once=False), Hub()
    site.dispatch.retune(LaneBounds(max_messages=1))
    lane, _ = site.lane()

    class Eager(Device):
        def resume_reading(self) -> None:
            super().resume_reading()
            if 2 not in self.receipts:
                site.offer(lane, 2, b"second")

    device = Eager()
    site.dispatch.device_arrived(lane, device)
    site.dispatch.device_left(lane, device, comes_back=True)
    site.dispatch.said_for(lane, Telemetry(lane.identity, TOPIC.format(lane.identity), b"first", 1))
    site.dispatch.device_arrived(lane, device)
    assert not device.reading
    site.advance(6.0)
    lane.hub = hub
    site.dispatch.hub_opened(lane)
    while hub.carried != [b"first", b"second"]:
        assert hub.carried in ([], [b"first"])
        site.store.answer()
        site.advance(1.0)
        site.acknowledge(lane, hub, len(hub.unacknowledged))


def test_what_was_leased_before_older_messages_were_given_back_does_not_overtake_them() -> None:
    site = Site(answers_at_once=False)
    lane, _ = site.lane()
    site.dispatch.hub_went_down(lane)
    for packet_id in (1, 2, 3):
        site.offer(lane, packet_id, b"%d" % packet_id)
        site.turn()
        site.store.answer()
    lane.hub = hub = Hub()
    site.store.most_leased = 1
    site.dispatch.hub_opened(lane)
    site.store.answer_one()
    site.advance(0.1)
    assert hub.carried == [b"1"]
    site.store.do_one()  # 2 is leased, and the loop does not know it yet
    site.dispatch.hub_forgot(lane)
    lane.hub = again = Hub()
    site.dispatch.hub_opened(lane)
    for _ in range(10):
        site.store.answer()
        site.advance(1.0)
        site.acknowledge(lane, again, len(again.unacknowledged))
    assert again.carried == [b"1", b"2", b"3"]
    assert not site.store.kept


def test_a_message_that_the_hub_took_while_the_outbox_refused_it_is_not_looked_at_for_ever() -> None:
    site, hub = Site(answers_at_once=False), Hub()
    lane, _ = site.lane(hub=hub)
    site.offer(lane, 1, b"x")
    site.advance(6.0)
    site.acknowledge(lane, hub)
    site.advance(1.0)
    site.store.health = Health.DISK_FULL
    site.store.answer()
    assert not site.custody._waiting


def test_a_device_whose_alarm_is_at_the_hub_takes_turns_with_the_others_again() -> None:
    rules = StoringRules((TopicRule("*level=alarm*", 5),))
    site = Site(CustodyPolicy(rules=rules, sends_per_second=100))
    alarmed, _ = site.lane("alarmed")
    other, _ = site.lane("other")
    for lane in (alarmed, other):
        site.dispatch.hub_went_down(lane)
        for packet_id in range(1, 61):
            site.offer(lane, packet_id, b"%d" % packet_id)
    site.offer(alarmed, 61, b"alarm", "level=alarm")
    site.turn()
    alarmed.hub, other.hub = Hub(window=1000), Hub(window=1000)
    for lane in (alarmed, other):
        site.dispatch.hub_opened(lane)
    for _ in range(20):
        site.advance(0.02)
        for lane in (alarmed, other):
            assert isinstance(lane.hub, Hub)
            site.acknowledge(lane, lane.hub, len(lane.hub.unacknowledged))
    assert alarmed.hub.carried[0] == b"alarm"
    assert len(other.hub.carried) >= len(alarmed.hub.carried) - 2 > 5


def test_an_alarm_passes_what_is_stored_of_lower_priority_once_earlier_alarms_are_at_the_hub() -> None:
    rules = StoringRules((TopicRule("*level=alarm*", 5), TopicRule("*level=warning*", 3)))
    site, hub = Site(CustodyPolicy(rules=rules)), Hub(window=1)
    lane, _ = site.lane()
    site.dispatch.hub_went_down(lane)
    for packet_id in range(1, 6):
        site.offer(lane, packet_id, b"old")
    site.offer(lane, 6, b"alarm", "level=alarm")
    site.turn()
    lane.hub = hub
    site.dispatch.hub_opened(lane)
    site.advance(1.0)
    site.acknowledge(lane, hub)
    assert hub.carried[0] == b"alarm"
    hub.shut = True
    site.advance(1.0)
    site.offer(lane, 7, b"warning", "level=warning")
    hub.shut = False
    site.acknowledge(lane, hub, len(hub.unacknowledged))
    assert hub.carried[-1] == b"warning"


def test_a_shorter_spill_after_holds_for_what_waits_already() -> None:
    site = Site(CustodyPolicy(spill_after=3600.0))
    lane, device = site.lane()
    site.offer(lane, 1, b"x")
    site.advance(10.0)
    site.custody.retune(CustodyPolicy(spill_after=5.0))
    site.advance(1.0)
    assert device.receipts == [1]


def test_a_message_stored_by_a_clock_that_is_known_wrong_has_no_end() -> None:
    site = Site(CustodyPolicy(rules=StoringRules(ttl=600.0)))
    site.trusted = False
    lane, _ = site.lane()
    site.offer(lane, 1, b"a")
    site.advance(6.0)
    (stored,) = site.store.kept.values()
    assert stored.expires_at is None


def test_a_drop_makes_no_lane_for_a_device_that_has_none() -> None:
    site = Site()
    site.custody.dropped(Identity("stranger"), 3, 100, DropReason.CAPACITY)
    assert not list(site.dispatch)
    assert site.value("messages_dropped_total", reason="capacity") == 3


def test_wills_of_a_device_that_comes_and_goes_are_bounded_while_hub_and_outbox_refuse() -> None:
    site = Site()
    site.store.health = Health.DISK_FULL
    lane, device = site.lane()
    site.dispatch.hub_went_down(lane)
    for number in range(1000):
        device = Device()
        site.dispatch.device_arrived(lane, device)
        site.dispatch.device_left(lane, device, comes_back=True)
        will = Telemetry(lane.identity, TOPIC.format(lane.identity), b"gone %d" % number, 1)
        site.dispatch.said_for(lane, will)
    assert len(lane.in_flight) == LaneBounds().max_messages
    assert site.value("messages_dropped_total", reason="will_said") == 1000 - LaneBounds().max_messages


def test_a_store_that_is_closed_is_asked_for_nothing_more() -> None:
    site = Site()
    lane, device = site.lane()
    site.offer(lane, 1, b"x")
    site.store.health = Health.CLOSED
    site.advance(30.0)
    assert site.store.appends == 0
    assert not device.receipts
