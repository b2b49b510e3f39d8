"""How loud a failure is said."""

from __future__ import annotations

import logging

from gatewayd.daemon.repeat_guard import Recovery, RepeatGuard


def test_the_first_failure_is_a_warning_and_repeats_are_not() -> None:
    guard = RepeatGuard()
    levels = [guard.failed("dev-1", float(second)) for second in range(4)]
    assert levels == [logging.WARNING, logging.DEBUG, logging.DEBUG, logging.DEBUG]


def test_recovery_tells_how_long_it_lasted_and_the_next_failure_is_a_warning_again() -> None:
    guard = RepeatGuard()
    guard.failed("dev-1", 10.0)
    guard.failed("dev-1", 20.0)
    assert guard.recovered("dev-1", 75.0) == Recovery(outage_seconds=65.0, failures=2)
    assert guard.recovered("dev-1", 80.0) is None
    assert guard.failed("dev-1", 90.0) == logging.WARNING


def test_subjects_do_not_disturb_each_other() -> None:
    guard = RepeatGuard()
    guard.failed("dev-1", 0.0)
    assert guard.failed("dev-2", 0.0) == logging.WARNING
    guard.recovered("dev-1", 1.0)
    assert guard.failed("dev-2", 1.0) == logging.DEBUG


def test_a_subject_that_is_forgotten_starts_over() -> None:
    guard = RepeatGuard()
    guard.failed("dev-1", 0.0)
    guard.forget("dev-1")
    guard.forget("dev-1")
    assert guard.failed("dev-1", 1.0) == logging.WARNING


def test_beyond_its_bound_failures_are_counted_and_said_quietly() -> None:
    guard = RepeatGuard(capacity=2)
    assert [guard.failed(f"dev-{n}", 0.0) for n in range(4)] == [
        logging.WARNING,
        logging.WARNING,
        logging.DEBUG,
        logging.DEBUG,
    ]
    assert guard.untracked == 2
    assert guard.recovered("dev-3", 1.0) is None
    guard.recovered("dev-0", 1.0)
    assert guard.failed("dev-3", 2.0) == logging.WARNING
