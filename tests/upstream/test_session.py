"""The life of one identity: what each refusal leads to, how it retries, and that nothing unlisted can happen."""

from __future__ import annotations

import pytest

from gatewayd.backoff import BackoffPolicy
from gatewayd.errors import LocalProtocolError
from gatewayd.protocol.iothub.refusals import Ask
from gatewayd.upstream.session import (
    IN_BUDGET,
    IN_USE,
    TRANSITIONS,
    HubSession,
    Input,
    SessionPolicy,
    State,
)

POLICY = SessionPolicy(retry=BackoffPolicy(first=1.0, ceiling=60.0, stable=60.0))


def middle(least: float, most: float) -> float:
    return (least + most) / 2.0


def latest(least: float, most: float) -> float:
    return most


def wanted(*, has_secondary: bool = False) -> HubSession[str]:
    session = HubSession("d", has_secondary=has_secondary)
    session.want()
    return session


def up(now: float = 0.0, life: float = 1000.0, *, has_secondary: bool = False) -> HubSession[str]:
    session = wanted(has_secondary=has_secondary)
    session.permitted(now, POLICY)
    session.connect_written(now, POLICY)
    session.succeeded(now, now + life, now, POLICY)
    session.plan(now + 0.8 * life, POLICY)
    return session


def renewing(now: float = 800.0) -> HubSession[str]:
    session = up()
    session.due(now)
    session.permitted(now, POLICY)
    return session


def fail(session: HubSession[str], ask: Ask, now: float) -> float:
    """Go through the queue, fail the attempt, and say how long it waits then."""
    if session.state is not State.QUEUED:
        session.due(now)
    session.permitted(now, POLICY)
    session.down(ask, now, POLICY, latest)
    assert session.wake is not None
    return session.wake - now


def test_a_wanted_session_queues_opens_and_is_up() -> None:
    session = wanted()
    states = [session.state]
    session.permitted(1.0, POLICY)
    assert session.wake == 1.0 + POLICY.attempt_limit
    states.append(session.state)
    session.succeeded(1.2, 1001.2, 1.3, POLICY)
    assert [*states, session.state] == [State.QUEUED, State.OPENING, State.UP]
    assert session.in_use


def test_a_renewal_begins_a_dial_ahead_of_its_place() -> None:
    assert up().wake == 800.0 - POLICY.dial_ahead


def test_a_place_beyond_the_guard_is_cut_to_the_guard() -> None:
    session = up()
    session.plan(5000.0, POLICY)
    assert session.wake == session.guard_at == 980.0


@pytest.mark.parametrize(("life", "guard"), [(20.0, 1.0), (1000.0, 20.0), (86_400.0, 30.0)])
def test_the_guard_grows_with_the_life_between_bounds(life: float, guard: float) -> None:
    assert POLICY.guard(life) == guard


def test_waits_grow_without_a_success_up_to_the_ceiling() -> None:
    session = wanted()
    waits = [fail(session, Ask.WAIT, 10.0 * attempt) for attempt in range(6)]
    assert waits == [1.0, 3.0, 9.0, 27.0, 60.0, 60.0]


def test_waits_that_a_reload_has_shortened_are_short_also_for_one_that_failed_before() -> None:
    session = wanted()
    for _ in range(6):
        fail(session, Ask.WAIT, 0.0)
    shorter = SessionPolicy(retry=BackoffPolicy(first=1.0, ceiling=5.0, stable=60.0))
    session.due(0.0)
    session.permitted(0.0, shorter)
    session.down(Ask.WAIT, 0.0, shorter, latest)
    assert session.wake == 5.0


def test_a_short_success_does_not_reset_the_waits_and_a_stable_one_does() -> None:
    session = wanted()
    for _ in range(4):
        fail(session, Ask.WAIT, 0.0)
    session.due(100.0)
    session.permitted(100.0, POLICY)
    session.succeeded(100.0, 1100.0, 100.0, POLICY)
    session.down(Ask.WAIT, 150.0, POLICY, latest)
    assert session.wake == 150.0 + 60.0
    session.due(210.0)
    session.permitted(210.0, POLICY)
    session.succeeded(210.0, 1210.0, 210.0, POLICY)
    session.down(Ask.WAIT, 280.0, POLICY, latest)
    assert session.wake == 281.0


def test_sign_again_retries_with_the_same_key() -> None:
    session = wanted(has_secondary=True)
    assert fail(session, Ask.SIGN_AGAIN, 0.0) == 1.0
    assert (session.state, session.secondary) == (State.BACKOFF, False)


def test_try_secondary_takes_the_other_key_and_parks_when_both_are_refused() -> None:
    session = wanted(has_secondary=True)
    fail(session, Ask.TRY_SECONDARY, 0.0)
    assert (session.state, session.secondary) == (State.BACKOFF, True)
    fail(session, Ask.TRY_SECONDARY, 5.0)
    assert (session.state, session.secondary) == (State.PARKED, False)


def test_try_secondary_without_one_parks() -> None:
    session = wanted()
    fail(session, Ask.TRY_SECONDARY, 0.0)
    assert session.state is State.PARKED


def test_a_secondary_key_that_works_is_kept() -> None:
    session = wanted(has_secondary=True)
    fail(session, Ask.TRY_SECONDARY, 0.0)
    session.due(5.0)
    session.permitted(5.0, POLICY)
    session.succeeded(5.0, 1005.0, 5.0, POLICY)
    session.down(Ask.WAIT, 500.0, POLICY, middle)
    assert session.secondary


def test_parked_is_probed_after_ten_minutes_then_slower_up_to_an_hour() -> None:
    session = wanted()
    assert [fail(session, Ask.PARK, 0.0) for _ in range(5)] == [600.0, 1200.0, 2400.0, 3600.0, 3600.0]


def test_a_probe_that_succeeds_unparks_and_forgets() -> None:
    session = wanted()
    fail(session, Ask.PARK, 0.0)
    fail(session, Ask.PARK, 600.0)
    session.due(2000.0)
    session.permitted(2000.0, POLICY)
    session.succeeded(2000.0, 3000.0, 2000.0, POLICY)
    session.down(Ask.PARK, 2500.0, POLICY, latest)
    assert session.wake == 2500.0 + 600.0


def test_stop_ends_all_retries_until_someone_asks() -> None:
    session = wanted()
    session.permitted(0.0, POLICY)
    session.down(Ask.STOP, 1.0, POLICY, latest)
    assert (session.state, session.wake) == (State.STOPPED, None)
    session.due(50.0)
    assert session.state is State.QUEUED


def test_a_failed_renewal_is_tried_again_inside_the_remaining_life() -> None:
    session = renewing()
    now, attempts = 800.0, 0
    while session.state is not State.CLOSING and attempts < 1000:
        session.renewal_failed(Ask.WAIT, now, POLICY, latest)
        attempts += 1
        assert session.state is State.RENEWAL_BACKOFF
        assert session.wake is not None
        assert session.wake <= session.guard_at
        now = session.wake
        if now >= session.guard_at:
            session.give_up(now, POLICY)
            break
        session.due(now)
        session.permitted(now, POLICY)
    assert now == session.guard_at
    assert attempts >= 8, "retries come closer as the end comes nearer"


def test_after_connect_is_written_the_old_end_does_not_count_any_more() -> None:
    session = renewing(970.0)
    assert session.wake == session.guard_at
    session.connect_written(975.0, POLICY)
    assert session.wake == 975.0 + POLICY.attempt_limit


def test_a_refusal_learned_in_a_renewal_decides_what_comes_after_the_close() -> None:
    session = renewing()
    session.renewal_failed(Ask.PARK, 801.0, POLICY, latest)
    session.give_up(980.0, POLICY)
    session.down(None, 980.1, POLICY, latest)
    assert session.state is State.PARKED


def test_a_session_wanted_again_while_it_closes_opens_at_once() -> None:
    session = up()
    session.unwant(10.0, POLICY)
    assert (session.state, session.wake) == (State.CLOSING, 10.0 + POLICY.close_limit)
    session.want()
    session.down(None, 11.0, POLICY, latest)
    assert session.state is State.QUEUED


def test_a_session_nobody_wants_ends_absent() -> None:
    session = up()
    session.unwant(10.0, POLICY)
    session.down(None, 11.0, POLICY, latest)
    assert (session.state, session.wake) == (State.ABSENT, None)


def test_a_stuck_attempt_counts_as_a_failure() -> None:
    session = wanted()
    session.permitted(0.0, POLICY)
    session.give_up(90.0, POLICY, stuck=True)
    session.down(None, 91.0, POLICY, latest)
    assert (session.state, session.wake) == (State.BACKOFF, 92.0)


def test_reports_that_cross_with_a_close_do_not_stop_it() -> None:
    session = renewing()
    session.unwant(801.0, POLICY)
    wake = session.wake
    session.succeeded(801.0, 1801.0, 801.5, POLICY)
    assert (session.state, session.wake) == (State.CLOSING, wake)


def test_three_short_lives_in_a_row_look_like_a_twin_and_slow_down() -> None:
    session = wanted()
    now = 0.0
    waits = []
    for _ in range(9):
        if session.state is State.BACKOFF:
            session.due(now)
        session.permitted(now, POLICY)
        session.succeeded(now, now + 1000.0, now, POLICY)
        session.down(Ask.WAIT, now + 5.0, POLICY, latest)
        assert session.wake is not None
        waits.append(session.wake - now - 5.0)
        now = session.wake
    assert session.twin_suspected
    assert waits[-1] == POLICY.twin_ceiling
    assert waits == sorted(waits)


def test_a_long_life_clears_the_suspicion() -> None:
    session = wanted()
    for now in (0.0, 1000.0, 2000.0):
        if session.state is State.BACKOFF:
            session.due(now)
        session.permitted(now, POLICY)
        session.succeeded(now, now + 900.0, now, POLICY)
        session.down(Ask.WAIT, now + 5.0, POLICY, latest)
    session.due(3000.0)
    session.permitted(3000.0, POLICY)
    session.succeeded(3000.0, 3900.0, 3000.0, POLICY)
    session.down(Ask.WAIT, 3100.0, POLICY, latest)
    assert not session.twin_suspected


def test_a_token_that_ends_sooner_moves_its_guard() -> None:
    session = up()
    session.shift_expiry(100.0, POLICY)
    assert (session.signed, session.expires, session.guard_at) == (-100.0, 900.0, 880.0)


def test_what_the_table_does_not_list_is_an_error_of_ours() -> None:
    with pytest.raises(LocalProtocolError, match="SUCCEEDED while QUEUED"):
        wanted().succeeded(0.0, 10.0, 0.0, POLICY)


def test_every_state_but_absent_can_be_left_when_nobody_wants_it() -> None:
    for state in set(State) - {State.ABSENT}:
        assert TRANSITIONS[state, Input.UNWANTED] in (State.ABSENT, State.CLOSING)


def test_every_state_in_which_something_may_hang_can_be_ended_by_us() -> None:
    for state in IN_USE | {State.OPENING}:
        assert TRANSITIONS[state, Input.EXPIRING] is State.CLOSING
    for state in IN_BUDGET:
        assert (state, Input.PERMITTED) in TRANSITIONS


@pytest.mark.parametrize("state", State)
def test_no_state_is_without_a_way_out(state: State) -> None:
    assert [then for (start, _), then in TRANSITIONS.items() if start is state and then is not state]
