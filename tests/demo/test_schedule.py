"""The fleet's timetable: when devices boot, how many messages there are, who plays whom."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.demo.schedule import ranges_set, ranges_text, schedule_of, share_of


def test_devices_boot_one_after_another_at_an_even_pace() -> None:
    boots = [schedule_of(number, 500, boot=10.0, rate=0.2, end=75.0).boot for number in range(500)]
    assert boots[0] == 0.0
    assert boots[-1] < 10.0
    assert all(later - sooner == pytest.approx(0.02) for sooner, later in itertools.pairwise(boots))


def test_no_message_is_due_before_the_boot_or_after_the_end() -> None:
    for number in range(50):
        plan = schedule_of(number, 50, boot=5.0, rate=2.0, end=20.0)
        assert plan.due(0) >= plan.boot
        assert plan.due(plan.count - 1) < 20.0 <= plan.due(plan.count)


def test_a_device_that_boots_after_the_end_sends_nothing() -> None:
    assert schedule_of(9, 10, boot=100.0, rate=1.0, end=20.0).count == 0


def test_the_fleet_sends_at_an_even_pace() -> None:
    plans = [schedule_of(number, 200, boot=0.0, rate=0.2, end=60.0) for number in range(200)]
    seconds = [0] * 60
    for plan in plans:
        for number in range(plan.count):
            seconds[int(plan.due(number))] += 1
    assert min(seconds[5:]) >= 38
    assert max(seconds[5:]) <= 42


@given(devices=st.integers(1, 500), processes=st.integers(1, 4))
def test_every_device_is_played_exactly_once(devices: int, processes: int) -> None:
    shares = [number for process in range(processes) for number in share_of(process, processes, devices)]
    assert sorted(shares) == list(range(devices))


@pytest.mark.parametrize(
    ("numbers", "text"), [(set(), ""), ({3}, "3"), ({0, 1, 2}, "0-2"), ({0, 1, 5, 7, 8}, "0-1,5,7-8")]
)
def test_numbers_are_written_as_ranges(numbers: set[int], text: str) -> None:
    assert ranges_text(numbers) == text


@given(st.sets(st.integers(0, 200)))
def test_ranges_are_read_back(numbers: set[int]) -> None:
    assert ranges_set(ranges_text(numbers)) == numbers
