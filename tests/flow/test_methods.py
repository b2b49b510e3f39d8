"""The desk for direct methods, in virtual time and without sockets."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from gatewayd.clock import RELEASE_EPOCH_SECONDS
from gatewayd.flow import methods
from gatewayd.flow.methods import CALL_SECONDS, MAX_CALLS, METHODS_FILTER, Methods
from gatewayd.flow.ways import Reach
from gatewayd.message import Identity
from gatewayd.metrics import METHOD_RESULTS, Metrics
from gatewayd.protocol.iothub.operations import Topic, parse_from_device, parse_from_hub
from tests.support.virtual_time import VirtualTime
from tests.support.way_rig import RecordedWays

DEVICE = Identity("press-1")
NOISE = b'{"secret":"squirrel"}'


@dataclass(frozen=True)
class FromHub:
    topic: str
    payload: bytes
    qos: int = 0
    dup: bool = False


class Bench:
    """The desk over recorded ways, told what a hub and a device say by the topics they would say it on."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.time = VirtualTime(float(RELEASE_EPOCH_SECONDS))
        self.ways = RecordedWays(filters={METHODS_FILTER})
        self.desk = Methods(self.ways, self.time.clock, self.time.wheel, Metrics(self.registry))
        self.calls = 0

    def call(self, rid: str, payload: bytes = b"null", *, qos: int = 0, dup: bool = False) -> None:
        publish = FromHub(f"$iothub/methods/POST/reboot/?$rid={rid}", payload, qos, dup)
        topic = parse_from_hub(DEVICE, publish.topic)
        assert isinstance(topic, Topic)
        self.calls += 1
        self.desk.called(DEVICE, topic, publish)

    def reply(self, rid: str, status: int = 200, payload: bytes = b"{}") -> None:
        topic = parse_from_device(DEVICE, f"$iothub/methods/res/{status}/?$rid={rid}")
        assert isinstance(topic, Topic)
        self.desk.replied(DEVICE, topic, payload)

    def go(self, reach: Reach) -> None:
        self.ways.hub = reach
        if reach is Reach.UP:
            self.desk.hub_up(DEVICE)
        elif reach is Reach.DOWN:
            self.desk.hub_down(DEVICE)

    def results(self) -> dict[str, int]:
        found = {
            result: self.registry.get_sample_value("gatewayd_method_calls_total", {"result": result})
            for result in METHOD_RESULTS
        }
        return {result: int(count) for result, count in found.items() if count}

    def dropped(self, reason: str) -> float | None:
        return self.registry.get_sample_value("gatewayd_messages_dropped_total", {"reason": reason})


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_call_reaches_the_device_as_the_hub_sent_it_and_the_reply_the_hub(bench: Bench) -> None:
    bench.call("1f", b'{"delay":3}', qos=1)
    assert bench.ways.said_to_device == [("$iothub/methods/POST/reboot/?$rid=1f", b'{"delay":3}')]
    assert bench.ways.qos_to_device == [1]
    bench.reply("1f", 207, b'{"done":true}')
    assert bench.ways.said_to_hub == [("$iothub/methods/res/207/?$rid=1f", b'{"done":true}')]
    assert bench.results() == {"replied": 1}


def test_several_calls_at_once_are_answered_in_the_devices_order(bench: Bench) -> None:
    for rid in ("1", "2", "3"):
        bench.call(rid)
    for rid in ("3", "1", "2"):
        bench.reply(rid, payload=rid.encode())
    assert bench.ways.said_to_hub == [
        (f"$iothub/methods/res/200/?$rid={rid}", rid.encode()) for rid in ("3", "1", "2")
    ]


def test_a_call_for_a_device_that_is_not_subscribed_is_dropped_and_counted(bench: Bench) -> None:
    bench.ways.filters.clear()
    bench.call("1")
    assert bench.ways.said_to_hub == []
    assert bench.results() == {"no_device": 1}
    bench.reply("1")
    assert bench.dropped("method_reply_late") == 1


def test_a_reply_nobody_asked_for_is_dropped_as_late(bench: Bench) -> None:
    bench.reply("77")
    assert bench.ways.said_to_hub == []
    assert bench.dropped("method_reply_late") == 1
    assert bench.results() == {}


def test_a_reply_after_the_longest_timeout_of_the_hub_is_late(bench: Bench) -> None:
    bench.call("1")
    bench.time.pass_seconds(CALL_SECONDS)
    assert bench.results() == {"expired": 1}
    bench.reply("1")
    assert bench.ways.said_to_hub == []
    assert bench.dropped("method_reply_late") == 1


def test_a_reply_in_the_last_second_is_in_time(bench: Bench) -> None:
    bench.call("1")
    bench.time.pass_seconds(CALL_SECONDS - 1)
    bench.reply("1")
    assert len(bench.ways.said_to_hub) == 1


def test_replies_during_a_handover_wait_and_go_in_order_when_it_is_done(bench: Bench) -> None:
    for rid in ("1", "2"):
        bench.call(rid)
    bench.go(Reach.OPENING)
    bench.reply("2")
    bench.reply("1")
    assert bench.ways.said_to_hub == []
    bench.go(Reach.UP)
    assert [topic[-1] for topic, _ in bench.ways.said_to_hub] == ["2", "1"]
    assert bench.results() == {"replied": 2}


def test_replies_that_the_hub_session_cannot_take_go_when_it_is_writable_and_none_overtakes(
    bench: Bench,
) -> None:
    for rid in ("1", "2"):
        bench.call(rid)
    bench.ways.takes = False
    bench.reply("1")
    bench.ways.takes = True
    bench.reply("2")
    assert bench.ways.said_to_hub == []
    bench.desk.hub_writable(DEVICE)
    assert [topic[-1] for topic, _ in bench.ways.said_to_hub] == ["1", "2"]


def test_a_flush_that_is_cut_short_keeps_the_rest_in_order(bench: Bench) -> None:
    bench.ways.takes = False
    for rid in ("1", "2"):
        bench.call(rid)
        bench.reply(rid)
    bench.desk.hub_writable(DEVICE)
    assert bench.ways.said_to_hub == []
    bench.ways.takes = True
    bench.desk.hub_writable(DEVICE)
    assert [topic[-1] for topic, _ in bench.ways.said_to_hub] == ["1", "2"]


def test_a_reply_that_waited_past_the_end_of_its_call_is_late(bench: Bench) -> None:
    bench.call("1")
    bench.time.pass_seconds(CALL_SECONDS / 2)
    bench.call("2")
    bench.go(Reach.OPENING)
    bench.reply("2")
    bench.reply("1")
    bench.time.pass_seconds(CALL_SECONDS / 2)
    bench.go(Reach.UP)
    assert [topic[-1] for topic, _ in bench.ways.said_to_hub] == ["2"]
    assert bench.dropped("method_reply_late") == 1
    assert bench.results() == {"expired": 1, "replied": 1}


def test_when_the_hub_goes_waiting_replies_and_open_calls_are_dropped_and_counted(bench: Bench) -> None:
    for rid in ("1", "2"):
        bench.call(rid)
    bench.go(Reach.OPENING)
    bench.reply("1")
    bench.go(Reach.DOWN)
    assert bench.dropped("method_reply_no_hub") == 1
    bench.reply("2")
    assert bench.dropped("method_reply_no_hub") == 2
    assert bench.results() == {"no_hub": 2}


def test_a_reply_does_not_answer_a_call_of_the_next_connection_with_the_same_id(bench: Bench) -> None:
    bench.call("1")
    bench.go(Reach.DOWN)
    bench.go(Reach.UP)
    bench.call("1")
    newer = bench.ways.said_to_device[-1][0].rpartition("=")[2]
    bench.reply("1", payload=b"old")
    bench.reply(newer, payload=b"new")
    assert bench.ways.said_to_hub == [("$iothub/methods/res/200/?$rid=1", b"new")]
    assert bench.dropped("method_reply_no_hub") == 1


def test_a_call_that_the_hub_repeats_is_not_made_twice(bench: Bench) -> None:
    bench.call("1", qos=1)
    bench.call("1", qos=1, dup=True)
    assert len(bench.ways.said_to_device) == 1


def test_a_device_that_left_may_answer_when_it_is_back(bench: Bench) -> None:
    bench.call("1")
    bench.desk.device_left(DEVICE)
    bench.reply("1")
    assert len(bench.ways.said_to_hub) == 1


def test_one_call_too_many_is_answered_429_and_the_others_stay(bench: Bench) -> None:
    for number in range(MAX_CALLS + 1):
        bench.call(f"{number}")
    (topic, _body) = bench.ways.said_to_hub[0]
    assert topic == f"$iothub/methods/res/429/?$rid={MAX_CALLS}"
    assert len(bench.ways.said_to_device) == MAX_CALLS
    assert bench.results() == {"too_many": 1}


def test_no_more_replies_wait_than_the_bound(bench: Bench) -> None:
    bench.ways.takes = False
    for number in range(MAX_CALLS + 1):
        bench.call(f"{number}")
        bench.reply(f"{number}")
    assert bench.dropped("method_reply_no_hub") == 1


def test_waiting_replies_of_all_devices_have_a_bound_in_bytes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "MAX_WAITING_BYTES", 10)
    bench.ways.takes = False
    for rid in ("1", "2"):
        bench.call(rid)
        bench.reply(rid, payload=b"12345678")
    assert bench.dropped("method_reply_no_hub") == 1
    bench.ways.takes = True
    bench.desk.hub_writable(DEVICE)
    bench.ways.takes = False
    bench.call("3")
    bench.reply("3", payload=b"12345678")
    assert bench.dropped("method_reply_no_hub") == 1


def test_every_call_is_counted_once(bench: Bench) -> None:
    bench.call("1")
    bench.reply("1")
    bench.call("2")
    bench.go(Reach.DOWN)
    bench.time.pass_seconds(2 * CALL_SECONDS)
    bench.go(Reach.UP)
    bench.call("3")
    bench.time.pass_seconds(2 * CALL_SECONDS)
    bench.ways.filters.clear()
    bench.call("4")
    assert sum(bench.results().values()) == bench.calls == 4


def test_a_hub_session_that_ends_while_it_is_written_to_upsets_nothing(bench: Bench) -> None:
    bench.ways.takes = False
    for rid in ("1", "2"):
        bench.call(rid)
        bench.reply(rid)
    bench.ways.when_spoken_to = lambda: bench.go(Reach.DOWN)
    bench.desk.hub_writable(DEVICE)
    assert bench.results() == {"no_hub": 2}
    assert bench.dropped("method_reply_no_hub") == 2


def test_no_payload_shows_in_a_repr_or_a_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    bench.call("1", NOISE)
    bench.ways.takes = False
    bench.reply("1", payload=NOISE)
    desk = bench.desk._desks[DEVICE]
    assert "squirrel" not in repr((desk.waiting, desk.calls, list(desk.calls._calls.values())))
    assert "squirrel" not in caplog.text
