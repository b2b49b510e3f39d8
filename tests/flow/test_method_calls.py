"""The open method calls of one device: names, bounds, and whose a reply is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.flow.method_calls import MethodCalls, Repeated, TooMany


def test_a_device_sees_the_request_id_of_the_hub() -> None:
    calls = MethodCalls(max_calls=2)
    assert calls.open("1f", 300.0, dup=False).device_rid == "1f"


def test_replies_find_their_calls_in_any_order() -> None:
    calls = MethodCalls(max_calls=3)
    for rid in "abc":
        calls.open(rid, 300.0, dup=False)
    taken = [calls.take(rid) for rid in "cab"]
    assert [call.hub_rid for call in taken if call is not None] == ["c", "a", "b"]


def test_a_call_is_answered_once() -> None:
    calls = MethodCalls(max_calls=2)
    calls.open("1", 300.0, dup=False)
    assert calls.take("1") is not None
    assert calls.take("1") is None


def test_a_call_whose_id_is_still_in_work_gets_another_name() -> None:
    calls = MethodCalls(max_calls=4)
    calls.open("1", 300.0, dup=False)
    calls.lose()
    newer = calls.open("1", 400.0, dup=False)
    newest = calls.open("1", 500.0, dup=False)
    assert len({"1", newer.device_rid, newest.device_rid}) == 3
    assert newer.hub_rid == newest.hub_rid == "1"
    older = calls.take("1")
    assert older is not None
    assert older.lost


def test_a_call_that_the_hub_repeats_joins_the_open_one() -> None:
    calls = MethodCalls(max_calls=2)
    calls.open("1", 300.0, dup=False)
    with pytest.raises(Repeated):
        calls.open("1", 301.0, dup=True)
    assert len(calls) == 1


def test_a_repeated_call_whose_first_coming_was_lost_is_a_call() -> None:
    calls = MethodCalls(max_calls=2)
    calls.open("1", 300.0, dup=False)
    calls.lose()
    assert calls.open("1", 301.0, dup=True).hub_rid == "1"


def test_no_more_calls_are_open_than_the_bound() -> None:
    calls = MethodCalls(max_calls=1)
    calls.open("1", 300.0, dup=False)
    with pytest.raises(TooMany):
        calls.open("2", 300.0, dup=False)


def test_calls_end_at_their_deadlines_and_lost_ones_are_not_counted_twice() -> None:
    calls = MethodCalls(max_calls=4)
    calls.open("1", 300.0, dup=False)
    assert calls.lose() == 1
    assert calls.lose() == 0
    calls.open("2", 310.0, dup=False)
    calls.open("3", 320.0, dup=False)
    assert calls.deadline == 300.0
    assert calls.expire(310.0) == 1
    assert calls.deadline == 320.0


@given(
    st.lists(
        st.tuples(st.sampled_from(["open", "take", "lose"]), st.sampled_from(["1", "2", "1-2"])), max_size=30
    )
)
def test_whatever_the_ids_no_two_open_calls_share_a_name(steps: list[tuple[str, str]]) -> None:
    calls = MethodCalls(max_calls=8)
    names: dict[str, str] = {}  # an account of our own: what the device works on, and whose it is
    for step, rid in steps:
        if step == "open" and len(names) < 8:
            call = calls.open(rid, 300.0, dup=False)
            assert call.device_rid not in names
            names[call.device_rid] = rid
        elif step == "lose":
            calls.lose()
        elif step == "take":
            taken = calls.take(rid)
            assert (taken.hub_rid if taken else None) == names.pop(rid, None)
    assert len(calls) == len(names)
