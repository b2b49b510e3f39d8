"""The timetable: flat, exact, bounded in cost, and honest about what cannot work."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gatewayd.flow.renewal import Timetable
from gatewayd.tokens.renewal_timetable import (
    MAX_SLOTS_PER_SECOND,
    SCAN_SECONDS,
    RenewalTimetable,
    feasibility,
)
from tests.support.fleet_parts import FixedFraction, UniformRandom

EARLIEST, LATEST = 0.70, 0.85
YEAR = 365 * 86_400.0


def ours() -> RenewalTimetable:
    return RenewalTimetable(EARLIEST, LATEST)


def allowed_peak(devices: int, lifetime: float) -> float:
    floor = devices / (LATEST * lifetime)
    return max(math.ceil(floor) + 1, 1.15 * floor)


def sliding_peak(instants: list[float]) -> int:
    """The most instants in any half-open second, counted the slow and obvious way: from each instant on."""
    instants = sorted(instants)
    peak = first = 0
    for last, instant in enumerate(instants):
        while instants[first] <= instant - 1.0 + 1e-9:
            first += 1
        peak = max(peak, last - first + 1)
    return peak


def live(
    timetable: Timetable, devices: int, lifetime: float, cycles: int, connects_per_second: float
) -> tuple[list[float], list[float]]:
    """A fleet that comes up at a steady pace and renews exactly as planned: instants of the first cycle, and after."""
    timetable.expect(devices, lifetime)
    cycle = lifetime * LATEST
    boot = devices / connects_per_second
    events = [(number / connects_per_second, number, True) for number in range(devices)]
    first: list[float] = []
    steady: list[float] = []
    while events:
        now, number, connects = heapq.heappop(events)
        if not connects:
            (first if now <= boot + cycle else steady).append(now)
        if now <= boot + cycles * cycle:
            at = timetable.place(number, now, now + lifetime, now, wide=connects, busy_until=boot)
            heapq.heappush(events, (at, number, False))
    return first, steady


FLEETS = [(500, 30.0), (2000, 60.0), (100, 20.0), (1000, 600.0), (5000, 3600.0)]


@pytest.mark.parametrize(("devices", "lifetime"), FLEETS)
def test_a_fleet_is_flat_from_its_first_cycle_on_in_every_sliding_second(
    devices: int, lifetime: float
) -> None:
    first, steady = live(ours(), devices, lifetime, 4, 50.0)
    assert sliding_peak(first) <= allowed_peak(devices, lifetime)
    assert sliding_peak(steady) <= allowed_peak(devices, lifetime)
    assert max(Counter(map(math.floor, first + steady)).values()) <= allowed_peak(devices, lifetime)


@pytest.mark.parametrize("rival", [FixedFraction, UniformRandom])
@pytest.mark.parametrize(("devices", "lifetime"), [(500, 30.0), (5000, 3600.0)])
def test_the_same_measure_fails_for_other_placements(
    rival: Callable[[float, float], Timetable], devices: int, lifetime: float
) -> None:
    _, steady = live(rival(EARLIEST, LATEST), devices, lifetime, 4, 50.0)
    assert sliding_peak(steady) > allowed_peak(devices, lifetime)


def test_renewals_stay_as_few_as_the_floor_demands() -> None:
    _, steady = live(ours(), 1000, 600.0, 8, 50.0)
    rate = len(steady) / (steady[-1] - steady[0])
    assert rate <= 1.02 * 1000 / (LATEST * 600.0)


def test_drifting_starts_do_not_pile_up_over_many_cycles() -> None:
    chance = random.Random(7)
    timetable = ours()
    timetable.expect(200, 30.0)
    events = [(number / 50.0, number, True) for number in range(200)]
    instants: list[float] = []
    while events[0][0] < 1500.0:
        now, number, connects = heapq.heappop(events)
        if not connects:
            instants.append(now)
        signed = now + chance.uniform(0.01, 0.3)
        at = timetable.place(number, signed, signed + 30.0, signed, wide=connects, busy_until=4.0)
        heapq.heappush(events, (at, number, False))
    assert sliding_peak(instants) <= allowed_peak(200, 30.0)


def test_a_planned_renewal_lies_in_its_window_and_a_wide_one_before_its_end() -> None:
    timetable = ours()
    planned = timetable.place("a", 100.0, 1100.0, 100.0)
    assert 800.0 <= planned <= 950.0
    wide = timetable.place("b", 100.0, 1100.0, 100.0, wide=True)
    assert 120.0 <= wide <= 950.0


def test_a_wide_window_waits_for_the_boot_but_never_beyond_the_planned_window() -> None:
    timetable = ours()
    assert timetable.place("a", 0.0, 1000.0, 0.0, wide=True, busy_until=500.0) >= 500.0
    assert 700.0 <= timetable.place("b", 0.0, 1000.0, 0.0, wide=True, busy_until=9999.0) <= 850.0


def test_a_window_that_is_partly_past_begins_now_and_one_that_is_past_is_due_now() -> None:
    timetable = ours()
    assert 800.0 <= timetable.place("a", 0.0, 1000.0, 800.0) <= 850.0
    assert timetable.place("b", 0.0, 1000.0, 900.0) == 900.0


def test_a_window_shorter_than_a_slot_still_has_a_place_in_it() -> None:
    at = RenewalTimetable(0.70, 0.701).place("a", 0.35, 20.35, 0.35)
    assert 14.35 <= at <= 14.38


def test_tokens_of_unequal_lives_share_one_flat_timetable() -> None:
    timetable = ours()
    instants = [
        timetable.place(number, 0.0, 600.0 + number % 7 * 100.0, 0.0, wide=True) for number in range(900)
    ]
    assert sliding_peak(instants) <= max(math.ceil(timetable.floor) + 1, 1.15 * timetable.floor)


def test_a_token_without_life_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be placed"):
        ours().place("a", 10.0, 10.0, 10.0)


@pytest.mark.parametrize("window", [(0.0, 0.5), (0.8, 0.7), (0.5, 1.0), (0.5, 0.5)])
def test_a_window_that_makes_no_sense_is_refused(window: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 < earliest < latest < 1"):
        RenewalTimetable(*window)


def test_another_window_holds_for_the_next_places() -> None:
    timetable = ours()
    timetable.retime(0.3, 0.4)
    assert 300.0 <= timetable.place("a", 0.0, 1000.0, 0.0) <= 400.0
    assert timetable.latest == 0.4


def test_a_full_window_falls_back_to_the_least_loaded_second() -> None:
    timetable = ours()
    places = [timetable.place(number, 0.0, 20.0, 13.9) for number in range(400)]
    assert all(14.0 <= at <= 17.0 for at in places)
    loads = [timetable.load(second) for second in (14, 15, 16)]
    assert max(loads) - min(loads) <= 0.1 * max(loads)


class CountingTimetable(RenewalTimetable):
    """Counts the chunks a search looks at."""

    looked = 0

    def _least_loaded_second(self, first: int, last: int) -> tuple[int, int]:
        CountingTimetable.looked += last - first + 1
        return super()._least_loaded_second(first, last)


def test_a_search_is_bounded_even_for_tokens_of_years() -> None:
    timetable = CountingTimetable(EARLIEST, LATEST)
    places = [timetable.place(number, 0.0, YEAR, 0.0, wide=True) for number in range(300)]
    assert CountingTimetable.looked <= 300 * 2 * (SCAN_SECONDS + 1)
    assert sliding_peak(places) == 1
    tenths = Counter(int(at / (YEAR * LATEST) * 10) for at in places)
    assert all(10 <= tenths[tenth] <= 60 for tenth in range(10)), (
        "spread over the whole life, not one stretch"
    )
    planned = [timetable.place(number, 0.0, YEAR, 0.0) for number in range(300)]
    assert sliding_peak(planned) == 1
    assert min(planned) >= LATEST * YEAR - SCAN_SECONDS


def test_removing_frees_the_place_and_forgets_the_rate() -> None:
    timetable = ours()
    at = timetable.place("a", 0.0, 1000.0, 0.0)
    assert timetable.load(math.floor(at)) == 1
    assert timetable.planned("a") == at
    assert timetable.remove("a")
    assert not timetable.remove("a")
    assert timetable.load(math.floor(at)) == 0
    assert (len(timetable), timetable.floor, timetable.planned("a")) == (0, 0.0, None)


def test_thousands_due_in_one_instant_are_counted_exactly() -> None:
    timetable = ours()
    for number in range(1000):
        timetable.place(number, 0.0, 10.0, 9.0)
    assert timetable.load(9) == 1000
    for number in range(1000):
        timetable.remove(number)
    assert timetable.load(9) == 0
    assert not timetable._chunks
    assert not timetable._overflow


def test_the_grid_follows_the_fleet_up_and_down_and_has_a_bound() -> None:
    timetable = ours()
    for number in range(500):
        timetable.place(number, 0.0, 30.0, 0.0, wide=True)
    assert timetable.slots_per_second == math.ceil(1.05 * 500 / 25.5)
    for number in range(450):
        timetable.remove(number)
    timetable.place(451, 0.0, 30.0, 0.0)
    assert timetable.slots_per_second == 3
    timetable.expect(10_000_000, 20.0)
    assert timetable.slots_per_second == MAX_SLOTS_PER_SECOND


class TimetableMachine(RuleBasedStateMachine):
    """Whatever is placed, moved and removed, the counts are those of a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.timetable = ours()
        self.now = 0.0
        self.placed: dict[int, float] = {}

    @rule(seconds=st.floats(0.0, 60.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        key=st.integers(0, 40),
        age=st.floats(0.0, 200.0),
        life=st.sampled_from([20.0, 30.0, 47.3, 3600.0, YEAR]),
        wide=st.booleans(),
        busy=st.floats(0.0, 50.0),
    )
    def place(self, key: int, age: float, life: float, wide: bool, busy: float) -> None:
        signed = self.now - age
        at = self.timetable.place(key, signed, signed + life, self.now, wide=wide, busy_until=self.now + busy)
        closes = signed + LATEST * life
        assert at >= self.now
        assert at <= max(closes, self.now) + 1e-6
        if not wide:
            assert at >= signed + EARLIEST * life - 1e-6
        self.placed[key] = at

    @rule(key=st.integers(0, 40))
    def remove(self, key: int) -> None:
        assert self.timetable.remove(key) == (self.placed.pop(key, None) is not None)

    @rule(devices=st.integers(0, 2000))
    def expect(self, devices: int) -> None:
        self.timetable.expect(devices, 30.0)

    @invariant()
    def counts_are_exact(self) -> None:
        seconds = Counter(math.floor(at + 1e-6) for at in self.placed.values())
        for second, load in seconds.items():
            assert self.timetable.load(second) == load
        assert len(self.timetable) == len(self.placed)
        assert sum(chunk.live for chunk in self.timetable._chunks.values()) == len(self.placed)


TestAnySequence = TimetableMachine.TestCase
TestAnySequence.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@settings(max_examples=30, deadline=None)
@given(devices=st.integers(1, 300), lifetime=st.floats(20.0, 900.0), pace=st.floats(20.0, 500.0))
def test_any_fleet_keeps_the_promise_once_it_is_up(devices: int, lifetime: float, pace: float) -> None:
    _, steady = live(ours(), devices, lifetime, 3, pace)
    assert sliding_peak(steady) <= allowed_peak(devices, lifetime)


def test_a_fleet_that_fits_is_feasible_and_says_how_near_it_is() -> None:
    verdict = feasibility(5000, 3600.0, EARLIEST, LATEST, 50.0)
    assert verdict.feasible
    assert verdict.floor == pytest.approx(1.634, abs=0.001)
    assert (verdict.expected_peak, verdict.allowed_peak) == (2, 3)
    assert verdict.reconnect_all_seconds == 100.0


@pytest.mark.parametrize(
    ("devices", "lifetime", "earliest", "latest", "budget", "words"),
    [
        (5000, 60.0, 0.70, 0.85, 50.0, "98.04 renewals/s and 103 in the fullest second"),
        (5000, 60.0, 0.70, 0.85, 50.0, "tokens of 154 s or more fit"),
        (10, 20.0, 0.70, 0.72, 50.0, "the window from 70% to 72% of 20 s is 0.40 s long"),
        (10, 20.0, 0.70, 0.95, 50.0, "after 95% of 20 s only 1.00 s are left"),
    ],
)
def test_what_cannot_work_is_refused_with_the_numbers(
    devices: int, lifetime: float, earliest: float, latest: float, budget: float, words: str
) -> None:
    verdict = feasibility(devices, lifetime, earliest, latest, budget)
    assert not verdict.feasible
    assert any(words in problem for problem in verdict.problems), verdict.problems
