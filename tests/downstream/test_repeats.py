"""The first of a kind is loud, the rest is not, and the table stays bounded."""

from __future__ import annotations

from gatewayd.downstream.repeats import Repeats


def test_only_the_first_is_first() -> None:
    repeats = Repeats()
    assert [repeats.is_first("a", float(n)) for n in range(3)] == [True, False, False]
    assert repeats.is_first("b", 3.0)


def test_a_subject_that_goes_on_stays_known() -> None:
    repeats = Repeats(forget_after=10.0)
    assert [repeats.is_first("a", n * 9.0) for n in range(5)] == [True, False, False, False, False]


def test_a_subject_that_was_quiet_is_new_again() -> None:
    repeats = Repeats(forget_after=10.0)
    repeats.is_first("a", 0.0)
    assert repeats.is_first("a", 10.5)


def test_a_full_table_calls_nothing_new_until_old_subjects_are_forgotten() -> None:
    repeats = Repeats(forget_after=10.0, max_subjects=2)
    repeats.is_first("a", 0.0)
    repeats.is_first("b", 5.0)
    assert not repeats.is_first("c", 6.0)
    assert repeats.is_first("c", 10.5)
    assert len(repeats) == 2
