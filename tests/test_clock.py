"""Two kinds of time, and what is seen when they move apart."""

from __future__ import annotations

import subprocess

import pytest

from gatewayd.clock import (
    RELEASE_EPOCH_SECONDS,
    ClockStep,
    ClockWatch,
    ManualClock,
    SystemClock,
    kernel_clock_synchronized,
)


def test_time_that_passes_for_both_clocks_is_no_step() -> None:
    clock = ManualClock()
    watch = ClockWatch(clock)
    clock.advance(86_400)
    assert watch.look() is None


@pytest.mark.parametrize("seconds", [1.0, -1.0, 31_536_000.0, -7200.0])
def test_a_step_is_seen_once(seconds: float) -> None:
    clock = ManualClock()
    watch = ClockWatch(clock)
    clock.step(seconds)
    assert watch.look() == ClockStep(seconds=seconds, suspended=0.0)
    assert watch.look() is None


def test_a_suspend_is_a_step_that_says_it_slept() -> None:
    clock = ManualClock()
    watch = ClockWatch(clock)
    clock.suspend(60.0)
    assert watch.look() == ClockStep(seconds=60.0, suspended=60.0)


def test_slewing_is_taken_up_silently() -> None:
    clock = ManualClock()
    watch = ClockWatch(clock)
    for _ in range(10_000):
        clock.advance(1.0)
        clock.step(0.0005)
        assert watch.look() is None


def test_a_clock_before_the_release_is_known_wrong() -> None:
    clock = ManualClock(wall=0.0)
    watch = ClockWatch(clock)
    assert not watch.trusted
    clock.step(RELEASE_EPOCH_SECONDS)
    assert watch.trusted


def test_a_later_floor_is_honoured() -> None:
    clock = ManualClock()
    assert not ClockWatch(clock, floor=clock.wall() + 1).trusted


def test_the_system_clock_agrees_with_date() -> None:
    before = float(subprocess.check_output(["date", "+%s.%N"]))
    wall = SystemClock().wall()
    after = float(subprocess.check_output(["date", "+%s.%N"]))
    assert before - 0.001 <= wall <= after + 0.001


def test_the_system_clock_waits_on_the_loops_base_and_knows_sleep() -> None:
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
    assert clock.asleep() >= -0.001


def test_the_kernel_says_whether_it_is_synchronised() -> None:
    assert kernel_clock_synchronized() in {True, False, None}


def test_manual_time_never_goes_back_by_advancing() -> None:
    clock = ManualClock(monotonic=10.0)
    clock.advance_to(5.0)
    assert clock.monotonic() == 10.0
    clock.advance_to(12.5)
    assert clock.monotonic() == 12.5
