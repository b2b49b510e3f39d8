"""The pace of draining: within the throttle in every sliding second, and never quite nothing."""

from __future__ import annotations

import bisect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.flow.send_pace import SendPace


def drain(pace: SendPace, start: float, end: float, live: list[float] | None = None) -> list[float]:
    """When the outbox sends between two instants, as fast as it may."""
    sent: list[float] = []
    now, live = start, sorted(live or [])
    while now < end:
        while live and live[0] <= now:
            pace.sent(live.pop(0))
        if pace.take(now):
            sent.append(now)
        else:
            now = min(pace.next(now), live[0] if live else end)
    return sent


def peak(times: list[float]) -> int:
    times = sorted(times)
    return max(bisect.bisect_left(times, at + 1.0) - place for place, at in enumerate(times))


@pytest.mark.parametrize("per_second", [1, 2, 7, 20, 100, 5000])
def test_no_sliding_second_holds_more_than_the_limit_and_most_of_it_is_used(per_second: int) -> None:
    times = drain(SendPace(per_second, 0.0), 0.0, 10.0)
    assert peak(times) <= per_second
    assert len(times) >= 10 * per_second * 0.5 - 1


def test_after_a_long_rest_a_burst_stays_within_the_limit() -> None:
    pace = SendPace(100, 0.0)
    times = drain(pace, 3600.0, 3605.0)
    assert peak(times) <= 100


@given(st.lists(st.floats(0.0, 5.0), max_size=300))
def test_what_devices_send_is_taken_off_what_the_outbox_may_send(live: list[float]) -> None:
    times = drain(SendPace(100, 0.0), 0.0, 5.0, live)
    # Devices may burst as they like; over the whole the outbox has what they left, and its own small share.
    assert len(times) <= max(100 * 5 - len(live), 0.05 * 100 * 5) + 0.05 * 100 * 5 + 6


def test_a_fleet_at_the_limit_leaves_the_outbox_a_small_share() -> None:
    live = [at / 200 for at in range(2000)]  # 200 a second, for 10 s
    times = drain(SendPace(100, 0.0), 0.0, 10.0, live)
    assert 45 <= len(times) <= 56


def test_an_even_flow_of_devices_and_the_outbox_together_keep_the_limit() -> None:
    live = [at / 60 for at in range(600)]
    times = drain(SendPace(100, 0.0), 0.0, 10.0, live)
    assert peak(times + live) <= 101  # the own share may come on top of what is left at the instant
    assert len(times) >= 300


def test_another_limit_holds_from_the_next_message_on() -> None:
    pace = SendPace(1000, 0.0)
    drain(pace, 0.0, 1.0)
    pace.retune(10)
    assert peak(drain(pace, 1.0, 6.0)) <= 10


def test_a_debt_at_an_earlier_limit_is_at_most_a_second_of_the_new_one() -> None:
    pace = SendPace(1000, 0.0)
    for _ in range(2000):
        pace.sent(0.0)
    pace.retune(1)
    assert pace.next(0.0) <= 3.0  # a debt of half a message, one to send, half a message a second
