"""Limits shape, pace and stay bounded. Oracle for the rate: a plain count of what passed in each window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.downstream.connect_limits import RateLimit, RefusalPacing


def test_a_burst_up_to_the_limit_passes_at_once() -> None:
    limit = RateLimit(3, 60.0)
    assert [limit.reserve("a", 0.0, 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, None]


def test_more_than_the_limit_gets_later_places_one_by_one() -> None:
    limit = RateLimit(2, 10.0)
    assert [limit.reserve("a", 0.0, 60.0) for _ in range(5)] == [0.0, 0.0, 5.0, 10.0, 15.0]


def test_a_place_beyond_the_patience_is_not_kept() -> None:
    limit = RateLimit(1, 10.0)
    limit.reserve("a", 0.0, 0.0)
    assert limit.reserve("a", 0.0, 9.0) is None
    assert limit.reserve("a", 0.0, 10.0) == 10.0


def test_keys_do_not_disturb_each_other() -> None:
    limit = RateLimit(1, 60.0)
    assert limit.reserve("a", 0.0, 0.0) == 0.0
    assert limit.reserve("b", 0.0, 0.0) == 0.0


def test_a_full_table_has_no_place_for_a_new_key_until_old_ones_are_past() -> None:
    limit = RateLimit(1, 10.0, max_keys=2)
    limit.reserve("a", 0.0, 0.0)
    limit.reserve("b", 5.0, 0.0)
    assert limit.reserve("c", 6.0, 60.0) is None
    assert limit.reserve("a", 10.0, 0.0) == 0.0
    assert limit.reserve("c", 16.0, 0.0) == 0.0
    assert len(limit) == 2


@pytest.mark.parametrize(("limit", "window"), [(0, 1.0), (1, 0.0)])
def test_a_limit_of_nothing_is_a_mistake(limit: int, window: float) -> None:
    with pytest.raises(ValueError, match="rate limit"):
        RateLimit(limit, window)


@given(
    st.integers(1, 5),
    st.lists(st.floats(0.0, 3.0), min_size=1, max_size=40),
    st.floats(0.0, 30.0),
)
def test_no_window_holds_more_than_a_burst_and_its_refill(
    count: int, gaps: list[float], patience: float
) -> None:
    limit, window = RateLimit(count, 10.0), 10.0
    now, passed = 0.0, []
    for gap in gaps:
        now += gap
        wait = limit.reserve("a", now, patience)
        if wait is not None:
            assert wait <= patience
            passed.append(now + wait)
    for start in passed:
        assert sum(start <= at < start + window - 1e-3 for at in passed) <= 2 * count


def test_a_place_can_be_asked_for_without_taking_it() -> None:
    limit = RateLimit(1, 10.0)
    assert limit.wait("a", 0.0) == 0.0
    limit.reserve("a", 0.0, 0.0)
    assert limit.wait("a", 4.0) == 6.0
    assert limit.wait("a", 4.0) == 6.0


def test_refusals_wait_longer_each_time_up_to_the_ceiling() -> None:
    pacing = RefusalPacing(20.0)
    assert [pacing.refused("a", float(n)) for n in range(7)] == [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]


def test_a_key_that_was_quiet_starts_over() -> None:
    pacing = RefusalPacing(20.0, forget_after=120.0)
    pacing.refused("a", 0.0)
    assert pacing.refused("a", 120.0) == 2.0
    assert pacing.refused("a", 240.5) == 1.0


def test_refusals_of_one_key_do_not_slow_another() -> None:
    pacing = RefusalPacing(20.0)
    for _ in range(9):
        pacing.refused("a", 0.0)
    assert pacing.refused("b", 0.0) == 1.0


def test_thousands_of_refusals_stay_at_the_ceiling() -> None:
    pacing = RefusalPacing(20.0)
    assert {pacing.refused("a", 0.0) for _ in range(3000)} == {1.0, 2.0, 4.0, 8.0, 16.0, 20.0}


def test_a_full_table_paces_new_keys_at_the_ceiling_until_old_ones_are_forgotten() -> None:
    pacing = RefusalPacing(20.0, max_keys=2, forget_after=10.0)
    pacing.refused("a", 0.0)
    pacing.refused("b", 5.0)
    assert pacing.refused("c", 6.0) == 20.0
    assert pacing.refused("b", 6.0) == 2.0
    assert pacing.refused("c", 10.5) == 1.0
    assert len(pacing) == 2
