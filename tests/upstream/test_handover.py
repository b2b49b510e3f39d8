"""The handover of one identity, stage by stage, and as a whole against an oracle that keeps its own books."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import LocalProtocolError
from gatewayd.upstream.handover import (
    FINISHED,
    TRANSITIONS,
    Command,
    Handover,
    HandoverTimeouts,
    Input,
    Mode,
    Stage,
)

TIMES = HandoverTimeouts(dial=10, sign=1, patience=2, drain=3, close=4, connack=20)


def handover(
    mode: Mode = Mode.STRICT, *, old_alive: bool = True, in_flight: int = 0, **kw: float
) -> Handover:
    return Handover(mode, TIMES, 0.0, old_alive=old_alive, in_flight=in_flight, **kw)


def commands(subject: Handover) -> list[Command]:
    said = []
    while (command := subject.next_command()) is not None:
        said.append(command)
    return said


def at(stage: Stage, mode: Mode = Mode.STRICT) -> Handover:
    """A handover that has just come to `stage`, its commands done."""
    subject = handover(mode, old_alive=stage not in (Stage.DIALING_ALONE, Stage.SIGNING_ALONE), in_flight=1)
    if stage is Stage.POISED:
        subject = handover(mode, in_flight=1, not_before=5.0)
    steps: list[Callable[[], None]] = [
        lambda: subject.dialed(1.0),
        lambda: subject.signed(1.0),
        lambda: subject.handle_deadline(3.0),
        lambda: subject.in_flight(0, 4.0),
        lambda: subject.old_closed(5.0) if mode is Mode.STRICT else subject.connack(0, 5.0),
    ]
    for step in steps:
        if subject.stage is stage:
            break
        step()
    assert subject.stage is stage
    commands(subject)
    return subject


ALIVE_STAGES = [Stage.DIALING, Stage.POISED, Stage.SIGNING, Stage.QUIESCING, Stage.DRAINING]


def test_strict_connects_only_after_the_hub_closed_the_old_connection() -> None:
    subject = handover()
    assert commands(subject) == [Command.DIAL]
    subject.dialed(0.2)
    assert commands(subject) == [Command.SIGN]
    subject.signed(0.2)
    assert commands(subject) == [Command.HOLD, Command.SEND_DISCONNECT]
    subject.old_closed(0.26)
    assert commands(subject) == [Command.SEND_CONNECT]
    subject.connack(0, 0.32)
    assert commands(subject) == [Command.RESUME]
    assert subject.stage is Stage.DONE


def test_strict_costs_two_round_trips_and_fast_one() -> None:
    strict, fast = handover(Mode.STRICT), handover(Mode.FAST)
    for subject in (strict, fast):
        subject.dialed(0.2)
        subject.signed(0.2)
    strict.old_closed(0.26)
    strict.connack(0, 0.32)
    fast.connack(0, 0.26)
    assert strict.gap == pytest.approx(0.12)
    assert fast.gap == pytest.approx(0.06)
    assert strict.drain == fast.drain == 0.0


def test_fast_connects_at_once_and_settles_when_the_old_one_is_gone() -> None:
    subject = handover(Mode.FAST)
    subject.dialed(0.2)
    subject.signed(0.2)
    assert commands(subject)[-3:] == [Command.HOLD, Command.SEND_DISCONNECT, Command.SEND_CONNECT]
    subject.connack(0, 0.26)
    assert subject.connected
    assert not subject.finished
    subject.old_closed(0.3)
    assert subject.stage is Stage.DONE
    assert commands(subject) == [Command.RESUME]


def test_fast_aborts_an_old_connection_that_does_not_end() -> None:
    subject = handover(Mode.FAST)
    subject.dialed(0.2)
    subject.signed(0.2)
    subject.connack(0, 0.3)
    commands(subject)
    subject.handle_deadline(0.3 + TIMES.close)
    assert commands(subject) == [Command.ABORT_OLD]
    assert subject.old_forced
    assert subject.stage is Stage.DONE


def test_it_waits_for_an_idle_moment_so_that_nothing_has_to_drain() -> None:
    subject = handover(in_flight=3)
    subject.dialed(0.2)
    subject.signed(0.2)
    assert commands(subject) == [Command.DIAL, Command.SIGN]
    subject.in_flight(1, 0.5)
    assert commands(subject) == []
    subject.in_flight(0, 0.9)
    assert commands(subject) == [Command.HOLD, Command.SEND_DISCONNECT]
    assert subject.drain == 0.0


def test_when_patience_ends_publishing_is_held_and_the_rest_drains() -> None:
    subject = at(Stage.QUIESCING)
    subject.handle_deadline(3.0)
    assert commands(subject) == [Command.HOLD]
    subject.in_flight(0, 3.4)
    assert commands(subject) == [Command.SEND_DISCONNECT]
    assert subject.drain == pytest.approx(0.4)
    assert not subject.drain_cut


def test_a_drain_that_does_not_end_is_cut_and_says_so() -> None:
    subject = at(Stage.DRAINING)
    subject.handle_deadline(3.0 + TIMES.drain)
    assert commands(subject) == [Command.SEND_DISCONNECT]
    assert subject.drain == TIMES.drain
    assert subject.drain_cut


def test_a_hub_that_does_not_close_has_the_old_connection_aborted_before_connect() -> None:
    subject = at(Stage.CLOSING_OLD)
    subject.handle_deadline(4.0 + TIMES.close)
    assert commands(subject) == [Command.ABORT_OLD, Command.SEND_CONNECT]
    assert subject.old_forced
    subject.old_closed(8.5)
    assert subject.stage is Stage.CONNECTING


def test_a_dial_ahead_waits_for_its_place_before_it_signs() -> None:
    subject = handover(not_before=5.0)
    subject.dialed(1.0)
    assert subject.stage is Stage.POISED
    assert subject.deadline() == 5.0
    subject.handle_deadline(4.9)
    assert commands(subject) == [Command.DIAL]
    subject.handle_deadline(5.0)
    assert commands(subject) == [Command.SIGN]


def test_a_dial_that_comes_late_signs_at_once() -> None:
    subject = handover(not_before=5.0)
    subject.dialed(6.0)
    assert commands(subject) == [Command.DIAL, Command.SIGN]


def test_a_place_too_far_away_is_not_waited_for_longer_than_a_dial() -> None:
    subject = handover(not_before=1e9)
    subject.dialed(1.0)
    assert subject.deadline() == TIMES.dial


@pytest.mark.parametrize("stage", ALIVE_STAGES)
def test_before_disconnect_the_loss_of_the_new_side_leaves_the_old_one_working(stage: Stage) -> None:
    subject = at(stage)
    if stage is Stage.DIALING:
        subject.dial_failed(5.0)
    else:
        subject.new_closed(5.0)
    assert subject.stage is Stage.FAILED
    assert subject.failed_in is stage
    said = commands(subject)
    assert Command.SEND_DISCONNECT not in said
    assert Command.ABORT_OLD not in said
    assert (Command.RESUME in said) == (stage is Stage.DRAINING)


@pytest.mark.parametrize("stage", ALIVE_STAGES)
def test_before_disconnect_it_can_be_abandoned_without_harm(stage: Stage) -> None:
    subject = at(stage)
    subject.abandon(5.0)
    assert subject.stage is Stage.FAILED
    assert commands(subject)[0] is Command.ABORT_NEW


def test_a_signer_that_fails_leaves_the_old_connection_working() -> None:
    subject = at(Stage.SIGNING)
    subject.sign_failed(1.5)
    assert subject.stage is Stage.FAILED
    assert commands(subject) == [Command.ABORT_NEW]


@pytest.mark.parametrize("stage", ALIVE_STAGES)
def test_an_old_connection_that_ends_by_itself_turns_the_rest_into_a_plain_connect(stage: Stage) -> None:
    subject = at(stage)
    subject.old_closed(5.0)
    if subject.stage is Stage.DIALING_ALONE:
        subject.dialed(5.5)
    if subject.stage is Stage.SIGNING_ALONE:
        subject.signed(5.5)
    assert commands(subject)[-1] is Command.SEND_CONNECT
    subject.connack(0, 6.0)
    assert subject.stage is Stage.DONE
    assert subject.old_lost
    assert subject.gap == pytest.approx(1.0 if stage is not Stage.DRAINING else 3.0)


@pytest.mark.parametrize("stage", [Stage.CLOSING_OLD, Stage.CONNECTING])
def test_after_disconnect_the_loss_of_the_new_side_means_down(stage: Stage) -> None:
    subject = at(stage)
    subject.new_closed(6.0)
    assert subject.stage is Stage.DOWN
    assert (Command.ABORT_OLD in commands(subject)) == (stage is Stage.CLOSING_OLD)


@pytest.mark.parametrize("code", [1, 3, 5])
def test_a_refusal_means_down_and_keeps_the_code(code: int) -> None:
    subject = at(Stage.CONNECTING)
    subject.connack(code, 6.0)
    assert subject.stage is Stage.DOWN
    assert subject.connack_code == code
    assert commands(subject) == [Command.ABORT_NEW]


def test_without_an_old_connection_it_is_a_plain_connect() -> None:
    subject = handover(old_alive=False)
    subject.dialed(0.2)
    subject.signed(0.2)
    subject.connack(0, 0.3)
    assert commands(subject) == [Command.DIAL, Command.SIGN, Command.SEND_CONNECT, Command.RESUME]
    assert subject.stage is Stage.DONE
    assert subject.gap is None
    assert not subject.old_lost


@pytest.mark.parametrize("end", ["dial_failed", "abandon"])
def test_a_plain_connect_that_fails_is_down(end: str) -> None:
    subject = handover(old_alive=False)
    getattr(subject, end)(1.0)
    assert subject.stage is Stage.DOWN


def test_what_the_table_does_not_list_is_an_error_of_ours() -> None:
    with pytest.raises(LocalProtocolError, match="SIGNED while DIALING"):
        handover().signed(0.1)


def test_reports_that_cross_with_the_end_are_ignored() -> None:
    subject = handover()
    subject.dial_failed(1.0)
    commands(subject)
    subject.dialed(1.1)
    subject.new_closed(1.2)
    assert subject.stage is Stage.FAILED
    assert commands(subject) == []


@pytest.mark.parametrize("mode", Mode)
def test_every_stage_can_be_left_by_its_deadline_and_by_abandoning(mode: Mode) -> None:
    table = TRANSITIONS[mode]
    stages = {stage for stage, _ in table}
    assert stages | FINISHED == set(Stage)
    for stage in stages:
        assert (stage, Input.DEADLINE) in table
        assert (stage, Input.ABANDON) in table


def test_no_wait_may_be_zero() -> None:
    with pytest.raises(ValueError, match="above 0 s"):
        HandoverTimeouts(drain=0)


class Oracle:
    """Both connections as a bystander sees them: what was commanded, what ended."""

    def __init__(self, mode: Mode, old_alive: bool) -> None:
        self.mode = mode
        self.old = "open" if old_alive else "closed"
        self.new = "none"
        self.held = False

    def see(self, command: Command) -> None:
        match command:
            case Command.DIAL:
                assert self.new == "none"
                self.new = "dialing"
            case Command.SIGN:
                assert self.new == "open"
            case Command.HOLD:
                assert self.old == "open"
                self.held = True
            case Command.SEND_DISCONNECT:
                assert self.old == "open"
                assert self.held
                assert self.new == "open", "the old connection is given up for nothing"
                self.old = "ending"
            case Command.SEND_CONNECT:
                assert self.new == "open"
                assert self.old == "closed" or (self.mode is Mode.FAST and self.old == "ending")
                self.new = "connect sent"
            case Command.RESUME:
                self.held = False
            case Command.ABORT_NEW:
                self.new = "closed"
            case Command.ABORT_OLD:
                assert self.old in ("open", "ending")
                self.old = "closed"

    def reports(self) -> list[str]:
        """What can happen next in the world."""
        possible = ["deadline", "abandon", "busy", "idle"]
        if self.old in ("open", "ending"):
            possible.append("old_closed")
        if self.new == "dialing":
            possible += ["dialed", "dial_failed"]
        if self.new in ("open", "connect sent", "accepted"):
            possible.append("new_closed")
        if self.new == "connect sent":
            possible += ["accepted", "refused"]
        return possible


@given(
    mode=st.sampled_from(Mode),
    old_alive=st.booleans(),
    choices=st.lists(st.tuples(st.integers(0, 10), st.floats(0.0, 3.0)), max_size=30),
)
def test_whatever_happens_the_hub_never_sees_two_and_the_end_is_reached(
    mode: Mode, old_alive: bool, choices: list[tuple[int, float]]
) -> None:
    oracle = Oracle(mode, old_alive)
    subject = handover(mode, old_alive=old_alive, in_flight=1, not_before=4.0)
    now = 0.0

    def obey() -> None:
        while (command := subject.next_command()) is not None:
            oracle.see(command)
            if command is Command.SIGN:
                subject.signed(now)

    obey()
    for choice, wait in choices:
        if subject.finished:
            break
        assert subject.deadline() is not None
        now += wait
        possible = oracle.reports()
        match possible[choice % len(possible)]:
            case "deadline":
                now = max(now, subject.deadline() or 0.0)
                subject.handle_deadline(now)
            case "abandon":
                subject.abandon(now)
            case "busy":
                subject.in_flight(2, now)
            case "idle":
                subject.in_flight(0, now)
            case "old_closed":
                oracle.old = "closed"
                subject.old_closed(now)
            case "dialed":
                oracle.new = "open"
                subject.dialed(now)
            case "dial_failed":
                oracle.new = "closed"
                subject.dial_failed(now)
            case "new_closed":
                oracle.new = "closed"
                subject.new_closed(now)
            case "accepted":
                oracle.new = "accepted"
                subject.connack(0, now)
            case "refused":
                subject.connack(5, now)
        obey()
    began = now
    while not subject.finished:
        now = max(now, subject.deadline() or 0.0)
        subject.handle_deadline(now)
        obey()
    assert now - began <= TIMES.total + TIMES.close
    match subject.stage:
        case Stage.DONE:
            assert (oracle.new, oracle.old) == ("accepted", "closed")
        case Stage.FAILED:
            assert (oracle.new, oracle.old) == ("closed", "open")
        case _:
            assert (oracle.new, oracle.old) == ("closed", "closed")
    assert not oracle.held or subject.stage is Stage.DOWN
