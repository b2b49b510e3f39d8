"""Connects over time: peaks of the sliding and of the aligned second, the series, handover gaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.emulator.connect_counts import HANDOVER_WINDOW_SECONDS, ConnectCounts


def test_the_sliding_peak_sees_a_burst_across_two_whole_seconds() -> None:
    counts = ConnectCounts(100.0)
    for offset in (0.8, 0.9, 1.0, 1.1):
        counts.connect(100.0 + offset)
    assert (counts.sliding_peak, counts.aligned_peak) == (4, 2)
    assert counts.per_second(103.5) == [2, 2, 0, 0]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60))
def test_the_peaks_are_those_of_a_plain_count(milliseconds: list[int]) -> None:
    moments = sorted(milliseconds)
    counts = ConnectCounts(0.0)
    for moment in moments:
        counts.connect(moment / 1024)
    windows = [sum(1 for other in moments if moment - 1024 < other <= moment) for moment in moments]
    assert counts.sliding_peak == max(windows)
    assert sum(counts.per_second(moments[-1] / 1024)) == len(moments)
    assert counts.aligned_peak == max(counts.per_second(moments[-1] / 1024))


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


def test_the_series_forgets_its_oldest_seconds() -> None:
    counts = ConnectCounts(0.0)
    counts.connect(0.5)
    series = counts.per_second(1_000_000.0)
    assert len(series) == 86_400
    assert sum(series) == 0
