"""Who runs out is told in order, at a pace, and those who left are not kept for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.downstream.token_expiry import SLACK, ExpiryQueue


def nobody_left(who: str) -> bool:
    return False


def test_the_earliest_come_first_and_only_when_due() -> None:
    queue = ExpiryQueue[str](nobody_left)
    for who, due in (("c", 30.0), ("a", 10.0), ("b", 20.0)):
        queue.file(who, due, 3)
    assert queue.take_due(9.9, 5) == []
    assert queue.take_due(20.0, 5) == ["a", "b"]
    assert queue.take_due(20.0, 5) == []
    assert queue.take_due(99.0, 5) == ["c"]


def test_no_more_are_taken_than_asked_for() -> None:
    queue = ExpiryQueue[str](nobody_left)
    for n in range(5):
        queue.file(str(n), 0.0, 5)
    assert [len(queue.take_due(1.0, 2)) for _ in range(4)] == [2, 2, 1, 0]


def test_those_who_left_are_passed_over_and_do_not_use_up_the_pace() -> None:
    gone = {"a", "b"}
    queue = ExpiryQueue[str](gone.__contains__)
    for who in ("a", "b", "c"):
        queue.file(who, 0.0, 3)
    assert queue.take_due(1.0, 1) == ["c"]


def test_a_wall_clock_that_steps_needs_no_planning_again() -> None:
    queue = ExpiryQueue[str](nobody_left)
    queue.file("a", 1000.0, 1)
    assert queue.take_due(500.0, 1) == []
    assert queue.take_due(100.0, 1) == []
    assert queue.take_due(5000.0, 1) == ["a"]


@given(st.integers(1, 20), st.integers(1, 400))
def test_a_device_that_comes_and_goes_does_not_fill_the_queue(present: int, visits: int) -> None:
    here = {f"d{n}": 0 for n in range(present)}
    queue = ExpiryQueue[tuple[str, int]](lambda who: here[who[0]] != who[1])
    for visit in range(visits):
        name = f"d{visit % present}"
        here[name] += 1
        queue.file((name, here[name]), 1000.0 + visit, present)
        assert len(queue) <= 2 * present + SLACK
    assert len(queue.take_due(9999.0, 10_000)) == min(present, visits)
