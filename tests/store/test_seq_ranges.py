"""Ranges against a plain set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.store.seq_ranges import SeqRanges


def spread(ranges: list[tuple[int, int]]) -> list[int]:
    return [seq for start, end in ranges for seq in range(start, end + 1)]


@given(st.lists(st.integers(1, 60)), st.integers(1, 70))
def test_ranges_hold_what_a_set_holds(seqs: list[int], limit: int) -> None:
    ranges = SeqRanges()
    ranges.update(seqs)
    expected = set(seqs)
    assert spread(ranges.first(1000)) == sorted(expected)
    assert all((seq in ranges) == (seq in expected) for seq in range(62))
    first = ranges.first(limit)
    assert spread(first) == sorted(expected)[:limit]
    ranges.drop(first)
    assert spread(ranges.first(1000)) == sorted(expected)[limit:]


@given(st.permutations(range(1, 40)))
def test_a_backlog_that_drains_whole_is_one_range(seqs: list[int]) -> None:
    ranges = SeqRanges()
    ranges.update(seqs)
    assert len(ranges) == 1
    assert ranges.first(1000) == [(1, 39)]


def test_nothing_is_dropped_of_nothing() -> None:
    ranges = SeqRanges()
    ranges.drop(ranges.first(5))
    assert len(ranges) == 0
