"""The connect budget: its window, its order, and how it yields to a hub that throttles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gatewayd.errors import LocalProtocolError
from gatewayd.upstream.budget import (
    MAX_PAUSE_SECONDS,
    MAX_STRAIN,
    QUIET_SECONDS,
    ConnectBudget,
    Permit,
    Purpose,
)


def ask(
    budget: ConnectBudget[str], *keys: str, purpose: Purpose = Purpose.RECONNECT, now: float = 0.0
) -> None:
    for key in keys:
        budget.request(key, purpose, now, now)


def granted(budget: ConnectBudget[str], now: float) -> list[str]:
    keys = []
    while (permit := budget.next_permit(now)) is not None:
        keys.append(permit.key)
    return keys


def take(budget: ConnectBudget[str], now: float) -> Permit[str]:
    permit = budget.next_permit(now)
    assert permit is not None
    return permit


def test_renewals_go_before_reconnects_and_reconnects_before_first_connects() -> None:
    budget = ConnectBudget[str](50)
    ask(budget, "first", purpose=Purpose.FIRST)
    ask(budget, "again", purpose=Purpose.RECONNECT)
    ask(budget, "renewal", purpose=Purpose.RENEWAL)
    assert granted(budget, 0.0) == ["renewal", "again", "first"]


def test_inside_a_purpose_the_nearest_deadline_goes_first() -> None:
    budget = ConnectBudget[str](50)
    for key, deadline in (("c", 30.0), ("a", 10.0), ("b", 20.0)):
        budget.request(key, Purpose.RENEWAL, deadline, 0.0)
    assert granted(budget, 0.0) == ["a", "b", "c"]


def test_permits_out_count_against_the_budget_however_long_they_are_held() -> None:
    budget = ConnectBudget[str](2)
    ask(budget, "a", "b", "c")
    assert granted(budget, 0.0) == ["a", "b"]
    assert budget.deadline() is None
    assert budget.next_permit(100.0) is None


def test_a_spent_permit_frees_its_place_a_second_after_connect_was_written() -> None:
    budget = ConnectBudget[str](1)
    ask(budget, "a", "b")
    permit = take(budget, 0.0)
    budget.spend(permit, 3.0)
    assert budget.deadline() == 4.0
    assert budget.next_permit(3.999) is None
    assert take(budget, 4.0).key == "b"


def test_a_permit_given_back_paces_dials_that_fail_at_once() -> None:
    budget = ConnectBudget[str](1)
    ask(budget, "a", "b")
    budget.give_back(take(budget, 0.0), 0.01)
    assert budget.next_permit(0.5) is None
    assert budget.deadline() == 1.0
    assert take(budget, 1.0).key == "b"


def test_a_permit_given_back_late_frees_its_place_at_once() -> None:
    budget = ConnectBudget[str](1)
    ask(budget, "a", "b")
    budget.give_back(take(budget, 0.0), 20.0)
    assert take(budget, 20.0).key == "b"


def test_a_key_has_one_request_and_a_new_one_replaces_it() -> None:
    budget = ConnectBudget[str](50)
    ask(budget, "a", purpose=Purpose.FIRST)
    budget.request("b", Purpose.RENEWAL, 10.0, 0.0)
    budget.request("a", Purpose.RENEWAL, 5.0, 2.0)
    assert budget.waiting == 2
    permit = take(budget, 3.0)
    assert (permit.key, permit.purpose, permit.waited) == ("a", Purpose.RENEWAL, 3.0)
    assert granted(budget, 3.0) == ["b"]


def test_a_key_that_holds_a_permit_may_not_ask_again() -> None:
    budget = ConnectBudget[str](50)
    ask(budget, "a")
    take(budget, 0.0)
    with pytest.raises(LocalProtocolError, match="holds a permit"):
        ask(budget, "a")


def test_a_permit_is_spent_or_given_back_once() -> None:
    budget = ConnectBudget[str](50)
    ask(budget, "a")
    permit = take(budget, 0.0)
    budget.spend(permit, 0.0)
    for end in (budget.spend, budget.give_back):
        with pytest.raises(LocalProtocolError, match="already"):
            end(permit, 0.0)


def test_a_withdrawn_request_is_not_granted() -> None:
    budget = ConnectBudget[str](50)
    ask(budget, "a", "b")
    assert budget.withdraw("a")
    assert not budget.withdraw("a")
    assert granted(budget, 0.0) == ["b"]
    assert budget.deadline() is None


def test_nobody_waits_means_no_deadline_and_somebody_waits_means_now() -> None:
    budget = ConnectBudget[str](1)
    assert budget.deadline() is None
    ask(budget, "a", now=7.0)
    deadline = budget.deadline()
    assert deadline is not None
    assert deadline <= 7.0


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        ConnectBudget[str](0)


def test_a_throttle_pauses_everyone_and_halves_the_limit() -> None:
    budget = ConnectBudget[str](8)
    ask(budget, *"abcdefgh")
    budget.throttled(0.0)
    assert granted(budget, 0.5) == []
    assert budget.deadline() == 1.0
    assert granted(budget, 1.0) == list("abcd")


def test_throttles_reported_during_the_pause_are_the_same_throttle() -> None:
    budget = ConnectBudget[str](8)
    for instant in (0.0, 0.1, 0.2):
        budget.throttled(instant)
    assert budget.strain == 1
    budget.throttled(1.5)
    assert budget.strain == 2


def test_each_new_throttle_pauses_longer_up_to_a_bound() -> None:
    budget = ConnectBudget[str](50)
    now, pauses = 0.0, []
    for _ in range(MAX_STRAIN + 2):
        budget.throttled(now)
        ask(budget, "a", now=now)
        deadline = budget.deadline()
        assert deadline is not None
        pauses.append(deadline - now)
        now = deadline
    assert pauses == [1, 2, 4, 8, 16, 32, 32, 32]
    assert budget.available(now) == 1


def test_what_the_hub_asks_for_is_honoured_up_to_a_bound() -> None:
    budget = ConnectBudget[str](50)
    ask(budget, "a")
    budget.throttled(0.0, 20.0)
    assert budget.deadline() == 20.0
    budget.throttled(5.0, 1e9)
    assert budget.deadline() == 5.0 + MAX_PAUSE_SECONDS


def test_quiet_spells_give_the_limit_back_step_by_step() -> None:
    budget = ConnectBudget[str](48)
    budget.throttled(0.0)
    budget.throttled(1.0)
    assert budget.available(3.0) == 12
    assert budget.available(3.0 + QUIET_SECONDS) == 24
    assert budget.available(3.0 + 2 * QUIET_SECONDS) == 48
    ask(budget, "a")
    take(budget, 3.0 + 2 * QUIET_SECONDS)
    assert budget.strain == 0


@settings(max_examples=200)
@given(start=st.floats(0.0, 1e7), throttles=st.integers(1, 8))
def test_waking_at_each_deadline_comes_to_an_end_with_a_permit(start: float, throttles: int) -> None:
    budget = ConnectBudget[str](1)
    ask(budget, "a", "b", now=start)
    budget.spend(take(budget, start), start)
    now = start
    for _ in range(throttles):
        budget.throttled(now)
        now += 0.7
    wakes = 0
    while budget.next_permit(now) is None:
        deadline = budget.deadline()
        assert deadline is not None
        assert deadline > now, "a deadline that is past and changes nothing would spin"
        now = deadline
        wakes += 1
    assert wakes <= 2 + MAX_STRAIN


def test_looking_ahead_changes_nothing() -> None:
    budget = ConnectBudget[str](1)
    ask(budget, "a", "b")
    budget.spend(take(budget, 0.0), 0.0)
    assert budget.available(5.0) == 1
    assert budget.available(0.5) == 0
    assert budget.next_permit(0.5) is None


def test_another_budget_counts_from_now_on() -> None:
    budget = ConnectBudget[str](4)
    ask(budget, *"abcdef")
    for _ in range(4):
        budget.spend(take(budget, 0.0), 0.0)
    budget.retune(2)
    assert budget.available(0.5) == 0
    assert granted(budget, 1.0) == ["e", "f"]


def test_requests_that_come_and_go_leave_nothing_behind() -> None:
    budget = ConnectBudget[int](1)
    for number in range(5000):
        budget.request(number % 7, Purpose.FIRST, float(number), float(number))
        if number % 3 == 0:
            budget.withdraw(number % 7)
    assert sum(len(queue) for queue in budget._queues) <= 128


class BudgetMachine(RuleBasedStateMachine):
    """Any sequence of uses keeps the window, the order and the wake-up. The books kept here are the oracle."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 3
        self.budget = ConnectBudget[int](self.limit)
        self.now = 0.0
        self.waiting: dict[int, tuple[Purpose, float]] = {}
        self.out: dict[int, Permit[int]] = {}
        self.written: list[float] = []

    @rule(seconds=st.one_of(st.floats(0.0, 2.0), st.sampled_from([0.5, 1.0, 40.0])))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.integers(0, 9), purpose=st.sampled_from(Purpose), ahead=st.floats(0, 100))
    def request(self, key: int, purpose: Purpose, ahead: float) -> None:
        if key not in self.out:
            self.budget.request(key, purpose, self.now + ahead, self.now)
            self.waiting[key] = (purpose, self.now + ahead)

    @rule(key=st.integers(0, 9))
    def withdraw(self, key: int) -> None:
        assert self.budget.withdraw(key) == (self.waiting.pop(key, None) is not None)

    @rule()
    def grant(self) -> None:
        before = self.budget.available(self.now)
        deadline = self.budget.deadline()
        permit = self.budget.next_permit(self.now)
        if permit is None:
            assert not self.waiting or before == 0
            assert deadline is None or deadline > self.now or before == 0
            return
        assert before > 0
        assert deadline is not None
        assert deadline <= self.now
        assert self.waiting[permit.key] == min(self.waiting.values())
        del self.waiting[permit.key]
        self.out[permit.key] = permit

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def spend(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.out)))
        self.budget.spend(self.out.pop(key), self.now)
        self.written.append(self.now)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.out)))
        self.budget.give_back(self.out.pop(key), self.now)

    @rule(seconds=st.sampled_from([0.0, 0.0, 5.0]))
    def throttle(self, seconds: float) -> None:
        self.budget.throttled(self.now, seconds)

    @invariant()
    def every_sliding_second_keeps_the_budget(self) -> None:
        recent = [instant for instant in self.written if instant + 1.0 > self.now]
        assert len(recent) + len(self.out) <= self.limit
        assert (self.budget.waiting, self.budget.out) == (len(self.waiting), len(self.out))

    @invariant()
    def a_wait_that_time_can_end_has_a_deadline(self) -> None:
        if self.waiting and not self.out:
            deadline = self.budget.deadline()
            assert deadline is not None
            assert self.budget.available(max(deadline, self.now)) > 0 or self.budget.strain > 0


TestAnySequence = BudgetMachine.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
