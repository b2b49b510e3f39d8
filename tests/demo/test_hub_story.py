"""The hub's log read as a story: what is a renewal, what is a gap, what is an error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.demo.hub_story import HubEvent, HubStory, Spread, per_second, sliding_peak, spread_ms, within
from gatewayd.emulator.event_log import EventLog, HubCode, Operation


class Log:
    """Writes the emulator's own log, so that the story is told from the real lines."""

    def __init__(self) -> None:
        self.log = EventLog()

    def connect(self, at: float, identity: str = "d", code: HubCode = HubCode.NONE) -> None:
        self.log.append(Operation.CONNECT, code, identity=identity, wall=0.0, monotonic=at)

    def leave(self, at: float, identity: str = "d") -> None:
        self.log.append(Operation.DISCONNECT, identity=identity, planned=True, wall=0.0, monotonic=at)

    def cut(self, at: float, code: HubCode, identity: str = "d") -> None:
        self.log.append(Operation.DISCONNECT, code, identity=identity, planned=False, wall=0.0, monotonic=at)

    def events(self) -> list[HubEvent]:
        return [HubEvent.from_fields(json.loads(event.as_json())) for event in self.log.since()]

    def story(self) -> HubStory:
        story = HubStory()
        story.add(self.events())
        return story


def test_a_connect_after_a_planned_end_is_a_renewal_with_its_gap() -> None:
    log = Log()
    log.connect(1.0)
    log.leave(20.0)
    log.connect(20.05)
    story = log.story()
    assert story.renewals == [20.05]
    assert story.renewals_of == {"d": 1}
    assert story.gaps == [pytest.approx(0.05)]
    assert story.connects == [1.0, 20.05]


def test_a_first_connect_is_no_renewal() -> None:
    log = Log()
    log.connect(1.0, "a")
    log.connect(1.0, "b")
    assert log.story().renewals == []
    assert log.story().returns == []


def test_a_connect_after_a_cut_is_no_renewal() -> None:
    log = Log()
    log.connect(1.0)
    log.cut(31.0, HubCode.CONNECTION_CLOSED)
    log.connect(31.1)
    story = log.story()
    assert story.renewals == []
    assert story.unplanned == 1
    assert story.error_counts() == {"404104": 1}


def test_a_return_long_after_a_planned_end_is_no_renewal() -> None:
    log = Log()
    log.connect(1.0)
    log.leave(5.0)
    log.connect(15.1)
    assert log.story().renewals == []


def test_a_refused_connect_counts_as_a_connection_and_as_an_error_only() -> None:
    log = Log()
    log.connect(1.0)
    log.leave(5.0)
    log.connect(5.1, code=HubCode.UNAUTHORIZED)
    log.connect(5.2)
    story = log.story()
    assert story.connects == [1.0, 5.1, 5.2]
    assert story.returns == [5.1, 5.2]
    assert story.renewals == [5.2]
    assert story.error_counts() == {"401003": 1}


def test_reading_the_same_lines_twice_counts_them_once() -> None:
    log = Log()
    log.connect(1.0)
    log.leave(5.0)
    events = log.events()
    story = HubStory()
    story.add(events)
    log.connect(5.1)
    story.add(log.events())
    assert story.connects == [1.0, 5.1]
    assert story.renewals == [5.1]
    assert story.missed == 0


def test_lines_the_log_forgot_are_counted_as_missed() -> None:
    log = Log()
    for at in range(5):
        log.connect(float(at), f"d{at}")
    story = HubStory()
    story.add(log.events()[3:])
    assert story.missed == 3


def test_a_spread_is_by_nearest_rank() -> None:
    assert spread_ms(number / 1000 for number in range(1, 101)) == Spread(50.0, 99.0, 100.0)
    assert spread_ms([0.061]) == Spread(61.0, 61.0, 61.0)
    assert spread_ms([]) == Spread(0.0, 0.0, 0.0)


def test_a_peak_is_found_across_the_border_of_a_second() -> None:
    times = [0.9, 0.95, 1.0, 1.05, 1.8]
    assert per_second(times, 0.0, 2) == [2, 3]
    assert sliding_peak(times) == 5
    assert sliding_peak([0.0, 1.0, 2.0]) == 1
    assert sliding_peak([]) == 0


@given(st.lists(st.integers(0, 5000), max_size=60))
def test_the_peak_is_what_trying_every_window_finds(thousandths: list[int]) -> None:
    times = [number / 1000 for number in thousandths]
    tried = max((sum(at <= other < at + 1.0 for other in times) for at in times), default=0)
    assert sliding_peak(times) == tried


def test_seconds_outside_the_run_are_left_out() -> None:
    assert per_second([-0.5, 0.0, 1.5, 2.0], 0.0, 2) == [1, 1]
    assert within([0.5, 1.0, 2.0], 1.0, 2.0) == [1.0]
