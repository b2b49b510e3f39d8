"""The connect throttle: never more than the limit in any window of one second, whatever the mode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.emulator.connect_throttle import MAX_HOLD_SECONDS, Admission, ConnectThrottle, OverRate


@given(st.lists(st.integers(0, 4000), max_size=80), st.integers(1, 9), st.sampled_from(OverRate))
def test_no_window_of_a_second_holds_more_than_the_limit(
    milliseconds: list[int], limit: int, mode: OverRate
) -> None:
    throttle = ConnectThrottle(limit, mode)
    goes: list[float] = []
    for moment in sorted(milliseconds):
        admission = throttle.admit(moment / 1024)
        if admission.admitted:
            goes.append(moment / 1024 + admission.hold)
    for end in goes:
        assert sum(1 for other in goes if end - 1 + 1e-9 < other <= end) <= limit


@pytest.mark.parametrize("mode", [OverRate.DROP, OverRate.REFUSE])
def test_over_the_limit_is_a_no_and_the_window_opens_again_after_a_second(mode: OverRate) -> None:
    throttle = ConnectThrottle(2, mode)
    assert [throttle.admit(0.5).admitted for _ in range(3)] == [True, True, False]
    assert not throttle.admit(1.4).admitted
    assert throttle.admit(1.5) == Admission(admitted=True)


def test_a_shaped_connect_is_held_until_there_is_room() -> None:
    throttle = ConnectThrottle(2, OverRate.DELAY)
    assert [throttle.admit(0.0).hold for _ in range(5)] == [0, 0, 1.0, 1.0, 2.0]


def test_a_hold_longer_than_its_bound_is_a_no() -> None:
    throttle = ConnectThrottle(1, OverRate.DELAY)
    admissions = [throttle.admit(0.0) for _ in range(40)]
    assert max(admission.hold for admission in admissions) == MAX_HOLD_SECONDS
    assert not admissions[-1].admitted
    assert admissions[-1].over


def test_no_limit_is_no_limit() -> None:
    throttle = ConnectThrottle(0)
    assert all(throttle.admit(0.0).admitted for _ in range(1000))
