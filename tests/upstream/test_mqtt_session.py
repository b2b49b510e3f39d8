"""One identity at the emulated hub: opens, handovers and closes, and every way in which they break."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.emulator.event_log import HubCode, Operation
from gatewayd.emulator.faults import FaultKind
from gatewayd.emulator.registry import RegisteredIdentity
from gatewayd.errors import ClockUntrusted, LocalProtocolError
from gatewayd.protocol.iothub.refusals import Ask
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.transport.tls_stream import StreamLimits
from gatewayd.upstream.handover import HandoverTimeouts, Mode, Stage
from tests.support.emulated_hub import device_key
from tests.support.hub_session_rig import DEVICE, HubSessionRig, hub_session_rig
from tests.support.raw_device import RawDevice

TIMEOUTS = HandoverTimeouts()
BOTH = pytest.mark.parametrize("mode", list(Mode))

# Opening


async def test_a_first_open_ends_in_opened_and_publishes_what_waits() -> None:
    async with hub_session_rig() as rig:
        rig.owner.offer(rig.session, 3)
        assert not rig.session.can_publish
        await rig.open()
        assert rig.owner.told[:3] == ["sign", "connecting", "opened"]
        await rig.until_settled()
        assert rig.hub.open_identities == {DEVICE}


async def test_an_open_session_says_disconnect_before_it_goes() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.close("linger")
        await rig.until_told("closed")
        assert [(end.planned, end.reason) for end in rig.owner.ends] == [(True, "linger")]
        (gone,) = rig.hub_log(Operation.DISCONNECT)
        assert gone.planned
        assert rig.hub_errors() == {}


async def test_connack_5_with_a_good_clock_is_401003_credential_and_asks_for_the_other_key() -> None:
    async with hub_session_rig() as rig:
        rig.owner.key = device_key("somebody else")
        rig.ask_open()
        await rig.until_told("open_failed")
        (failure,) = rig.owner.failures
        assert failure.ask is Ask.TRY_SECONDARY
        assert failure.inference is not None
        assert (failure.inference.refusal.code, failure.inference.refusal.cause) == (401003, "credential")
        assert rig.owner.ends == [], "a connection that was never accepted has no end to count"


async def test_connack_5_while_the_clock_is_not_trusted_is_read_as_expiry() -> None:
    async with hub_session_rig(clock_trusted=lambda: False) as rig:
        rig.owner.key = device_key("somebody else")
        rig.ask_open()
        await rig.until_told("open_failed")
        inference = rig.owner.failures[0].inference
        assert inference is not None
        assert (inference.refusal.code, inference.refusal.cause) == (401003, "expired")


async def test_the_secondary_key_is_presented_when_the_session_is_told_so() -> None:
    async with hub_session_rig() as rig:
        rig.session.secondary = True
        await rig.open()
        other = RegisteredIdentity(DEVICE, device_key("other"), device_key(f"{DEVICE}:2"))
        rig.hub.registry.put(other)
        rig.renew()
        await rig.until_told("renewed")


async def test_connack_3_is_503001_busy() -> None:
    async with hub_session_rig() as rig:
        rig.hub.arm(FaultKind.CONNACK_3, count=1)
        rig.ask_open()
        await rig.until_told("open_failed")
        (failure,) = rig.owner.failures
        assert failure.ask is Ask.WAIT
        assert failure.inference is not None
        assert failure.inference.refusal.code == 503001


async def test_a_hub_that_drops_connects_over_its_rate_is_503001_busy() -> None:
    async with hub_session_rig(connects_per_second=1) as rig:
        await rig.open()
        rig.renew()
        await rig.until_told("lost")
        (failure,) = rig.owner.failures
        assert failure.inference is not None
        assert failure.inference.refusal.code == 503001


async def test_a_refusal_after_a_wait_for_the_place_in_the_timetable_keeps_its_cause() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.renew(rig.time.clock.monotonic() + 5.0)
        await rig.until_stage(Stage.POISED)
        rig.hub.throttle.per_second = 1  # the first connect is still in its window
        rig.hub.throttle.admit(rig.hub.clock.monotonic())
        rig.pass_seconds(5.0)
        await rig.until_told("lost")
        (failure,) = rig.owner.failures
        assert failure.inference is not None
        assert failure.inference.refusal.code == 503001


async def test_a_refused_dial_is_told_in_words_and_accuses_the_hub_of_nothing() -> None:
    async with hub_session_rig() as rig:
        rig.hub.arm(FaultKind.REFUSE_ALL, count=1)
        rig.ask_open()
        await rig.until_told("open_failed")
        (failure,) = rig.owner.failures
        assert failure.inference is None
        assert "TLS handshake" in failure.words


async def test_nothing_is_sent_when_signing_is_refused_and_the_old_connection_goes_on() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.owner.sign_error = ClockUntrusted("set the clock")
        rig.renew()
        await rig.until_told("renewal_failed")
        assert "set the clock" in rig.owner.failures[0].words
        rig.owner.offer(rig.session, 2)
        await rig.until_settled()
        assert len(rig.hub_log(Operation.CONNECT)) == 1


async def test_an_open_without_a_token_fails_before_connect() -> None:
    async with hub_session_rig() as rig:
        rig.owner.sign_error = ClockUntrusted("set the clock")
        rig.ask_open()
        await rig.until_told("open_failed")
        assert "connecting" not in rig.owner.told
        assert rig.hub_log(Operation.CONNECT) == []


async def test_asking_for_what_cannot_be_is_an_error_of_ours() -> None:
    async with hub_session_rig() as rig:
        rig.owner.offer(rig.session, 1)
        with pytest.raises(LocalProtocolError):
            rig.session.publish(rig.owner.waiting[0])
        await rig.open()
        with pytest.raises(LocalProtocolError):
            rig.session.open()
        rig.renew(rig.time.clock.monotonic() + 5.0)
        with pytest.raises(LocalProtocolError):
            rig.session.renew()


# Ends that the hub makes


async def test_a_cut_at_the_tokens_expiry_is_401003_expired() -> None:
    async with hub_session_rig(real_time=True) as rig:
        rig.owner.lifetime = 1.0
        await rig.open()
        await rig.until_told("lost")
        (failure,) = rig.owner.failures
        assert failure.ask is Ask.SIGN_AGAIN
        (end,) = rig.owner.ends
        assert (end.planned, end.code) == (False, 401003)
        assert rig.hub_errors() == {401003: 1, 404104: 1}


async def test_a_cut_with_a_live_token_is_404104() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.hub.drop(DEVICE)
        await rig.until_told("lost")
        assert [(end.planned, end.reason, end.code) for end in rig.owner.ends] == [(False, "closed", 404104)]


async def test_three_cuts_in_a_row_soon_after_connect_are_a_suspected_twin() -> None:
    async with hub_session_rig() as rig:
        for _ in range(3):
            await rig.open()
            twin = await RawDevice.connect(rig.desk, DEVICE)
            await rig.until(lambda: rig.owner.state == "down")
            await twin.disconnect()
            rig.owner.told.clear()
        assert [end.code for end in rig.owner.ends] == [404104, 404104, 400027]


async def test_a_long_life_between_cuts_clears_the_suspicion() -> None:
    async with hub_session_rig() as rig:
        for lived in (1.0, 1.0, 60.0, 1.0):
            await rig.open()
            rig.pass_seconds(lived)
            if lived > 30.0:
                rig.close()  # a planned end after a long life is proof enough
            else:
                rig.hub.drop(DEVICE)
            await rig.until(lambda: rig.owner.state == "down")
            rig.owner.told.clear()
        assert [end.code for end in rig.owner.ends] == [404104, 404104, None, 404104]


async def test_a_cut_soon_after_a_fast_handover_is_not_blamed_on_the_handover() -> None:
    async with hub_session_rig(mode=Mode.FAST) as rig:
        await rig.open()
        rig.renew()
        await rig.until(lambda: len(rig.owner.ends) == 1)
        rig.hub.drop(DEVICE)
        await rig.until_told("lost")
        assert [end.code for end in rig.owner.ends] == [None, 404104]


# Renewal


async def test_strict_the_hub_has_closed_the_old_connection_before_the_new_connect_is_written() -> None:
    async with hub_session_rig(one_way=0.01, real_time=True) as rig:
        await rig.open()
        for _ in range(3):
            rig.owner.told.clear()
            rig.renew()
            await rig.until_told("renewed")
            assert rig.owner.told == ["sign", "ended", "connecting", "renewed", "writable"]
        await rig.until(lambda: len(rig.owner.ends) == 3)
        log = rig.hub_log()
        assert [event.operation for event in log] == [
            Operation.CONNECT,
            *[Operation.DISCONNECT, Operation.CONNECT] * 3,
        ]
        assert all(event.planned is not False for event in log)
        assert [(end.planned, end.reason) for end in rig.owner.ends] == [(True, "renewal")] * 3
        assert rig.hub_errors() == {}


async def test_fast_connect_follows_disconnect_at_once() -> None:
    async with hub_session_rig(mode=Mode.FAST, one_way=0.03, real_time=True) as rig:
        await rig.open()
        rig.renew()
        await rig.until_stage(Stage.CROSSING)
        assert rig.owner.told[-1] == "connecting"
        assert rig.owner.ends == []
        await rig.until_told("renewed")
        await rig.until(lambda: len(rig.owner.ends) == 1)
        assert rig.owner.ends[0].planned


@BOTH
async def test_a_steady_publisher_loses_nothing_and_keeps_its_order_over_many_renewals(mode: Mode) -> None:
    timeouts = HandoverTimeouts(patience=0.05)  # this publisher never pauses by itself
    async with hub_session_rig(mode=mode, one_way=0.004, real_time=True, window=4, timeouts=timeouts) as rig:
        await rig.open()
        for count in range(1, 9):
            rig.renew()
            while rig.owner.told.count("renewed") < count:
                rig.owner.offer(rig.session, 1)
                await asyncio.sleep(0.003)
        await rig.until_settled()
        assert rig.owner.offered > 20
        assert all(end.planned for end in rig.owner.ends)
        # Two flows may overtake each other, and fast takes that risk.
        assert rig.hub.events.unplanned == 0 or mode is Mode.FAST


async def test_publishing_waits_while_the_handover_runs_and_goes_on_after_it() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.old.blackhole = True
        rig.renew()
        await rig.until_stage(Stage.CLOSING_OLD)
        assert not rig.session.can_publish
        assert rig.session.opens_soon
        rig.owner.offer(rig.session, 2)
        assert len(rig.owner.waiting) == 2
        rig.old.reset()
        await rig.until_told("renewed")
        assert rig.owner.waiting == rig.owner.waiting.__class__()
        await rig.until_settled()


async def test_publishing_goes_on_until_the_place_in_the_timetable() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.renew(rig.time.clock.monotonic() + 5.0)
        await rig.until_stage(Stage.POISED)
        rig.owner.offer(rig.session, 5)
        await rig.until_settled()
        assert rig.owner.told.count("sign") == 1, "nothing is signed ahead of the place"
        rig.pass_seconds(5.0)
        await rig.until_told("renewed")


async def test_disconnect_is_said_also_when_the_last_receipt_begins_the_handover() -> None:
    async with hub_session_rig(one_way=0.005) as rig:
        await rig.open()
        rig.hub.arm(FaultKind.PUBACK_DELAY, count=1, value=0.05)
        rig.owner.offer(rig.session, 1)
        rig.renew()
        await rig.until_stage(Stage.QUIESCING)
        await rig.until_told("renewed")
        await rig.until(lambda: len(rig.owner.ends) == 1)
        assert rig.hub_errors() == {}
        assert [event.planned for event in rig.hub_log(Operation.DISCONNECT)] == [True]


async def test_what_the_hub_has_not_acknowledged_when_patience_and_drain_end_goes_again_with_dup() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.hub.arm(FaultKind.PUBACK_DROP, count=1)
        rig.owner.offer(rig.session, 3)
        await rig.until(lambda: rig.hub.ledger.received == 3)
        rig.renew()
        await rig.until_stage(Stage.QUIESCING)
        rig.pass_seconds(TIMEOUTS.patience)
        await rig.until_stage(Stage.DRAINING)
        rig.owner.offer(rig.session, 1)
        rig.pass_seconds(TIMEOUTS.drain)
        await rig.until_told("renewed")
        await rig.until_settled()
        (report,) = rig.owner.reports
        assert report.drain_cut
        assert report.drain == pytest.approx(TIMEOUTS.drain)
        came = [(int(message.payload), message.dup) for message in rig.hub.ledger.of(DEVICE)]
        assert came == [(0, False), (1, False), (2, False), (0, True), (1, True), (2, True), (3, False)]


async def test_an_old_connection_that_the_hub_does_not_close_is_cut_by_us_and_reported() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.old.blackhole = True
        rig.renew()
        await rig.until_stage(Stage.CLOSING_OLD)
        rig.pass_seconds(TIMEOUTS.close)
        await rig.until_told("renewed")
        assert rig.owner.reports[0].old_forced
        assert rig.owner.reports[0].gap == pytest.approx(TIMEOUTS.close)


async def test_strict_with_the_old_flow_half_a_second_late_shows_the_hub_no_400027() -> None:
    async with hub_session_rig(real_time=True) as rig:
        await rig.open()
        rig.hub.arm(FaultKind.OLD_FLOW_DELAY, value=0.5)
        rig.renew()
        await rig.until_told("renewed")
        assert rig.owner.reports[0].gap >= 0.5
        assert rig.hub_errors() == {}


async def test_fast_with_the_old_flow_late_may_be_taken_over_and_still_loses_nothing() -> None:
    async with hub_session_rig(mode=Mode.FAST, real_time=True) as rig:
        await rig.open()
        rig.hub.arm(FaultKind.OLD_FLOW_DELAY, value=0.5)
        rig.owner.offer(rig.session, 4)
        rig.renew()
        await rig.until_told("renewed")
        await rig.until_settled()
        await rig.until(lambda: len(rig.owner.ends) == 1)
        assert rig.owner.ends[0].planned, "our side has said DISCONNECT"
        assert set(rig.hub_errors()) == {HubCode.TAKEN_OVER}, "this is what strict avoids"
        rig.hub.faults.clear()


async def test_a_dial_into_a_black_hole_leaves_the_old_connection_working() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        await rig.hub.blackhole(60.0)
        rig.renew()
        await rig.until(lambda: len(rig.line.flows) == 2)
        rig.owner.offer(rig.session, 2)
        rig.pass_seconds(TIMEOUTS.dial)
        await rig.until_told("renewal_failed")
        assert rig.owner.failures[0].words == "the dial took too long"
        rig.owner.offer(rig.session, 2)
        await rig.until_settled()
        assert rig.owner.ends == []


async def test_a_hub_that_ends_the_new_connection_with_its_handshake_fails_the_renewal_and_no_more() -> None:
    """Its close_notify arrives with its last handshake record, before the dial has returned."""
    async with hub_session_rig(one_way=0.002) as rig:
        await rig.open()
        rig.hub._front._mqtt._owner_factory = _ending_at_once
        await rig.hub.rotate_certificate(rig.hub.certificate)
        rig.renew()
        await rig.until_told("renewal_failed")
        rig.owner.offer(rig.session, 2)
        await rig.until_settled()


class _EndingAtOnce:
    """A server's owner of a stream that closes it as soon as it is there."""

    def stream_ready(self, stream: object) -> None:
        stream.close()  # type: ignore[attr-defined]  # a TlsStream

    def stream_data(self, data: bytes) -> None:
        pass

    def stream_eof(self) -> None:
        pass

    def stream_writable(self) -> None:
        pass

    def stream_closed(self, error: Exception | None) -> None:
        pass


def _ending_at_once(_stream: object) -> _EndingAtOnce:
    return _EndingAtOnce()


# In flight


async def test_a_drop_with_messages_in_flight_sends_them_again_in_order_with_dup() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.hub.arm(FaultKind.DROP_ON_PUBLISH, count=1)
        rig.owner.offer(rig.session, 5)
        await rig.until_told("lost")
        assert rig.session.in_flight == 5
        rig.owner.offer(rig.session, 2)
        await rig.open_again()
        await rig.until_settled()
        came = [(int(message.payload), message.dup) for message in rig.hub.ledger.of(DEVICE)]
        assert came == [(0, True), (1, True), (2, True), (3, True), (4, True), (5, False), (6, False)]


async def test_the_window_bounds_what_is_in_flight_and_opens_with_each_receipt() -> None:
    async with hub_session_rig(window=3) as rig:
        await rig.open()
        rig.hub.arm(FaultKind.PUBACK_DELAY, count=3, value=0.05)
        rig.owner.offer(rig.session, 10)
        assert rig.session.in_flight == 3
        assert not rig.session.can_publish
        assert rig.session.opens_soon
        await rig.until_settled()


async def test_a_qos_0_message_has_no_handle_and_is_not_in_flight() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.owner.offer(rig.session, 2, qos=0)
        assert rig.session.in_flight == 0
        await rig.until(lambda: rig.hub.ledger.received == 2)


async def test_a_congested_connection_takes_no_more_until_it_has_drained() -> None:
    async with hub_session_rig(window=64, stream_limits=StreamLimits(write_high=4096)) as rig:
        await rig.open()
        rig.owner.offer(rig.session, 60, size=200_000)
        assert rig.owner.waiting
        assert not rig.session.can_publish
        assert rig.session.in_flight < 60, "congestion came before the window was full"
        await rig.until_settled()


async def test_a_hub_that_does_not_answer_a_ping_is_given_up() -> None:
    async with hub_session_rig(limits=Limits(ping_timeout=30.0)) as rig:
        await rig.open()
        rig.old.blackhole = True
        rig.pass_seconds(230.0 + 30.0)
        await rig.until_told("lost")
        assert rig.owner.ends[0].code == 404104


# Closing


@pytest.mark.parametrize("when", ["sign", "connecting", "opened", "renewed", "writable"])
async def test_a_close_from_inside_any_call_of_the_session_ends_in_exactly_one_closed(when: str) -> None:
    async with hub_session_rig() as rig:
        if when in {"renewed", "writable"}:
            await rig.open()
        rig.owner.reactions["renewed" if when == "writable" else when] = lambda _session: rig.close()
        if when in {"renewed", "writable"}:
            rig.renew()
        else:
            rig.ask_open()
        await rig.until_told("closed")
        assert rig.owner.outcomes().count("closed") == 1
        assert rig.hub.events.unplanned == 0


async def test_a_close_while_connect_is_on_its_way_waits_for_the_answer_and_says_disconnect() -> None:
    async with hub_session_rig(one_way=0.02) as rig:
        rig.ask_open()
        await rig.until_told("connecting")
        rig.close()
        await rig.until_told("closed")
        assert [event.planned for event in rig.hub_log(Operation.DISCONNECT)] == [True]
        assert "opened" not in rig.owner.told


async def test_a_close_while_the_old_connection_is_being_left_lets_its_disconnect_arrive() -> None:
    async with hub_session_rig(one_way=0.03) as rig:
        await rig.open()
        rig.renew()
        await rig.until_stage(Stage.CLOSING_OLD)
        rig.close()
        await rig.until_told("closed")
        await rig.until(lambda: bool(rig.hub_log(Operation.DISCONNECT)))
        assert [event.planned for event in rig.hub_log(Operation.DISCONNECT)] == [True]


async def test_a_close_does_not_wait_for_a_connack_longer_than_for_a_disconnect() -> None:
    async with hub_session_rig() as rig:
        rig.hub.arm(FaultKind.NO_CONNACK, count=1)
        rig.ask_open()
        await rig.until_told("connecting")
        rig.close()
        rig.pass_seconds(TIMEOUTS.close)
        assert rig.owner.outcomes() == ["closed"]


async def test_a_closed_session_opens_again() -> None:
    async with hub_session_rig() as rig:
        for times in (1, 2, 3):
            rig.ask_open()
            await rig.until_told("opened", times)
            rig.close()
            await rig.until_told("closed", times)
        assert rig.hub_errors() == {}


# The way back

C2D, METHODS = f"devices/{DEVICE}/messages/devicebound/#", "$iothub/methods/POST/#"


def at_hub(rig: HubSessionRig) -> dict[str, int]:
    return rig.hub.state.session(DEVICE).subscriptions


async def test_what_is_wanted_before_the_connection_is_asked_for_with_it() -> None:
    async with hub_session_rig() as rig:
        rig.session.want_subscriptions({C2D: 1, METHODS: 0})
        assert not rig.session.subscriptions_confirmed
        await rig.open()
        await rig.until_told("subscribed")
        assert rig.session.subscriptions_confirmed
        assert at_hub(rig) == {C2D: 1, METHODS: 0}


async def test_what_is_wanted_and_wanted_no_more_on_a_connection_is_made_so_at_once() -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        assert rig.session.subscriptions_confirmed
        rig.session.want_subscriptions({C2D: 1})
        assert not rig.session.subscriptions_confirmed
        await rig.until_told("subscribed")
        rig.session.want_subscriptions({})
        await rig.until_told("subscribed", 2)
        assert at_hub(rig) == {}


@BOTH
@pytest.mark.parametrize("fault", [None, FaultKind.LIE_SESSION_PRESENT, FaultKind.LOSE_SUBSCRIPTIONS])
async def test_every_connection_asks_for_what_is_wanted(mode: Mode, fault: FaultKind | None) -> None:
    async with hub_session_rig(mode=mode) as rig:
        rig.session.want_subscriptions({C2D: 1})
        await rig.open()
        await rig.until_told("subscribed")
        if fault is not None:
            rig.hub.arm(fault, count=1)
        rig.renew()
        await rig.until_told("subscribed", 2)
        assert at_hub(rig) == {C2D: 1}


async def test_a_message_is_told_once_and_kept_by_the_hub_until_it_is_acknowledged() -> None:
    async with hub_session_rig() as rig:
        rig.session.want_subscriptions({C2D: 1})
        await rig.open()
        rig.hub.settings.lock_seconds = 0.05
        rig.hub.send_to_device(DEVICE, b"one", "a=b")
        await rig.until(lambda: len(rig.owner.messages) == 1)
        (message,) = rig.owner.messages
        assert (message.topic, message.payload, message.qos) == (C2D[:-1] + "a=b", b"one", 1)
        await asyncio.sleep(0.2)
        assert len(rig.owner.messages) == 1, "what the hub repeats on this connection is the same message"
        rig.hub.settings.lock_seconds = 60.0
        await asyncio.sleep(0.1)
        assert rig.session.acknowledge(message)
        await rig.until(lambda: rig.hub.queued(DEVICE) == 0)


async def test_a_message_of_a_connection_that_is_over_cannot_be_acknowledged() -> None:
    async with hub_session_rig() as rig:
        rig.session.want_subscriptions({C2D: 1})
        await rig.open()
        rig.hub.send_to_device(DEVICE, b"one")
        await rig.until(lambda: len(rig.owner.messages) == 1)
        rig.renew()
        await rig.until_told("renewed")
        await rig.until(lambda: len(rig.owner.messages) == 2)
        first, again = rig.owner.messages
        assert not rig.session.acknowledge(first)
        assert again.payload == first.payload
        assert rig.session.acknowledge(again)
        await rig.until(lambda: rig.hub.queued(DEVICE) == 0)
        assert rig.hub_errors() == {}


async def test_a_message_cannot_be_acknowledged_while_its_connection_is_being_left() -> None:
    async with hub_session_rig(one_way=0.05) as rig:
        rig.session.want_subscriptions({C2D: 1})
        await rig.open()
        rig.hub.send_to_device(DEVICE, b"one")
        await rig.until(lambda: len(rig.owner.messages) == 1)
        rig.renew()
        await rig.until_stage(Stage.CLOSING_OLD)
        assert not rig.session.acknowledge(rig.owner.messages[0])
        await rig.until_told("renewed")


async def test_something_is_said_beside_a_full_window_and_not_while_a_handover_holds() -> None:
    async with hub_session_rig(window=1, one_way=0.05) as rig:
        assert not rig.session.say("$iothub/twin/GET/?$rid=1", b"")
        rig.session.want_subscriptions({"$iothub/twin/res/#": 0})
        await rig.open()
        rig.hub.arm(FaultKind.PUBACK_DROP, count=1)
        rig.owner.offer(rig.session, 1)
        assert not rig.session.can_publish
        assert rig.session.say("$iothub/twin/GET/?$rid=1", b" ")
        await rig.until(lambda: len(rig.owner.messages) == 1)
        assert rig.owner.messages[0].topic == "$iothub/twin/res/200/?$rid=1"
        rig.renew()
        await rig.until_stage(Stage.QUIESCING)
        assert rig.session.can_say
        rig.pass_seconds(TIMEOUTS.patience)
        await rig.until_stage(Stage.DRAINING)
        assert not rig.session.can_say
        assert not rig.session.say("$iothub/twin/GET/?$rid=2", b" ")
        rig.pass_seconds(TIMEOUTS.drain)
        await rig.until_told("renewed")
        assert rig.session.say("$iothub/twin/GET/?$rid=3", b" ")


async def test_a_refused_filter_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with hub_session_rig() as rig:
        await rig.open()
        rig.hub.arm(FaultKind.SUBACK_REFUSE, count=1)
        rig.session.want_subscriptions({C2D: 1})
        await rig.until_told("subscribed")
        assert rig.session.subscriptions_refused == {C2D}
        assert "the hub refuses a subscription" in caplog.text
