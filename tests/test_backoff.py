"""Delays grow, are bounded, spread, and start over only after a stable spell."""

from __future__ import annotations

import random

import pytest

from gatewayd.backoff import Backoff, BackoffPolicy

POLICY = BackoffPolicy(first=1.0, ceiling=60.0, stable=30.0)


def longest(_low: float, high: float) -> float:
    return high


def test_delays_triple_at_most_and_end_at_the_ceiling() -> None:
    backoff = Backoff(POLICY)
    assert [backoff.failed(0.0, longest) for _ in range(7)] == [1.0, 3.0, 9.0, 27.0, 60.0, 60.0, 60.0]


def test_delays_are_never_below_the_first() -> None:
    backoff, chance = Backoff(POLICY), random.Random(7)
    assert all(1.0 <= backoff.failed(0.0, chance.uniform) <= 60.0 for _ in range(1000))


def test_a_fleet_that_failed_together_does_not_return_together() -> None:
    chance = random.Random(7)
    fleet = [Backoff(POLICY) for _ in range(1000)]
    for _ in range(3):
        delays = [backoff.failed(0.0, chance.uniform) for backoff in fleet]
    per_second = [sum(1 for delay in delays if second <= delay < second + 1) for second in range(60)]
    assert max(per_second) < 350


def test_a_short_success_does_not_start_over() -> None:
    backoff = Backoff(POLICY)
    for _ in range(4):
        backoff.failed(0.0, longest)
    backoff.succeeded(100.0)
    assert backoff.failed(100.0 + 29.9, longest) == 60.0


def test_a_stable_spell_starts_over() -> None:
    backoff = Backoff(POLICY)
    for _ in range(4):
        backoff.failed(0.0, longest)
    backoff.succeeded(100.0)
    assert backoff.failed(100.0 + 30.0, longest) == 1.0


def test_another_policy_is_used_from_the_next_failure_on() -> None:
    backoff = Backoff(POLICY)
    for _ in range(6):
        backoff.failed(0.0, longest)
    backoff.policy = BackoffPolicy(first=0.5, ceiling=5.0, stable=1.0)
    assert backoff.failed(0.0, longest) == 5.0
    backoff.succeeded(10.0)
    assert backoff.failed(11.0, longest) == 0.5


@pytest.mark.parametrize(("first", "ceiling"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_a_policy_that_cannot_work_is_refused(first: float, ceiling: float) -> None:
    with pytest.raises(ValueError, match="expected 0 < first <= ceiling"):
        BackoffPolicy(first=first, ceiling=ceiling)
