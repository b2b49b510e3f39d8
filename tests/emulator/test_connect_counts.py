"""Connects over time, and handover gaps."""

from __future__ import annotations

import pytest

from gatewayd.emulator.connect_counts import HANDOVER_WINDOW_SECONDS, ConnectCounts


def test_a_connect_is_counted() -> None:
    counts = ConnectCounts(0.0)
    counts.connect(0.5)
    assert counts.rate.series(0.5) == [1]


def test_a_gap_is_from_a_planned_end_to_the_next_connect() -> None:
    counts = ConnectCounts(0.0)
    for number, gap in enumerate((0.010, 0.020, 0.030)):
        counts.planned_end("a", float(number))
        counts.accepted("a", number + gap)
    gaps = counts.gaps()
    assert gaps.count == 3
    assert gaps.p50 == pytest.approx(20.0)
    assert gaps.max == pytest.approx(30.0)


def test_a_first_connect_an_unplanned_end_and_a_late_return_are_no_handovers() -> None:
    counts = ConnectCounts(0.0)
    counts.accepted("a", 0.5)
    counts.planned_end("a", 1.0)
    counts.unplanned_end("a")
    counts.accepted("a", 1.1)
    counts.planned_end("a", 2.0)
    counts.accepted("a", 2.1 + HANDOVER_WINDOW_SECONDS)
    assert counts.gaps().count == 0
