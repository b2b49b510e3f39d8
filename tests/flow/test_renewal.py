"""The conductor: what it commands, and what it never leaves without a next action."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gatewayd.errors import LocalProtocolError
from gatewayd.flow.renewal import Close, CloseReason, Command, Open, Renew, Renewal
from gatewayd.protocol.iothub.refusals import Ask
from gatewayd.tokens.renewal_timetable import RenewalTimetable
from gatewayd.upstream.budget import ConnectBudget
from gatewayd.upstream.session import HubSession, SessionPolicy, State

LIFE = 1000.0
POLICY = SessionPolicy()


def conductor(per_second: int = 50, *, trusted: bool = True) -> Renewal[str]:
    budget: ConnectBudget[HubSession[str]] = ConnectBudget(per_second)
    return Renewal(
        timetable=RenewalTimetable(0.70, 0.85),
        budget=budget,
        lifetime=LIFE,
        uniform=lambda least, most: most,
        policy=POLICY,
        trusted=trusted,
    )


def commands(renewal: Renewal[str], now: float) -> list[Command[str]]:
    said = []
    while (command := renewal.next_command(now)) is not None:
        said.append(command)
    return said


def bring_up(renewal: Renewal[str], *identities: str, now: float = 0.0) -> None:
    for identity in identities:
        renewal.want(identity, now)
    for command in commands(renewal, now):
        renewal.connecting(command.identity, now)
        renewal.opened(command.identity, now, now + LIFE, now)


def next_renewal(renewal: Renewal[str]) -> tuple[Renew[str], float]:
    """Let time pass until a renewal is commanded."""
    now = renewal.deadline()
    assert now is not None
    renewal.handle_deadline(now)
    (command,) = commands(renewal, now)
    assert isinstance(command, Renew)
    return command, now


def test_a_wanted_identity_is_opened_and_then_renewed_in_its_window() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    assert renewal.state("d") is State.UP
    first, now = next_renewal(renewal)
    assert 0.02 * LIFE <= first.not_before <= 0.85 * LIFE
    assert now == first.not_before - POLICY.dial_ahead
    signed = first.not_before
    renewal.connecting("d", signed)
    assert renewal.renewed("d", signed, signed + LIFE, signed + 0.1) == 0.0
    second, _ = next_renewal(renewal)
    assert signed + 0.70 * LIFE <= second.not_before <= signed + 0.85 * LIFE


def test_a_renewal_says_how_late_it_was() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    command, _ = next_renewal(renewal)
    signed = command.not_before + 2.5
    assert renewal.renewed("d", signed, signed + LIFE, signed + 0.1) == pytest.approx(2.5)


def test_wanting_twice_opens_once() -> None:
    renewal = conductor()
    renewal.want("d", 0.0)
    renewal.want("d", 0.0)
    assert len(commands(renewal, 0.0)) == 1


def test_an_identity_nobody_wants_is_closed_and_forgotten() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    renewal.unwant("d", 5.0)
    renewal.unwant("d", 5.0)
    assert commands(renewal, 5.0) == [Close("d", CloseReason.UNWANTED)]
    renewal.closed("d", 6.0)
    assert len(renewal) == 0
    assert renewal.deadline() is None


def test_an_identity_that_waits_in_the_queue_can_be_unwanted() -> None:
    renewal = conductor(1)
    renewal.want("a", 0.0)
    renewal.want("b", 0.0)
    assert [command.identity for command in commands(renewal, 0.0)] == ["a"]
    renewal.unwant("b", 0.1)
    assert len(renewal) == 1
    renewal.connecting("a", 0.2)
    assert commands(renewal, 5.0) == []


def test_a_close_that_is_never_confirmed_ends_after_a_bound() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    renewal.unwant("d", 5.0)
    commands(renewal, 5.0)
    assert renewal.deadline() == 5.0 + POLICY.close_limit
    renewal.handle_deadline(5.0 + POLICY.close_limit)
    assert (len(renewal), renewal.closes_unconfirmed) == (0, 1)


def test_a_confirmation_that_comes_too_late_is_not_heard() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    renewal.unwant("d", 5.0)
    renewal.want("d", 6.0)
    commands(renewal, 6.0)
    renewal.handle_deadline(5.0 + POLICY.close_limit)
    renewal.closed("d", 21.0)
    assert renewal.state("d") is State.QUEUED


def test_an_attempt_that_never_answers_is_closed_and_tried_again() -> None:
    renewal = conductor()
    renewal.want("d", 0.0)
    commands(renewal, 0.0)
    renewal.handle_deadline(POLICY.attempt_limit)
    assert commands(renewal, POLICY.attempt_limit) == [Close("d", CloseReason.STUCK)]
    renewal.closed("d", 91.0)
    renewal.handle_deadline(92.0)
    assert isinstance(commands(renewal, 92.0)[0], Open)


def test_a_failed_renewal_is_tried_again_while_the_old_token_lives_then_closed_before_its_end() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    attempts, now = 0, 0.0
    while True:
        deadline = renewal.deadline()
        assert deadline is not None
        now = max(now, deadline)
        renewal.handle_deadline(now)
        said = commands(renewal, now)
        if said and isinstance(said[0], Close):
            break
        for _ in said:
            attempts += 1
            renewal.renewal_failed("d", Ask.WAIT, now + 0.1)
    assert said == [Close("d", CloseReason.EXPIRING)]
    assert now == LIFE - POLICY.guard(LIFE)
    assert attempts >= 10
    renewal.closed("d", now)
    assert renewal.state("d") is State.BACKOFF
    assert renewal.expired_in_use(LIFE + 1) == 0


def test_renewals_go_before_reconnects_and_the_nearest_end_first() -> None:
    renewal = conductor(2)
    for identity, start in (("lost", 0.0), ("soon", 10.0), ("late", 20.0)):
        bring_up(renewal, identity, now=start)
    renewal.lost("lost", Ask.WAIT, 20.0)
    renewal.handle_deadline(905.0)
    assert [command.identity for command in commands(renewal, 905.0)] == ["soon", "late"]


def test_a_permit_is_not_held_until_its_place_while_others_wait_for_one() -> None:
    renewal = conductor(1)
    bring_up(renewal, "a")
    session = renewal.session("a")
    assert session is not None
    renewal.want("b", session.planned - 10.0)
    commands(renewal, session.planned - 10.0)
    now = session.planned - POLICY.dial_ahead
    renewal.want("c", now)
    renewal.open_failed("b", Ask.WAIT, now - 1.0)
    renewal.handle_deadline(now)
    (command,) = commands(renewal, now)
    assert isinstance(command, Renew)
    assert command.not_before == now


def test_first_renewals_wait_until_the_fleet_is_up() -> None:
    renewal = conductor(1)
    for number in range(100):
        renewal.want(f"d{number}", 0.0)
    (command,) = commands(renewal, 0.0)
    renewal.connecting(command.identity, 0.0)
    renewal.opened(command.identity, 0.0, LIFE, 0.1)
    session = renewal.session(command.identity)
    assert session is not None
    assert session.planned >= 99.0


def test_a_lost_session_is_opened_again_after_a_delay() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    renewal.lost("d", Ask.WAIT, 100.0)
    assert commands(renewal, 100.0) == []
    assert renewal.deadline() == 101.0
    renewal.handle_deadline(101.0)
    assert isinstance(commands(renewal, 101.0)[0], Open)


def test_an_attempt_that_fails_before_connect_gives_its_permit_back() -> None:
    renewal = conductor(1)
    renewal.want("a", 0.0)
    renewal.want("b", 0.0)
    assert [command.identity for command in commands(renewal, 0.0)] == ["a"]
    renewal.open_failed("a", Ask.WAIT, 5.0)
    assert [command.identity for command in commands(renewal, 5.0)] == ["b"]


def test_connecting_twice_on_one_permit_is_an_error_of_ours() -> None:
    renewal = conductor()
    renewal.want("d", 0.0)
    commands(renewal, 0.0)
    renewal.connecting("d", 0.1)
    with pytest.raises(LocalProtocolError, match="without a permit"):
        renewal.connecting("d", 0.2)


def test_a_report_about_a_stranger_is_an_error_of_ours() -> None:
    with pytest.raises(LocalProtocolError, match="has no session"):
        conductor().lost("nobody", Ask.WAIT, 0.0)


def test_one_bad_identity_parks_and_the_others_are_not_disturbed() -> None:
    renewal = conductor()
    bring_up(renewal, "good")
    renewal.want("bad", 1.0)
    commands(renewal, 1.0)
    renewal.connecting("bad", 1.0)
    renewal.open_failed("bad", Ask.TRY_SECONDARY, 1.2)
    assert (renewal.state("bad"), renewal.state("good")) == (State.PARKED, State.UP)
    assert renewal.retry("bad", 2.0)
    assert [command.identity for command in commands(renewal, 2.0)] == ["bad"]
    assert not renewal.retry("good", 2.0)


def test_the_second_key_is_asked_for_after_the_first_was_refused() -> None:
    renewal = conductor()
    renewal.want("d", 0.0, has_secondary=True)
    (command,) = commands(renewal, 0.0)
    assert isinstance(command, Open)
    assert not command.secondary
    renewal.open_failed("d", Ask.TRY_SECONDARY, 0.5)
    renewal.handle_deadline(2.0)
    (command,) = commands(renewal, 2.0)
    assert isinstance(command, Open)
    assert command.secondary


def test_while_the_clock_is_not_trusted_nothing_opens_and_nothing_renews() -> None:
    renewal = conductor(trusted=False)
    renewal.want("d", 0.0)
    assert commands(renewal, 0.0) == []
    assert renewal.deadline() is None
    assert renewal.sweep(1e6) == []
    renewal.trusted(True)
    assert isinstance(commands(renewal, 1.0)[0], Open)


def test_a_clock_that_loses_trust_still_closes_before_a_token_ends() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    renewal.trusted(False)
    guard = LIFE - POLICY.guard(LIFE)
    renewal.handle_deadline(guard - 1)
    assert commands(renewal, guard - 1) == []
    renewal.handle_deadline(guard)
    assert commands(renewal, guard) == [Close("d", CloseReason.EXPIRING)]


def test_a_step_forward_closes_what_ended_and_places_the_rest_anew() -> None:
    renewal = conductor()
    bring_up(renewal, "old")
    bring_up(renewal, "young", now=600.0)
    renewal.replan(700.0, 500.0)
    assert commands(renewal, 700.0) == [Close("old", CloseReason.EXPIRING)]
    young = renewal.session("young")
    assert young is not None
    assert (young.expires, young.state) == (1100.0, State.UP)
    assert 700.0 <= young.planned < young.guard_at


def test_a_step_back_moves_no_renewal() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    before = renewal.deadline()
    renewal.replan(10.0, -7200.0)
    assert renewal.deadline() == before


@pytest.mark.parametrize("seconds", [-7200.0, 7200.0])
def test_a_step_probes_what_was_parked_because_a_wrong_clock_looks_like_a_wrong_key(seconds: float) -> None:
    renewal = conductor()
    renewal.want("d", 0.0)
    commands(renewal, 0.0)
    renewal.open_failed("d", Ask.PARK, 1.0)
    renewal.replan(5.0, seconds)
    assert isinstance(commands(renewal, 5.0)[0], Open)


def test_a_shorter_lifetime_renews_early_and_spread_out() -> None:
    renewal = conductor()
    bring_up(renewal, *(f"d{number}" for number in range(50)))
    renewal.retimed(0.70, 0.85, 100.0, 200.0)
    plans = [session.planned for n in range(50) if (session := renewal.session(f"d{n}")) is not None]
    assert all(200.0 <= at <= 285.0 for at in plans)
    assert max(math.floor(at) for at in plans) - min(math.floor(at) for at in plans) > 40


def test_a_reload_later_than_a_guard_that_nobody_looked_at_leaves_it_to_its_timer() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    renewal.retimed(0.70, 0.85, 100.0, LIFE + 5.0)
    renewal.handle_deadline(LIFE + 5.0)
    assert commands(renewal, LIFE + 5.0) == [Close("d", CloseReason.EXPIRING)]


def test_a_narrower_window_moves_only_what_lies_outside() -> None:
    renewal = conductor()
    bring_up(renewal, *(f"d{number}" for number in range(50)))
    before = {f"d{n}": s.planned for n in range(50) if (s := renewal.session(f"d{n}")) is not None}
    renewal.retimed(0.5, 0.84, LIFE, 0.0)
    for identity, planned in before.items():
        session = renewal.session(identity)
        assert session is not None
        assert session.planned <= 840.0
        if 500.0 <= planned <= 840.0:
            assert session.planned == planned


def test_views_tell_states_ends_and_what_is_due() -> None:
    renewal = conductor()
    assert renewal.earliest_expiry() is None
    bring_up(renewal, "a", "b")
    bring_up(renewal, "c", now=10.0)
    assert renewal.counts()[State.UP] == 3
    assert renewal.earliest_expiry() == LIFE
    assert renewal.expired_in_use(LIFE + 1.0) == 2
    renewal.handle_deadline(900.0)
    assert renewal.renewals_due() == 3


def test_the_sweep_can_fail() -> None:
    renewal = conductor()
    bring_up(renewal, "d")
    assert renewal.sweep(0.0) == []
    assert renewal.sweep(LIFE) == ["d"], "nobody called handle_deadline"
    renewal.want("e", 0.0)
    session = renewal.session("e")
    assert session is not None
    renewal._budget.withdraw(session)
    assert renewal.sweep(0.0) == ["e"]


class RenewalMachine(RuleBasedStateMachine):
    """Any sequence of wishes, outcomes, steps and time: never expired, always a next action, always in budget."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 3
        self.renewal = conductor(self.limit)
        self.now = 0.0
        self.running: dict[str, bool] = {}  # identity -> CONNECT written
        self.live: set[str] = set()  # connections that work, by our own books
        self.renews: set[str] = set()
        self.closing: set[str] = set()
        self.written: list[float] = []

    def obey(self) -> None:
        deadline = self.renewal.deadline()
        if deadline is not None and deadline <= self.now:
            self.renewal.handle_deadline(self.now)
        for command in commands(self.renewal, self.now):
            identity = command.identity
            if isinstance(command, Close):
                self.closing.add(identity)
                continue
            assert identity not in self.running, "one attempt per identity"
            assert identity not in self.closing, "an open before the close is confirmed"
            assert isinstance(command, Renew) == (identity in self.live)
            self.running[identity] = False
            if isinstance(command, Renew):
                self.renews.add(identity)

    @rule(seconds=st.one_of(st.floats(0.0, 5.0), st.floats(0.0, 400.0)))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(10_000):
            self.obey()
            deadline = self.renewal.deadline()
            if deadline is None or deadline > until:
                break
            # Closes that are not confirmed in time are taken as done, so confirm first.
            for identity in sorted(self.closing):
                self.confirm(identity)
            self.now = max(self.now, deadline)
        else:
            pytest.fail("deadlines that change nothing: the shell would spin")
        self.now = until

    @rule(identity=st.sampled_from("abcde"))
    def want(self, identity: str) -> None:
        self.renewal.want(identity, self.now)
        self.obey()

    @rule(identity=st.sampled_from("abcde"))
    def unwant(self, identity: str) -> None:
        self.renewal.unwant(identity, self.now)
        self.obey()

    @rule(identity=st.sampled_from("abcde"))
    def write_connect(self, identity: str) -> None:
        if self.running.get(identity) is False and identity not in self.closing:
            self.running[identity] = True
            self.live.discard(identity)
            self.written.append(self.now)
            self.renewal.connecting(identity, self.now)

    @rule(identity=st.sampled_from("abcde"), life=st.floats(20.0, 2000.0))
    def accept(self, identity: str, life: float) -> None:
        if self.running.get(identity) and identity not in self.closing:
            report = self.renewal.renewed if identity in self.renews else self.renewal.opened
            self.end_attempt(identity)
            self.live.add(identity)
            report(identity, self.now, self.now + life, self.now)
            self.obey()

    @rule(identity=st.sampled_from("abcde"), ask=st.sampled_from(Ask))
    def fail(self, identity: str, ask: Ask) -> None:
        if identity not in self.running or identity in self.closing:
            return
        renews = identity in self.renews
        self.end_attempt(identity)
        if not renews:
            self.renewal.open_failed(identity, ask, self.now)
        elif identity in self.live:
            self.renewal.renewal_failed(identity, ask, self.now)
        else:
            self.renewal.lost(identity, ask, self.now)
        self.obey()

    @rule(identity=st.sampled_from("abcde"), ask=st.sampled_from([Ask.WAIT, Ask.PARK]))
    def lose(self, identity: str, ask: Ask) -> None:
        if identity in self.live and identity not in self.running and identity not in self.closing:
            self.live.discard(identity)
            self.renewal.lost(identity, ask, self.now)
            self.obey()

    @rule(identity=st.sampled_from("abcde"))
    def confirm(self, identity: str) -> None:
        if identity in self.closing:
            self.closing.discard(identity)
            self.live.discard(identity)
            self.end_attempt(identity)
            self.renewal.closed(identity, self.now)
            self.obey()

    @rule(shift=st.floats(-5000.0, 5000.0))
    def step(self, shift: float) -> None:
        self.renewal.replan(self.now, shift)
        self.obey()

    @rule(trusted=st.booleans())
    def trust(self, trusted: bool) -> None:
        self.renewal.trusted(trusted)
        self.obey()

    @rule(lifetime=st.floats(20.0, 2000.0), earliest=st.floats(0.1, 0.6))
    def retime(self, lifetime: float, earliest: float) -> None:
        self.renewal.retimed(earliest, earliest + 0.3, lifetime, self.now)
        self.obey()

    @rule()
    def throttle(self) -> None:
        self.renewal.throttled(self.now)

    @rule(identity=st.sampled_from("abcde"))
    def retry(self, identity: str) -> None:
        self.renewal.retry(identity, self.now)
        self.obey()

    def end_attempt(self, identity: str) -> None:
        self.running.pop(identity, None)
        self.renews.discard(identity)

    @invariant()
    def nothing_is_left_in_use_past_its_end(self) -> None:
        assert self.renewal.expired_in_use(self.now) == 0

    @invariant()
    def everyone_has_a_next_action(self) -> None:
        self.obey()
        assert self.renewal.sweep(self.now, tolerance=0.0) == []

    @invariant()
    def every_sliding_second_keeps_the_budget(self) -> None:
        assert len([instant for instant in self.written if instant + 1.0 > self.now]) <= self.limit

    @invariant()
    def counts_add_up(self) -> None:
        assert sum(self.renewal.counts().values()) == len(self.renewal)


TestAnySequence = RenewalMachine.TestCase
TestAnySequence.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
