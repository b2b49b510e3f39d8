"""Counts by second: peaks of the sliding and of the aligned second, the series."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.emulator.rates import PerSecond


def test_the_sliding_peak_sees_a_burst_across_two_whole_seconds() -> None:
    rate = PerSecond(100.0)
    for offset in (0.8, 0.9, 1.0, 1.1):
        rate.count(100.0 + offset)
    assert (rate.sliding_peak, rate.aligned_peak) == (4, 2)
    assert rate.series(103.5) == [2, 2, 0, 0]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60))
def test_the_peaks_are_those_of_a_plain_count(milliseconds: list[int]) -> None:
    moments = sorted(milliseconds)
    rate = PerSecond(0.0)
    for moment in moments:
        rate.count(moment / 1024)
    windows = [sum(1 for other in moments if moment - 1024 < other <= moment) for moment in moments]
    assert rate.sliding_peak == max(windows)
    assert sum(rate.series(moments[-1] / 1024)) == len(moments)
    assert rate.aligned_peak == max(rate.series(moments[-1] / 1024))


def test_the_series_forgets_its_oldest_seconds() -> None:
    rate = PerSecond(0.0)
    rate.count(0.5)
    series = rate.series(1_000_000.0)
    assert len(series) == 86_400
    assert sum(series) == 0
