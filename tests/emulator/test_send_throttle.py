"""The send throttle: shape, then drop."""

from __future__ import annotations

import pytest

from gatewayd.emulator.send_throttle import MAX_SENDS_PER_SECOND, SendThrottle


def test_without_a_limit_nothing_is_late() -> None:
    throttle = SendThrottle()
    assert [throttle.judge(0.0) for _ in range(1000)] == [0.0] * 1000


def test_what_is_over_the_limit_is_late_until_there_is_room() -> None:
    throttle = SendThrottle(2, shape_seconds=10.0)
    assert [throttle.judge(5.0) for _ in range(5)] == [0.0, 0.0, 1.0, 1.0, 2.0]
    assert throttle.judge(8.0) == 0.0
    assert (throttle.shaped, throttle.dropped) == (3, 0)


def test_what_would_be_too_late_is_not_taken_and_uses_no_room() -> None:
    throttle = SendThrottle(1, shape_seconds=1.0)
    assert [throttle.judge(0.0) for _ in range(4)] == [0.0, 1.0, None, None]
    assert throttle.judge(1.5) == 0.5
    assert throttle.dropped == 2


def test_without_shaping_the_first_one_over_the_limit_is_not_taken() -> None:
    throttle = SendThrottle(1, shape_seconds=0.0)
    assert [throttle.judge(0.0), throttle.judge(0.5), throttle.judge(1.0)] == [0.0, None, 0.0]


def test_the_limit_is_bounded_and_may_be_changed() -> None:
    throttle = SendThrottle(1)
    throttle.per_second = 3
    assert throttle.per_second == 3
    assert [throttle.judge(0.0) for _ in range(3)] == [0.0] * 3
    with pytest.raises(ValueError, match="sends_per_second"):
        throttle.per_second = MAX_SENDS_PER_SECOND + 1
