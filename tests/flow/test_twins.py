"""The desk for twins, in virtual time and without sockets. The twin at the hub is the emulator's."""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry

from gatewayd.clock import RELEASE_EPOCH_SECONDS
from gatewayd.emulator.twin import Twin
from gatewayd.flow import twins
from gatewayd.flow.twin_cache import TwinCache
from gatewayd.flow.twins import CHECK_PAUSES, DESIRED_FILTER, MAX_REQUESTS, REPLIES_FILTER, Twins
from gatewayd.flow.ways import Reach
from gatewayd.message import Identity
from gatewayd.metrics import TWIN_OPERATIONS, TWIN_RESULTS, Metrics
from gatewayd.protocol.iothub.operations import Topic, parse_from_device, parse_from_hub
from tests.support.virtual_time import VirtualTime
from tests.support.way_rig import MemoryTwinStore, RecordedWays

DEVICE = Identity("press-1")
TIMEOUT = 10.0
NOISE = b'{"secret":"squirrel"}'


class Bench:
    """The desk between a device and a hub that hold their ends by topics and bodies alone."""

    def __init__(
        self, *, cache: bool = False, store: MemoryTwinStore | None = None, started: float = 0.0
    ) -> None:
        self.registry = CollectorRegistry()
        self.time = VirtualTime(RELEASE_EPOCH_SECONDS + started)
        self.ways = RecordedWays(filters={REPLIES_FILTER, DESIRED_FILTER})
        self.store = store or MemoryTwinStore()
        self.cache = TwinCache(self.store, self.time.clock, self.time.wheel) if cache else None
        self.desk = Twins(
            self.ways, self.time.clock, self.time.wheel, Metrics(self.registry), self.cache, timeout=TIMEOUT
        )
        self.twin = Twin()
        self.answered = 0  # how much of what the hub was told it has answered

    # The device

    def get(self, rid: str) -> None:
        self._ask(f"$iothub/twin/GET/?$rid={rid}", b" ")

    def patch(self, rid: str, body: bytes = b'{"fw":"1"}') -> None:
        self._ask(f"$iothub/twin/PATCH/properties/reported/?$rid={rid}", body)

    def heard(self) -> list[tuple[str, bytes]]:
        """What the device was told since the last look; topics without their common beginning."""
        found = [(topic.removeprefix("$iothub/twin/"), body) for topic, body in self.ways.said_to_device]
        self.ways.said_to_device.clear()
        return found

    # The hub

    def asked(self) -> list[str]:
        """What the hub was asked and has not answered: GET or PATCH, with the body of a patch."""
        return [
            "GET" if topic.startswith("$iothub/twin/GET/") else f"PATCH {body.decode()}"
            for topic, body in self.ways.said_to_hub[self.answered :]
        ]

    def rid(self, at: int = -1) -> str:
        """The id of what the hub was asked."""
        return self.ways.said_to_hub[at][0].partition("$rid=")[2]

    def answer(self, status: int = 0, body: bytes = b"") -> None:
        """The hub answers all that it was asked, and what that brings; with `status` or as its twin says."""
        while self.answered < len(self.ways.said_to_hub):
            topic, payload = self.ways.said_to_hub[self.answered]
            self.answered += 1
            rid = topic.partition("$rid=")[2]
            if status:
                self.hub_says(f"res/{status}/?$rid={rid}", body)
            elif topic.startswith("$iothub/twin/GET/"):
                self.hub_says(f"res/200/?$rid={rid}", self.twin.read())
            else:
                verdict = self.twin.report(payload)
                self.hub_says(f"res/{verdict}/?$rid={rid}&$version={self.twin.reported_version}", b"")

    def desire(self, patch: dict[str, object], *, arrives: bool = True) -> None:
        body = self.twin.desire(patch)
        if arrives:
            self.hub_says(f"PATCH/properties/desired/?$version={self.twin.desired_version}", body)

    def hub_says(self, topic_end: str, body: bytes) -> None:
        topic = parse_from_hub(DEVICE, f"$iothub/twin/{topic_end}")
        assert isinstance(topic, Topic)
        if topic_end.startswith("res/"):
            self.desk.answered(DEVICE, topic, body)
        else:
            self.desk.desired(DEVICE, topic, body)

    def go(self, reach: Reach) -> None:
        self.ways.hub = reach
        if reach is Reach.UP:
            self.answered = len(self.ways.said_to_hub)  # the old connection took its questions with it
            self.desk.hub_up(DEVICE)
        elif reach is Reach.DOWN:
            self.desk.hub_down(DEVICE)

    def hand_over(self) -> None:
        self.go(Reach.OPENING)
        self.go(Reach.UP)

    def results(self) -> dict[str, int]:
        found = {}
        for operation in TWIN_OPERATIONS:
            for result in TWIN_RESULTS:
                labels = {"operation": operation, "result": result}
                found[f"{operation} {result}"] = self.registry.get_sample_value(
                    "gatewayd_twin_requests_total", labels
                )
        return {name: int(count) for name, count in found.items() if count}

    def _ask(self, text: str, body: bytes) -> None:
        topic = parse_from_device(DEVICE, text)
        assert isinstance(topic, Topic)
        self.desk.asked(DEVICE, topic, body)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def kept() -> Bench:
    """With the cache on, and a twin that was read once."""
    bench = Bench(cache=True)
    bench.go(Reach.UP)
    bench.get("first")
    bench.answer()
    bench.store.answer()
    bench.heard()
    return bench


# The hub is up


def test_a_read_is_answered_with_the_hubs_body_under_the_devices_own_id(bench: Bench) -> None:
    bench.get("41b3")
    bench.answer()
    assert bench.heard() == [("res/200/?$rid=41b3", Twin().read())]
    assert bench.results() == {"get ok": 1}


def test_a_reported_patch_is_answered_with_its_version(bench: Bench) -> None:
    bench.patch("7", b'{"fw":"2"}')
    assert bench.asked() == ['PATCH {"fw":"2"}']
    bench.answer()
    assert bench.heard() == [("res/204/?$rid=7&$version=2", b"")]


@pytest.mark.parametrize("rid", ["%41%20b", "a b/ü?#+", "0", "{}", "x" * 200, "a=b"])
def test_the_devices_id_is_any_text_and_comes_back_as_it_was(bench: Bench, rid: str) -> None:
    bench.get(rid)
    assert bench.rid() != rid
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == [f"res/200/?$rid={rid}"]


@pytest.mark.parametrize(
    ("status", "result"),
    [(400, "refused"), (413, "refused"), (429, "refused"), (500, "failed"), (503, "failed")],
)
def test_a_no_of_the_hub_passes_with_its_body(bench: Bench, status: int, result: str) -> None:
    bench.patch("7")
    bench.answer(status, b'{"errorCode":429001}')
    assert bench.heard() == [(f"res/{status}/?$rid=7", b'{"errorCode":429001}')]
    assert bench.results() == {f"patch {result}": 1}


def test_two_requests_with_one_id_are_answered_both(bench: Bench) -> None:
    bench.get("1")
    bench.patch("1")
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["res/200/?$rid=1", "res/204/?$rid=1&$version=2"]


def test_requests_reach_the_hub_in_their_order_one_at_a_time(bench: Bench) -> None:
    for number in range(5):
        bench.patch(f"{number}", b'{"n":%d}' % number)
    assert bench.asked() == ['PATCH {"n":0}']
    bench.answer()
    assert [body for _, body in bench.ways.said_to_hub] == [b'{"n":%d}' % number for number in range(5)]
    assert bench.twin.reported == {"n": 4}


def test_a_desired_change_reaches_the_device_with_its_version(bench: Bench) -> None:
    bench.desire({"rate": 3})
    assert bench.heard() == [("PATCH/properties/desired/?$version=2", b'{"rate":3,"$version":2}')]


def test_a_desired_change_without_a_version_reaches_the_device_too(bench: Bench) -> None:
    bench.hub_says("PATCH/properties/desired/", b'{"rate":3}')
    assert bench.heard() == [("PATCH/properties/desired/", b'{"rate":3}')]


def test_what_a_device_asks_without_listening_reaches_the_hub_and_holds_up_nothing(bench: Bench) -> None:
    bench.ways.filters = {DESIRED_FILTER}
    bench.get("after-a-reconnect")
    bench.patch("unheard")
    bench.ways.filters = {DESIRED_FILTER, REPLIES_FILTER}
    bench.get("heard")
    assert bench.asked() == ["GET", 'PATCH {"fw":"1"}', "GET"]
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["res/200/?$rid=heard"]
    assert bench.results() == {"get abandoned": 1, "patch abandoned": 1, "get ok": 1}


def test_an_answer_nobody_waits_for_is_swallowed(bench: Bench) -> None:
    bench.hub_says("res/200/?$rid=1", b"{}")
    bench.get("1")
    bench.hub_says("res/200/?$rid=1", b"{}")
    assert bench.heard() == []
    bench.answer()
    assert len(bench.heard()) == 1


def test_a_hub_session_that_cannot_take_it_now_is_asked_when_it_is_writable(bench: Bench) -> None:
    bench.ways.takes = False
    bench.get("1")
    bench.ways.takes = True
    bench.desk.hub_writable(DEVICE)
    assert bench.asked() == ["GET"]


def test_a_hub_that_stays_silent_is_answered_for_in_time_and_the_next_is_asked(bench: Bench) -> None:
    bench.get("1")
    bench.time.pass_seconds(TIMEOUT / 2)
    bench.patch("2")
    bench.time.pass_seconds(TIMEOUT / 2)
    assert [topic for topic, _ in bench.heard()] == ["res/503/?$rid=1"]
    assert bench.asked() == ["GET", 'PATCH {"fw":"1"}']
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["res/204/?$rid=2&$version=2"]


# The hub is away


def test_while_the_hub_is_down_a_request_is_answered_503_at_once(bench: Bench) -> None:
    bench.go(Reach.DOWN)
    bench.get("1")
    bench.patch("2")
    assert [topic for topic, _ in bench.heard()] == ["res/503/?$rid=1", "res/503/?$rid=2"]
    assert bench.asked() == []
    assert bench.results() == {"get no_hub": 1, "patch no_hub": 1}


def test_while_the_hub_session_opens_a_request_waits_and_is_asked_then(bench: Bench) -> None:
    bench.ways.hub = Reach.OPENING
    bench.get("1")
    bench.time.pass_seconds(TIMEOUT - 0.1)
    assert bench.heard() == []
    bench.go(Reach.UP)
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["res/200/?$rid=1"]


def test_while_the_hub_session_opens_a_request_waits_no_longer_than_the_timeout(bench: Bench) -> None:
    bench.ways.hub = Reach.OPENING
    bench.get("1")
    bench.time.pass_seconds(TIMEOUT - 0.1)
    bench.patch("2")
    bench.time.pass_seconds(0.2)
    assert [topic for topic, _ in bench.heard()] == ["res/503/?$rid=1"]
    bench.time.pass_seconds(TIMEOUT)
    assert [topic for topic, _ in bench.heard()] == ["res/503/?$rid=2"]
    bench.go(Reach.UP)
    assert bench.asked() == []


def test_the_timeout_can_be_changed_while_running(bench: Bench) -> None:
    bench.desk.timeout = 2.0
    bench.ways.hub = Reach.OPENING
    bench.get("1")
    bench.time.pass_seconds(2.0)
    assert len(bench.heard()) == 1


def test_when_the_hub_is_lost_all_that_waits_is_answered_503_at_once(bench: Bench) -> None:
    for rid in ("1", "2", "3"):
        bench.patch(rid)
    bench.go(Reach.DOWN)
    assert [topic for topic, _ in bench.heard()] == [f"res/503/?$rid={rid}" for rid in ("1", "2", "3")]
    bench.time.pass_seconds(2 * TIMEOUT)
    assert bench.heard() == []


def test_what_has_no_answer_is_asked_again_after_a_handover_in_order(bench: Bench) -> None:
    bench.patch("1", b'{"a":1}')
    bench.patch("2", b'{"a":2}')
    bench.hand_over()
    assert bench.asked() == ['PATCH {"a":1}']
    bench.answer()
    assert [topic.partition("&")[0] for topic, _ in bench.heard()] == ["res/204/?$rid=1", "res/204/?$rid=2"]
    assert bench.twin.reported == {"a": 2}


def test_an_answer_that_comes_twice_after_a_handover_reaches_the_device_once(bench: Bench) -> None:
    bench.get("1")
    old = bench.rid()
    bench.hand_over()
    bench.hub_says(f"res/200/?$rid={old}", Twin().read())
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["res/200/?$rid=1"]


def test_an_answer_on_the_old_connection_in_time_ends_the_request(bench: Bench) -> None:
    bench.get("1")
    bench.ways.hub = Reach.OPENING
    bench.answer()
    bench.go(Reach.UP)
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["res/200/?$rid=1"]


def test_ids_of_a_later_run_differ(bench: Bench) -> None:
    later = Bench(started=5.0)
    bench.get("1")
    later.get("1")
    assert later.rid() != bench.rid()


# Bounds


def test_one_request_too_many_of_a_device_is_answered_429_and_the_others_stay(bench: Bench) -> None:
    for number in range(MAX_REQUESTS + 1):
        bench.get(f"{number}")
    assert [topic for topic, _ in bench.heard()] == [f"res/429/?$rid={MAX_REQUESTS}"]
    assert bench.results() == {"get too_many": 1}
    bench.answer()
    assert len(bench.heard()) == MAX_REQUESTS


def test_payloads_of_all_devices_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "MAX_WAITING_BYTES", 12)
    bench = Bench()
    bench.patch("1", b'{"a":1}')
    bench.patch("2", b'{"a":2}')
    assert [topic for topic, _ in bench.heard()] == ["res/503/?$rid=2"]
    assert bench.results() == {"patch too_many": 1}
    bench.answer()
    bench.patch("3", b'{"a":3}')
    bench.answer()
    assert [topic.partition("&")[0] for topic, _ in bench.heard()] == ["res/204/?$rid=1", "res/204/?$rid=3"]


def test_every_request_is_counted_once(bench: Bench) -> None:
    bench.get("1")
    bench.answer()
    bench.go(Reach.DOWN)
    bench.get("2")
    bench.ways.hub = Reach.OPENING
    bench.get("3")
    bench.time.pass_seconds(TIMEOUT)
    bench.ways.hub = Reach.UP
    for number in range(MAX_REQUESTS + 2):
        bench.get(f"x{number}")
    bench.desk.device_left(DEVICE)
    assert sum(bench.results().values()) == 3 + MAX_REQUESTS + 2


# The device leaves


def test_patches_of_a_device_that_left_still_reach_the_hub_and_nothing_is_answered(bench: Bench) -> None:
    for number in range(3):
        bench.patch(f"{number}", b'{"n":%d}' % number)
    bench.get("4")
    bench.ways.filters.clear()
    bench.desk.device_left(DEVICE)
    assert bench.asked() == [f'PATCH {{"n":{number}}}' for number in range(3)]
    bench.answer()
    assert bench.heard() == []
    assert bench.results() == {"patch abandoned": 3, "get abandoned": 1}
    bench.time.pass_seconds(2 * TIMEOUT)
    assert len(bench.ways.said_to_hub) == 3


def test_patches_of_a_device_that_left_are_not_kept_for_a_hub_that_is_away(bench: Bench) -> None:
    bench.ways.hub = Reach.OPENING
    bench.patch("1")
    bench.desk.device_left(DEVICE)
    bench.go(Reach.UP)
    assert bench.asked() == []


# Desired changes between two hub connections


def test_a_desired_change_during_a_handover_is_told_whole_with_its_version(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.desire({"rate": 3, "mode": "eco"})
    bench.heard()
    bench.ways.hub = Reach.OPENING
    bench.desire({"rate": 4}, arrives=False)
    bench.desire({"mode": None}, arrives=False)
    bench.go(Reach.UP)
    bench.answer()
    (told,) = bench.heard()
    assert told[0] == "PATCH/properties/desired/?$version=4"
    assert json.loads(told[1]) == {"rate": 4, "$version": 4}
    assert bench.results() == {"check ok": 1}


def test_a_device_that_knows_the_version_is_told_nothing_after_a_handover(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.get("1")
    bench.answer()
    bench.heard()
    bench.hand_over()
    assert bench.asked() == ["GET"]
    bench.answer()
    assert bench.heard() == []


def test_a_device_that_only_listens_is_told_once_after_the_first_gap(bench: Bench) -> None:
    bench.go(Reach.UP)
    assert bench.asked() == []
    bench.hand_over()
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["PATCH/properties/desired/?$version=1"]
    bench.hand_over()
    bench.answer()
    assert bench.heard() == []


@pytest.mark.parametrize("filters", [set(), {REPLIES_FILTER}, {DESIRED_FILTER}])
def test_nothing_is_read_for_a_device_that_does_not_listen(bench: Bench, filters: set[str]) -> None:
    bench.ways.filters = filters
    bench.go(Reach.UP)
    bench.hand_over()
    assert bench.asked() == []


def test_the_first_connection_after_a_device_came_follows_no_gap(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.desire({"rate": 3})
    bench.ways.filters.clear()
    bench.desk.device_left(DEVICE)
    bench.go(Reach.DOWN)
    bench.ways.filters = {REPLIES_FILTER, DESIRED_FILTER}
    bench.go(Reach.UP)
    assert bench.asked() == []


def test_an_outage_that_another_connection_of_the_device_saw_is_no_gap_of_the_next(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.go(Reach.DOWN)
    bench.desk.device_left(DEVICE)
    bench.go(Reach.UP)
    assert bench.asked() == []


def test_a_device_that_came_to_a_hub_session_that_was_kept_open_is_told_after_the_next_gap(
    bench: Bench,
) -> None:
    bench.go(Reach.UP)
    bench.desk.device_left(DEVICE)
    bench.desire({"rate": 9}, arrives=False)
    bench.hand_over()
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["PATCH/properties/desired/?$version=2"]


def test_a_change_that_arrives_while_the_twin_is_read_is_not_taken_back(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.desire({"rate": 3})
    before = bench.twin.read()
    bench.hand_over()
    bench.desire({"rate": 4})
    bench.heard()
    bench.answer(200, before)
    assert bench.heard() == []


def test_an_identity_made_anew_counts_its_versions_from_one_and_is_told(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.desire({"rate": 3})
    bench.heard()
    bench.twin = Twin()
    bench.hand_over()
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["PATCH/properties/desired/?$version=1"]


def test_a_read_that_the_hub_refuses_is_tried_again_with_longer_pauses_and_then_given_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.go(Reach.UP)
    bench.hand_over()
    for pause in CHECK_PAUSES:
        bench.answer(429)
        reads = len(bench.ways.said_to_hub)
        bench.time.pass_seconds(pause - 0.1)
        assert len(bench.ways.said_to_hub) == reads
        bench.time.pass_seconds(0.1)
        assert len(bench.ways.said_to_hub) == reads + 1
    bench.answer(429)
    assert "could not be read" in caplog.text
    reads = len(bench.ways.said_to_hub)
    bench.time.pass_seconds(3600.0)
    assert len(bench.ways.said_to_hub) == reads
    assert bench.results() == {"check refused": len(CHECK_PAUSES) + 1}


def test_a_read_that_the_hub_does_not_answer_is_tried_again(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.hand_over()
    bench.time.pass_seconds(TIMEOUT + CHECK_PAUSES[0])
    assert bench.asked() == ["GET", "GET"]
    bench.answer()
    assert len(bench.heard()) == 1


def test_a_read_ends_with_its_hub_connection_and_its_device(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.hand_over()
    bench.answer(429)
    bench.go(Reach.DOWN)
    bench.time.pass_seconds(3600.0)
    assert bench.results() == {"check refused": 1}
    bench.go(Reach.UP)
    bench.answer(429)
    bench.desk.device_left(DEVICE)
    reads = len(bench.ways.said_to_hub)
    bench.time.pass_seconds(3600.0)
    assert len(bench.ways.said_to_hub) == reads


def test_a_change_that_the_device_cannot_take_at_the_moment_is_told_later(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.ways.congested = True
    bench.desire({"rate": 3})
    bench.time.pass_seconds(CHECK_PAUSES[0])
    bench.answer()
    bench.time.pass_seconds(CHECK_PAUSES[1] - 0.1)
    assert bench.heard() == []
    bench.ways.congested = False
    bench.time.pass_seconds(0.1)
    bench.answer()
    assert bench.heard() == [("PATCH/properties/desired/?$version=2", b'{"rate":3,"$version":2}')]
    bench.time.pass_seconds(3600.0)
    assert bench.asked() == []


def test_a_device_that_takes_nothing_is_not_tried_for_ever(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.go(Reach.UP)
    bench.ways.congested = True
    bench.desire({"rate": 3})
    for pause in CHECK_PAUSES:
        bench.time.pass_seconds(pause)
        bench.answer()
    assert "may have missed" in caplog.text
    reads = len(bench.ways.said_to_hub)
    bench.time.pass_seconds(3600.0)
    assert len(bench.ways.said_to_hub) == reads == len(CHECK_PAUSES)


def test_a_twin_that_the_device_could_not_take_is_not_taken_for_told(bench: Bench) -> None:
    bench.go(Reach.UP)
    bench.get("1")
    bench.ways.congested = True
    bench.answer()
    bench.ways.congested = False
    bench.hand_over()
    bench.answer()
    assert [topic for topic, _ in bench.heard()] == ["PATCH/properties/desired/?$version=1"]


# The cache


def test_without_a_cache_nothing_is_kept(bench: Bench) -> None:
    bench.get("1")
    bench.answer()
    bench.heard()
    bench.go(Reach.DOWN)
    bench.get("2")
    assert [topic for topic, _ in bench.heard()] == ["res/503/?$rid=2"]
    assert bench.store.reads == 0
    assert bench.store.writes == []


def test_while_the_hub_is_down_a_read_is_answered_with_the_last_known_twin_and_the_log_says_so(
    kept: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kept.desire({"rate": 3})
    kept.patch("p", b'{"fw":"9"}')
    kept.answer()
    kept.heard()
    kept.go(Reach.DOWN)
    for rid in ("1", "2"):
        kept.get(rid)
    answers = kept.heard()
    assert [topic for topic, _ in answers] == ["res/200/?$rid=1", "res/200/?$rid=2"]
    assert json.loads(answers[0][1]) == json.loads(kept.twin.read())
    assert caplog.text.count("last known twin") == 1
    assert kept.results()["get cached"] == 2


def test_the_log_says_it_again_in_the_next_outage(kept: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        kept.go(Reach.DOWN)
        kept.get("1")
        kept.go(Reach.UP)
    assert caplog.text.count("last known twin") == 2


def test_a_patch_that_the_hub_refused_changes_no_kept_twin(kept: Bench) -> None:
    kept.patch("1")
    kept.answer(400)
    kept.go(Reach.DOWN)
    kept.heard()
    kept.get("2")
    assert kept.heard() == [("res/200/?$rid=2", kept.twin.read())]


def test_while_the_hub_is_down_a_patch_is_answered_503_whatever_is_kept(kept: Bench) -> None:
    kept.go(Reach.DOWN)
    kept.patch("1")
    assert [topic for topic, _ in kept.heard()] == ["res/503/?$rid=1"]


def test_a_read_that_waits_when_the_hub_is_lost_gets_the_kept_twin(kept: Bench) -> None:
    kept.get("1")
    kept.go(Reach.DOWN)
    assert [topic for topic, _ in kept.heard()] == ["res/200/?$rid=1"]


def test_a_device_whose_twin_is_not_known_gets_503() -> None:
    bench = Bench(cache=True)
    bench.go(Reach.DOWN)
    bench.get("1")
    assert bench.heard() == []
    bench.store.answer()
    assert [topic for topic, _ in bench.heard()] == ["res/503/?$rid=1"]


def test_after_a_restart_a_device_that_starts_while_the_hub_is_away_gets_its_twin(kept: Bench) -> None:
    assert kept.cache is not None
    kept.cache.flush()
    later = Bench(cache=True, store=kept.store)
    later.ways.hub = Reach.DOWN
    later.get("1")
    later.store.answer()
    assert later.heard() == [("res/200/?$rid=1", kept.twin.read())]


def test_when_the_hub_is_back_a_device_with_a_kept_twin_is_told_what_changed_since(kept: Bench) -> None:
    assert kept.cache is not None
    kept.cache.flush()
    later = Bench(cache=True, store=kept.store)
    later.ways.hub = Reach.DOWN
    later.get("1")
    later.store.answer()
    later.heard()
    later.desire({"rate": 5}, arrives=False)
    later.go(Reach.UP)
    later.answer()
    assert later.heard() == [("PATCH/properties/desired/?$version=2", b'{"rate":5,"$version":2}')]
    later.go(Reach.DOWN)
    later.get("2")
    assert later.heard() == [("res/200/?$rid=2", later.twin.read())]


def test_a_kept_twin_that_comes_after_the_hub_did_is_followed_by_a_check(kept: Bench) -> None:
    assert kept.cache is not None
    kept.cache.flush()
    later = Bench(cache=True, store=kept.store)
    later.ways.hub = Reach.DOWN
    later.get("1")
    later.desire({"rate": 5}, arrives=False)
    later.go(Reach.UP)
    later.store.answer()
    later.answer()
    assert [topic for topic, _ in later.heard()] == [
        "res/200/?$rid=1",
        "PATCH/properties/desired/?$version=2",
    ]


def test_a_kept_twin_that_missed_a_change_is_read_anew(kept: Bench) -> None:
    kept.desire({"rate": 1}, arrives=False)
    kept.desire({"rate": 2})
    assert kept.asked() == ["GET"]
    kept.answer()
    kept.go(Reach.DOWN)
    kept.heard()
    kept.get("1")
    assert kept.heard() == [("res/200/?$rid=1", kept.twin.read())]


def test_a_kept_twin_that_missed_a_change_is_not_read_while_the_hub_is_away(kept: Bench) -> None:
    kept.desire({"rate": 1}, arrives=False)
    kept.ways.hub = Reach.OPENING
    kept.desire({"rate": 2})
    assert kept.asked() == []


# Faults of others


def test_a_hub_session_that_ends_while_it_is_written_to_upsets_nothing(bench: Bench) -> None:
    bench.ways.when_spoken_to = lambda: bench.go(Reach.DOWN)
    bench.get("1")
    assert [topic for topic, _ in bench.heard()] == ["res/503/?$rid=1"]


def test_life_cycle_calls_for_an_identity_nobody_knows_do_nothing(bench: Bench) -> None:
    bench.go(Reach.DOWN)
    bench.desk.hub_writable(DEVICE)
    bench.desk.device_left(DEVICE)
    assert bench.heard() == []


def test_properties_are_in_no_log_and_no_repr(kept: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    kept.patch("1", NOISE)
    kept.answer()
    kept.desire({"secret": "squirrel"}, arrives=False)
    kept.hand_over()
    kept.patch("2", NOISE)
    kept.answer()
    kept.go(Reach.DOWN)
    kept.get("3")
    assert "squirrel" in str(kept.heard())
    assert "squirrel" not in caplog.text
    assert all("squirrel" not in str(record.__dict__) for record in caplog.records)
