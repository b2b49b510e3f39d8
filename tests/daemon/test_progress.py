"""Progress, room by room."""

from __future__ import annotations

import pytest

from gatewayd.daemon.progress import Progress


def test_a_room_that_keeps_its_promise_is_not_stalled() -> None:
    progress = Progress()
    progress.expect("renewal", 10.0, 100.0)
    for now in (105.0, 115.0, 125.0):
        progress.report("renewal", now)
        assert progress.stalled(now + 10.0) == ()


def test_a_room_that_breaks_it_is_named_with_the_length_of_its_silence() -> None:
    progress = Progress()
    progress.expect("renewal", 10.0, 100.0)
    progress.expect("listener", 10.0, 95.0)
    stalls = progress.stalled(112.0)
    assert [(stall.room, stall.silent_for) for stall in stalls] == [("listener", 17.0), ("renewal", 12.0)]
    assert str(stalls[1]) == "renewal has not reported for 12.0 s, it promised every 10.0 s"


def test_a_room_that_reports_again_is_well_again() -> None:
    progress = Progress()
    progress.expect("renewal", 10.0, 0.0)
    assert progress.stalled(11.0)
    progress.report("renewal", 11.0)
    assert progress.stalled(12.0) == ()


def test_a_promise_can_be_changed_and_taken_back() -> None:
    progress = Progress()
    progress.expect("renewal", 10.0, 0.0)
    progress.expect("renewal", 100.0, 0.0)
    assert progress.stalled(50.0) == ()
    progress.dismiss("renewal")
    assert progress.stalled(1000.0) == ()
    progress.dismiss("renewal")


def test_nothing_promised_is_nothing_stalled() -> None:
    assert Progress().stalled(1e9) == ()


def test_a_misspelt_room_and_an_empty_promise_are_refused() -> None:
    progress = Progress()
    with pytest.raises(KeyError):
        progress.report("renewals", 0.0)
    with pytest.raises(ValueError, match="more than 0"):
        progress.expect("renewal", 0.0, 0.0)
