"""All hub sessions under the real conductor, at the emulated hub: presence, isolation, counting, saying."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gatewayd.emulator.event_log import HubCode, Operation
from gatewayd.emulator.faults import FaultKind
from gatewayd.emulator.registry import RegisteredIdentity
from gatewayd.flow.session_notes import NO_CONNECTION
from gatewayd.message import Identity
from gatewayd.upstream.session import IN_USE, State
from tests.support.emulated_hub import device_key
from tests.support.hub_fleet_rig import LINGER, HubFleetRig, hub_fleet_rig


def levels(caplog: pytest.LogCaptureFixture, name: str) -> list[int]:
    """At which levels something was said about a device by the hub side, in order."""
    return [
        record.levelno
        for record in caplog.records
        if record.name == "gatewayd.flow.hub_sessions" and record.__dict__.get("device_id") == name
    ]


def planned_ends(rig: HubFleetRig) -> list[bool | None]:
    return [event.planned for event in rig.hub.events.since() if event.operation is Operation.DISCONNECT]


# Presence


async def test_a_device_that_arrives_is_brought_to_the_hub_and_its_messages_with_it() -> None:
    async with hub_fleet_rig("dev-01") as rig:
        device = rig.arrive("dev-01")
        device.offer(3)
        assert device.receipts == [], "no receipt before the hub has it"
        await rig.until_receipted(device)
        assert rig.hub.open_identities == {"dev-01"}
        assert [message.payload for message in rig.hub.ledger.of("dev-01")] == [b"1", b"2", b"3"]


async def test_a_device_that_left_stays_for_linger_and_then_goes_with_disconnect_and_its_lane_too() -> None:
    async with hub_fleet_rig("dev-01") as rig:
        (device,) = await rig.at_hub("dev-01")
        device.leave()
        rig.pass_seconds(LINGER - 1.0)
        assert rig.state("dev-01") is State.UP
        rig.pass_seconds(1.0)
        await rig.until_state(State.ABSENT, "dev-01")
        assert rig.hub_sessions.open_sessions == 0
        assert list(rig.dispatch) == []
        assert planned_ends(rig) == [True]
        assert rig.disconnects() == {("true", "linger"): 1}
        assert rig.errors() == {}


async def test_a_device_that_is_back_within_linger_keeps_its_connection() -> None:
    async with hub_fleet_rig("dev-01") as rig:
        (device,) = await rig.at_hub("dev-01")
        device.leave()
        rig.pass_seconds(LINGER / 2)
        rig.arrive("dev-01")
        rig.pass_seconds(LINGER)
        assert rig.state("dev-01") is State.UP
        assert planned_ends(rig) == []


async def test_a_device_that_is_back_while_its_session_closes_is_brought_to_the_hub_again() -> None:
    async with hub_fleet_rig("dev-01") as rig:
        (device,) = await rig.at_hub("dev-01")
        device.leave()
        rig.pass_seconds(LINGER)
        assert rig.state("dev-01") is State.CLOSING
        again = rig.arrive("dev-01")
        again.offer(2)
        await rig.until_receipted(again)
        assert rig.state("dev-01") is State.UP


async def test_linger_is_extended_while_messages_have_not_reached_the_hub() -> None:
    async with hub_fleet_rig("dev-01") as rig:
        (device,) = await rig.at_hub("dev-01")
        rig.hub.arm(FaultKind.PUBACK_DELAY, count=1, value=0.3)
        device.offer(1)
        device.leave()
        assert list(rig.hub_sessions.unsettled()) == [Identity("dev-01")]
        rig.pass_seconds(LINGER)
        assert rig.state("dev-01") is State.UP
        await rig.until(lambda: not list(rig.hub_sessions.unsettled()))
        rig.pass_seconds(LINGER)
        await rig.until_state(State.ABSENT, "dev-01")


async def test_a_device_that_never_came_up_is_forgotten_after_linger_without_a_close() -> None:
    async with hub_fleet_rig(strangers=("dev-99",)) as rig:
        device = rig.arrive("dev-99")
        await rig.until_down("dev-99")
        device.leave()
        rig.pass_seconds(LINGER)
        await rig.until_state(State.ABSENT, "dev-99")
        assert rig.hub_sessions.open_sessions == 0
        assert list(rig.dispatch) == []


# Renewal


async def test_every_session_is_renewed_ahead_of_expiry_and_the_hub_sees_only_planned_ends() -> None:
    names = [f"dev-{number:02}" for number in range(8)]
    async with hub_fleet_rig(*names) as rig:
        devices = await rig.at_hub(*names)
        for _ in range(3):
            await rig.renew_all()
            for device in devices:
                device.offer(1)
        await rig.until_receipted(*devices)
        assert rig.renewals("ok") >= 24
        assert rig.renewals("failed") == 0
        assert all(planned_ends(rig))
        assert rig.hub.events.errors == {}
        assert rig.errors() == {}
        assert set(rig.disconnects()) == {("true", "renewal")}
        assert rig.value("gatewayd_token_renewal_gap_seconds_count") >= 24
        assert rig.conductor.expired_in_use(rig.time.clock.monotonic()) == 0


async def test_a_renewal_that_fails_is_warned_of_once_and_its_recovery_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with hub_fleet_rig("dev-01") as rig:
        (device,) = await rig.at_hub("dev-01")
        rig.hub.arm(FaultKind.REFUSE_ALL, count=3)
        caplog.clear()
        await rig.renew_all()
        device.offer(1)
        await rig.until_receipted(device)
        said = [level for level in levels(caplog, "dev-01") if level != logging.DEBUG]
        assert said == [logging.WARNING, logging.INFO]
        assert rig.renewals("failed") == 3
        assert planned_ends(rig) == [True]
        rig.hub.arm(FaultKind.REFUSE_ALL, count=1)
        caplog.clear()
        await rig.renew_all()
        assert logging.WARNING in levels(caplog, "dev-01"), "a new trouble is new"


async def test_nothing_is_renewed_with_a_clock_that_became_wrong_and_the_old_connection_goes_on() -> None:
    trusted = [True]
    async with hub_fleet_rig("dev-01", trusted=lambda: trusted[0]) as rig:
        (device,) = await rig.at_hub("dev-01")
        trusted[0] = False
        await rig.live_through(3100.0, step=20.0)
        assert rig.renewals("failed") >= 1
        device.offer(1)
        await rig.until_receipted(device)
        trusted[0] = True
        await rig.live_through(200.0, step=5.0)
        await rig.until(lambda: rig.renewals("ok") == 1)


# Trouble


async def test_one_unknown_device_among_several_is_parked_and_disturbs_nobody() -> None:
    good = [f"dev-{number:02}" for number in range(4)]
    async with hub_fleet_rig(*good, strangers=("dev-99",)) as rig:
        bad = rig.arrive("dev-99")
        devices = await rig.at_hub(*good)
        bad.offer(2)
        await rig.live_through(60.0)
        await rig.until_state(State.PARKED, "dev-99")
        await rig.renew_all()
        for device in devices:
            device.offer(2)
        await rig.until_receipted(*devices)
        assert bad.receipts == []
        assert all(rig.state(name) is State.UP for name in good)
        assert set(rig.errors()) == {("401003", "credential")}
        assert all(planned_ends(rig))


async def test_a_refused_key_is_followed_by_the_other_and_then_by_parking_and_a_slow_probe() -> None:
    async with hub_fleet_rig(strangers=("dev-99",)) as rig:
        rig.arrive("dev-99")
        await rig.until_down("dev-99")
        await rig.live_through(10.0)
        await rig.until_state(State.PARKED, "dev-99")
        assert rig.errors() == {("401003", "credential"): 2}, "one for each key"
        connects = rig.hub.summary().connects
        await rig.live_through(400.0, step=10.0)
        assert rig.hub.summary().connects == connects, "no probe before ten minutes less jitter"
        await rig.live_through(250.0, step=10.0)
        await rig.until(lambda: rig.hub.summary().connects > connects)


async def test_a_parked_device_that_is_let_in_at_last_is_told_of() -> None:
    async with hub_fleet_rig(strangers=("dev-99",)) as rig:
        told: list[bool] = []
        rig.hub_sessions.on_unparked = lambda: told.append(True)
        device = rig.arrive("dev-99")
        device.offer(2)
        await rig.live_through(10.0)
        await rig.until_state(State.PARKED, "dev-99")
        rig.hub.registry.put(RegisteredIdentity("dev-99", device_key("dev-99"), device_key("dev-99:2")))
        assert rig.conductor.retry(device.identity, rig.time.clock.monotonic())
        rig.hub_sessions.turn()
        await rig.until_receipted(device)
        assert told == [True]


async def test_a_throttling_hub_slows_the_whole_gateway_down() -> None:
    names = [f"dev-{number:02}" for number in range(6)]
    async with hub_fleet_rig(*names) as rig:
        rig.hub.arm(FaultKind.CONNACK_3, count=1)
        rig.arrive(names[0])
        await rig.until_down(names[0])
        assert rig.budget.strain == 1
        assert rig.errors() == {("503001", "busy"): 1}
        for name in names[1:]:
            rig.arrive(name)
        assert all(rig.state(name) is State.QUEUED for name in names[1:])
        await rig.live_through(30.0)
        await rig.until_state(State.UP, *names)


async def test_a_cut_by_the_hub_is_counted_once_and_the_session_comes_back_with_everything() -> None:
    async with hub_fleet_rig("dev-01") as rig:
        (device,) = await rig.at_hub("dev-01")
        rig.hub.arm(FaultKind.DROP_ON_PUBLISH, count=1)
        device.offer(4)
        await rig.until_down("dev-01")
        assert rig.errors() == {("404104", "closed"): 1}
        assert rig.disconnects() == {("false", "closed"): 1}
        device.offer(2)
        await rig.live_through(5.0)
        await rig.until_receipted(device)
        assert [message.payload for message in rig.hub.ledger.of("dev-01")] == [
            b"%d" % n for n in range(1, 7)
        ]


async def test_a_cut_at_expiry_is_counted_once_as_401003_and_a_new_token_brings_it_back() -> None:
    """A hub whose clock runs a little ahead, while this side was too late to give the token up itself."""
    async with hub_fleet_rig("dev-01") as rig:
        rig.tokens.lifetime = 4.0
        (device,) = await rig.at_hub("dev-01")
        rig.time.clock.advance(4.2)  # `se` is rounded up to a whole second
        rig.hub.set_clock_offset(3600.0)
        await rig.until_down("dev-01")
        assert rig.hub.events.errors == {HubCode.UNAUTHORIZED: 1, HubCode.CONNECTION_CLOSED: 1}
        assert rig.errors() == {("401003", "expired"): 1}
        assert rig.disconnects() == {("false", "closed"): 1}
        rig.hub.set_clock_offset(0.0)
        rig.tokens.lifetime = 3600.0
        await rig.live_through(10.0)
        device.offer(1)
        await rig.until_receipted(device)


async def test_a_renewal_that_goes_wrong_after_disconnect_is_a_failed_renewal_and_a_reconnect() -> None:
    async with hub_fleet_rig("dev-01") as rig:
        (device,) = await rig.at_hub("dev-01")
        rig.hub.arm(FaultKind.CONNACK_3, count=1)
        async with asyncio.timeout(10.0):
            while not rig.renewals("failed"):
                await rig.live_through(20.0, step=5.0)
        assert rig.errors() == {("503001", "busy"): 1}
        await rig.live_through(10.0)
        device.offer(1)
        await rig.until_receipted(device)
        assert planned_ends(rig) == [True], "the old connection had said DISCONNECT"


async def test_a_session_whose_renewals_all_fail_is_closed_by_us_before_its_token_ends() -> None:
    """Never-expired: the hub must not be the one to end it."""
    async with hub_fleet_rig("dev-01") as rig:
        await rig.at_hub("dev-01")
        rig.hub.arm(FaultKind.REFUSE_ALL, seconds=3600.0)
        started = rig.time.clock.monotonic()
        async with asyncio.timeout(10.0):
            while rig.state("dev-01") in IN_USE:
                await rig.live_through(10.0, step=5.0)
        assert rig.time.clock.monotonic() - started <= 3600.0
        await rig.until(lambda: planned_ends(rig) == [True])
        assert rig.disconnects() == {("true", "expiring"): 1}
        assert rig.errors() == {}


async def test_a_hub_that_restarts_takes_everybody_down_and_all_come_back_within_the_budget() -> None:
    names = [f"dev-{number:02}" for number in range(12)]
    async with hub_fleet_rig(*names, budget=4) as rig:
        for name in names:
            rig.arrive(name)
        await rig.live_through(10.0)
        await rig.until_state(State.UP, *names)
        await rig.hub.restart()
        await rig.until(lambda: rig.errors() == {("404104", "closed"): 12})
        await rig.live_through(60.0)
        await rig.until_state(State.UP, *names)
        assert rig.hub.events.errors == {HubCode.HUB_MOVED: 12}


async def test_the_first_trouble_is_a_warning_repeats_are_debug_and_the_recovery_is_info(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with hub_fleet_rig("dev-01") as rig:
        rig.hub.arm(FaultKind.CONNACK_3, count=3)
        device = rig.arrive("dev-01")
        await rig.live_through(120.0)
        device.offer(1)
        await rig.until_receipted(device)
        assert levels(caplog, "dev-01") == [logging.WARNING, logging.DEBUG, logging.DEBUG, logging.INFO]
        assert "503001" in caplog.text


async def test_an_error_is_noted_with_its_cause_and_stands_until_the_identity_is_at_the_hub() -> None:
    async with hub_fleet_rig("dev-01", strangers=("dev-99",)) as rig:
        rig.arrive("dev-99")
        await rig.until_down("dev-99")
        notes = rig.hub_sessions.notes
        assert notes.standing == {Identity("dev-99"): "401003 credential"}
        rig.hub.arm(FaultKind.CONNACK_3, count=1)
        rig.arrive("dev-01")
        await rig.until_down("dev-01")
        assert notes.standing[Identity("dev-01")] == "503001 busy"
        await rig.live_through(30.0)
        await rig.until_state(State.UP, "dev-01")
        assert Identity("dev-01") not in notes.standing
        assert notes.errors[Identity("dev-01")].remedy


async def test_a_hub_that_cannot_be_reached_is_noted_with_the_words_of_the_failure() -> None:
    async with hub_fleet_rig("dev-01") as rig:
        rig.hub.arm(FaultKind.NO_CONNACK, count=1)
        rig.arrive("dev-01")
        async with asyncio.timeout(10):
            while not rig.hub_sessions.notes.errors:
                rig.pass_seconds(1.0)
                await asyncio.sleep(0.005)
        error = rig.hub_sessions.notes.errors[Identity("dev-01")]
        assert (error.key, error.words) == (NO_CONNECTION, "the hub's answer to CONNECT took too long")


async def test_renewals_are_noted_by_the_minute_in_which_they_were_done() -> None:
    async with hub_fleet_rig("dev-01", "dev-02") as rig:
        await rig.at_hub("dev-01", "dev-02")
        await rig.renew_all()
        minutes = list(rig.hub_sessions.notes.minutes(rig.hub_sessions._clock.monotonic()))
        assert sum(minute.done for minute in minutes) == rig.renewals("ok") == 2


# Stopping


async def test_a_stop_ends_every_session_with_disconnect_and_counts_it_as_a_shutdown() -> None:
    names = [f"dev-{number:02}" for number in range(5)]
    async with hub_fleet_rig(*names) as rig:
        await rig.at_hub(*names)
        assert rig.hub_sessions.stop() == 5
        await rig.until(lambda: rig.hub_sessions.open_sessions == 0)
        await rig.until(lambda: len(planned_ends(rig)) == 5)
        assert all(planned_ends(rig))
        assert rig.disconnects() == {("true", "shutdown"): 5}


async def test_a_stop_forgets_sessions_that_are_down_and_opens_none_that_wait_for_a_permit() -> None:
    names = [f"dev-{number:02}" for number in range(6)]
    async with hub_fleet_rig(*names, strangers=("dev-99",), budget=2) as rig:
        rig.arrive("dev-99")
        await rig.until_down("dev-99")
        for name in names:
            rig.arrive(name)
        rig.hub_sessions.stop()
        connects = rig.hub.summary().connects
        await rig.until(lambda: rig.hub_sessions.open_sessions == 0)
        await rig.live_through(30.0)
        assert rig.hub.summary().connects <= connects + 1, "the one that was on its way"
        assert len(rig.conductor) == 0


async def test_a_device_that_arrives_while_stopping_is_not_brought_to_the_hub() -> None:
    async with hub_fleet_rig("dev-01") as rig:
        rig.hub_sessions.stop()
        rig.arrive("dev-01")
        assert rig.state("dev-01") is State.ABSENT
