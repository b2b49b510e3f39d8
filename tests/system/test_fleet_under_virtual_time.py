"""Whole fleets under virtual time: flat, never expired, within budget, and back soon after whatever happened.

The fleet itself asserts at every CONNECT that the sliding second keeps the budget, and at every sweep that no token is
in use past its end and that everyone has a next action. The hub's own counts say whether that was true.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from gatewayd.flow.renewal import CloseReason, Timetable
from gatewayd.tokens.renewal_timetable import RenewalTimetable
from gatewayd.upstream.handover import Mode
from gatewayd.upstream.session import State
from tests.support.fleet_parts import ConnectFault, DialFault, FixedFraction, Network, UniformRandom
from tests.support.virtual_fleet import VirtualFleet

WINDOW = (0.70, 0.85)
OUTAGE = 1800.0
DEVICES = 100
# The longest wait between two attempts (60 s), the longest dial that still hangs (20 s), a cool-down that gives the
# budget back step by step (32 s pause, 6 quiet spells of 30 s), and all devices once through the budget.
RECOVERY = 60.0 + 20.0 + 32.0 + 6 * 30.0 + 1.5 * DEVICES / 50.0


def allowed_peak(devices: int, lifetime: float) -> float:
    floor = devices / (WINDOW[1] * lifetime)
    return max(math.ceil(floor) + 1, 1.15 * floor)


def fleet(
    lifetime: float = 300.0, *, seed: int = 1, mode: Mode = Mode.STRICT, busy: float = 0.0
) -> VirtualFleet:
    made = VirtualFleet(DEVICES, lifetime, seed=seed, mode=mode, busy_share=busy, sweep_every=20.0)
    made.want_all()
    return made


@pytest.mark.parametrize(("devices", "lifetime", "until"), [(500, 30.0, 240.0), (300, 600.0, 2 * 3600.0)])
def test_connects_are_flat_from_the_first_cycle_on_through_dials_and_handovers(
    devices: int, lifetime: float, until: float
) -> None:
    # Places are flat to the slot; round trips that differ by more than a slot (48 ms for 500 devices and 30 s) would
    # blur the CONNECTs by what they differ.
    made = VirtualFleet(devices, lifetime, seed=3, network=Network(rtt_least=0.05, rtt_most=0.07))
    made.want_all()
    made.run(until)
    assert made.first_cycle.peak <= allowed_peak(devices, lifetime)
    assert made.steady.peak <= allowed_peak(devices, lifetime)
    assert made.steady.total > 3 * devices
    assert made.connects.peak <= 50
    assert not made.hub.errors


@pytest.mark.parametrize("rival", [FixedFraction, UniformRandom])
def test_the_same_measure_fails_for_other_placements(rival: Callable[[float, float], Timetable]) -> None:
    made = VirtualFleet(500, 30.0, seed=3, timetable=rival(*WINDOW))
    made.want_all()
    made.run(150.0)
    assert made.steady.peak > allowed_peak(500, 30.0)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("name", "value", "cut"),
    [
        ("dial_fault", DialFault.REFUSED, True),
        ("dial_fault", DialFault.DNS_GONE, False),
        ("dial_fault", DialFault.BLACKHOLE, True),
        ("connect_fault", ConnectFault.BUSY, False),
        ("connect_fault", ConnectFault.CLOSED, False),
        ("connect_fault", ConnectFault.SILENT, False),
        ("sign_fails", True, False),
    ],
    ids=lambda value: str(getattr(value, "value", value)),
)
def test_after_half_an_hour_of_outage_everyone_is_back_in_bounded_time(
    name: str, value: object, cut: bool, seed: int
) -> None:
    made = fleet(seed=seed)
    made.run(600.0)
    healthy = getattr(made, name)
    setattr(made, name, value)
    if cut:
        made.cut()
    made.run(600.0 + OUTAGE)
    assert made.up == 0, "the rig's outage is one"
    setattr(made, name, healthy)
    made.run(600.0 + OUTAGE + RECOVERY)
    assert made.up >= DEVICES - 5, "a few may be between two connections"
    assert made.conductor.counts()[State.BACKOFF] == 0
    assert made.hub.expired_in_use == 0
    assert made.hub.errors["401003 expired"] == 0


def test_an_outage_shorter_than_what_is_left_of_a_life_closes_nobody() -> None:
    made = fleet(3600.0)
    made.run(600.0)
    made.dial_fault = DialFault.DNS_GONE
    made.run(900.0)
    made.dial_fault = DialFault.NONE
    made.run(4000.0)
    assert made.outcomes["renew failed"] > 0, "the rig's outage met renewals"
    assert not made.closes
    assert not made.hub.errors


def test_a_hub_that_takes_fewer_than_our_budget_is_given_fewer() -> None:
    made = VirtualFleet(DEVICES, 300.0, seed=2, sweep_every=20.0)
    made.hub_connects_per_second = 5
    made.want_all()
    made.run(900.0)
    assert made.hub.errors["429001"] > 0, "the hub did throttle"
    assert made.hub.errors["429001"] < DEVICES
    assert made.up >= DEVICES - 2
    assert made.hub.expired_in_use == 0


def test_one_bad_identity_disturbs_no_other() -> None:
    made = fleet()
    made.bad = {7}
    made.run(7200.0)
    assert made.conductor.state(7) is State.PARKED
    assert made.hub.errors["401003 credential"] <= 6
    assert sum(made.hub.errors.values()) == made.hub.errors["401003 credential"]
    made.bad = set()
    made.run(7200.0 + 3600.0 + 60.0)
    assert made.conductor.state(7) in (State.UP, State.RENEWING)


def test_messages_in_flight_delay_a_handover_only_within_its_bounds() -> None:
    made = fleet(busy=0.5)
    made.run(1500.0)
    assert made.renewed > 3 * DEVICES
    assert made.gap_most <= made.timeouts.drain + made.timeouts.close
    assert not made.hub.errors


def test_a_hub_that_never_closes_the_old_connection_is_not_waited_for_long() -> None:
    made = fleet()
    made.close_answered = False
    made.run(900.0)
    assert made.renewed > DEVICES
    assert made.gap_most == pytest.approx(made.timeouts.close, abs=0.3)
    assert not made.hub.errors


def test_half_open_connections_are_replaced_at_their_renewal() -> None:
    made = fleet()
    made.run(400.0)
    made.half_open(0.5, noticed_after=3600.0)
    assert made.up < DEVICES
    made.run(400.0 + 300.0)
    assert made.up >= DEVICES - 2
    assert made.hub.expired_in_use == 0


@pytest.mark.parametrize("mode", Mode)
def test_with_the_old_flow_delayed_strict_shows_no_400027_and_fast_does(mode: Mode) -> None:
    made = fleet(mode=mode)
    made.disconnect_delayed = 0.5
    made.run(900.0)
    assert (made.hub.errors["400027"] == 0) == (mode is Mode.STRICT)
    assert made.up >= DEVICES - 2


@pytest.mark.parametrize("seconds", [1.0, 30.0, 299.0, 7200.0, 86_400.0 * 365])
def test_a_clock_that_was_slow_and_is_set_forward_leaves_no_token_past_its_end(seconds: float) -> None:
    made = VirtualFleet(DEVICES, 300.0, seed=4, sweep_every=20.0)
    made.grace = seconds  # while our clock is wrong the hub sees old tokens; what counts is that it ends
    made.wall_error = -seconds
    made.want_all()
    made.run(400.0)
    made.step_clock(seconds)
    made.run(400.0 + RECOVERY)
    made.grace = 0.0
    before = sum(made.hub.errors.values())
    made.run(1500.0)
    assert made.up >= DEVICES - 2
    assert sum(made.hub.errors.values()) == before


@pytest.mark.parametrize("seconds", [60.0, 3600.0, 3 * 86_400.0])
def test_a_suspend_is_slept_through_and_everyone_is_back(seconds: float) -> None:
    made = fleet()
    made.run(400.0)
    made.suspend(seconds)
    made.run(400.0 + seconds + RECOVERY)
    assert made.up >= DEVICES - 2
    assert made.hub.expired_in_use == 0
    assert made.connects.peak <= 50


def test_a_clock_that_loses_trust_ends_in_closes_not_in_expiry_and_trust_brings_everyone_back() -> None:
    made = fleet()
    made.run(400.0)
    made.conductor.trusted(False)
    made.run(1000.0)
    assert made.up == 0
    assert made.closes[CloseReason.EXPIRING] == DEVICES
    made.at(1000.0, lambda: made.conductor.trusted(True))
    made.run(1000.0 + RECOVERY)
    assert made.up >= DEVICES - 2
    assert not made.hub.errors


def test_a_timetable_that_plans_too_late_still_lets_no_token_expire() -> None:
    made = VirtualFleet(DEVICES, 300.0, timetable=FixedFraction(0.7, 1.5), sweep_every=20.0)
    made.want_all()
    made.run(900.0)
    assert made.closes[CloseReason.EXPIRING] > 0
    assert made.hub.expired_in_use == 0


def test_the_rig_sees_expiry_when_there_is_one() -> None:
    made = fleet()
    made.run(100.0)
    made.wall_error = -100.0  # nobody tells the conductor
    made.run(900.0)
    assert made.hub.expired_in_use > 0


def test_the_rig_sees_a_budget_that_is_broken() -> None:
    made = VirtualFleet(DEVICES, 300.0, per_second=20)
    made.budget.retune(21)
    made.want_all()
    with pytest.raises(AssertionError, match="over the budget"):
        made.run(10.0)


def test_a_week_of_one_seed_is_the_same_week() -> None:
    runs = []
    for _ in range(2):
        made = VirtualFleet(50, 300.0, seed=9, timetable=RenewalTimetable(*WINDOW))
        made.want_all()
        made.run(1200.0)
        runs.append((made.renewed, made.hub.accepted, made.gap_most))
    assert runs[0] == runs[1]
