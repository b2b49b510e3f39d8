"""The hub as a whole: its fault switches, its account, and what the service side may ask."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from gatewayd.emulator.certificate import make_certificate
from gatewayd.emulator.connect_throttle import OverRate
from gatewayd.emulator.event_log import HubCode, HubEvent, Operation
from gatewayd.emulator.faults import FaultKind
from gatewayd.emulator.mqtt_face import NO_CONNACK_SECONDS
from tests.support.emulated_hub import DeskHub, desk_certificate, emulated_hub
from tests.support.raw_device import PUBACK, Gone, RawDevice, connect_bytes, publish_bytes


async def knock(desk: DeskHub, identity: str = "dev-01") -> RawDevice:
    """A CONNECT whose answer the test reads itself."""
    device = await RawDevice.dial(desk, identity)
    device.send(connect_bytes(identity, desk.username(identity), desk.token(identity)))
    return device


async def disconnect_event(desk: DeskHub, since: int = 0) -> HubEvent:
    return await desk.hub.events.wait_for(lambda event: event.operation is Operation.DISCONNECT, since=since)


# Faults at CONNECT


@pytest.mark.parametrize(
    ("kind", "answer", "code"),
    [(FaultKind.CONNACK_3, 3, HubCode.UNAVAILABLE), (FaultKind.CONNACK_5, 5, HubCode.UNAUTHORIZED)],
)
async def test_a_burst_of_refusals_meets_one_identity_as_often_as_asked(
    kind: FaultKind, answer: int, code: HubCode
) -> None:
    async with emulated_hub("dev-01", "dev-02") as desk:
        desk.hub.arm(kind, identity="dev-01", count=2)
        answers = []
        for identity in ("dev-02", "dev-01", "dev-01", "dev-01"):
            device = await knock(desk, identity)
            answers.append(await device.connack())
            await (device.disconnect() if answers[-1] == 0 else device.ended())
        assert answers == [0, answer, answer, 0]
        assert desk.hub.events.errors == {code: 2}


async def test_a_connect_may_be_left_without_an_answer() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.arm(FaultKind.NO_CONNACK, count=1)
        device = await knock(desk)
        with pytest.raises(TimeoutError):
            await device.read(0.1)
        follower = await RawDevice.connect(desk, "dev-01")
        await follower.disconnect()
        await device.close()
        assert NO_CONNACK_SECONDS > 60  # every SDK has given up by then


async def test_everyone_may_be_turned_away_before_tls() -> None:
    async with emulated_hub("dev-01") as desk:
        number = desk.hub.arm(FaultKind.REFUSE_ALL)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await RawDevice.dial(desk)
        desk.hub.faults.disarm(number)
        device = await RawDevice.connect(desk, "dev-01")
        await device.disconnect()


@pytest.mark.parametrize(
    ("mode", "answers"),
    [(OverRate.DROP, [0, 0, None]), (OverRate.REFUSE, [0, 0, 3]), (OverRate.DELAY, [0, 0, 0])],
)
async def test_connects_over_the_limit_are_dropped_refused_or_delayed(
    mode: OverRate, answers: list[int | None]
) -> None:
    async with emulated_hub("a", "b", "c", connects_per_second=2, over_rate=mode) as desk:
        devices = [await RawDevice.dial(desk, identity) for identity in "abc"]
        began = desk.clock.monotonic()
        for device in devices:
            device.send(
                connect_bytes(device.identity, desk.username(device.identity), desk.token(device.identity))
            )
        got: list[int | None] = []
        for device in devices:
            try:
                got.append(await device.connack())
            except Gone:
                got.append(None)
        waited = desk.clock.monotonic() - began
        assert sorted(got, key=str) == sorted(answers, key=str)
        assert (waited > 0.9) == (mode is OverRate.DELAY)
        assert [event.cause for event in desk.hub.events.matching(429001)] == [mode]
        for device in devices:
            await device.close()


# Faults on open connections


async def test_a_receipt_may_come_late() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        desk.hub.arm(FaultKind.PUBACK_DELAY, identity="dev-01", count=1, value=0.2)
        began = desk.clock.monotonic()
        device.send(
            publish_bytes(device.events, b"1", packet_id=1) + publish_bytes(device.events, b"2", packet_id=2)
        )
        receipts = [await device.read(), await device.read()]
        assert [packet.packet_id for packet in receipts] == [
            1,
            2,
        ]  # in order, so the second waited for the first
        assert desk.clock.monotonic() - began >= 0.2
        await device.disconnect()


async def test_a_receipt_may_be_dropped_while_the_message_is_kept() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        desk.hub.arm(FaultKind.PUBACK_DROP, count=1)
        device.send(publish_bytes(device.events + "%24.mid=1", b"x", packet_id=1))
        await desk.hub.ledger.wait_for_count(1)
        device.send(b"\xc0\x00")
        assert (await device.read()).kind != PUBACK
        await device.close()
        device = await RawDevice.connect(desk, "dev-01")
        await device.publish(b"x", "%24.mid=1", packet_id=1, dup=True)
        await device.disconnect()
        summary = desk.hub.summary()
        assert (summary.messages_at_hub, summary.messages_distinct, summary.messages_duplicate) == (2, 1, 1)
        assert [message.dup for message in desk.hub.ledger.of()] == [False, True]


async def test_receipts_withheld_without_end_stop_the_reading_until_they_are_given() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        desk.hub.arm(FaultKind.PUBACK_DELAY, count=1, value=0.3)
        for number in range(1, 2001):
            device.send(publish_bytes(device.events, b"x", packet_id=number))
        for number in range(1, 2001):
            assert (await device.read()).packet_id == number
        assert desk.hub.ledger.received == 2000
        await device.disconnect()


async def test_a_connection_may_be_dropped_when_telemetry_comes() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        desk.hub.arm(FaultKind.DROP_ON_PUBLISH, count=1)
        device.send(publish_bytes(device.events, b"x"))
        assert await device.ended() == b""
        event = await disconnect_event(desk)
        assert (event.code, event.cause, event.planned) == (404104, "dropped", False)
        assert desk.hub.ledger.received == 0


async def test_one_connection_or_all_may_be_dropped_without_a_sign() -> None:
    async with emulated_hub("a", "b", "c") as desk:
        devices = [await RawDevice.connect(desk, identity) for identity in "abc"]
        assert desk.hub.drop("a") == 1
        assert await devices[0].ended() == b""
        assert desk.hub.open_identities == {"b", "c"}
        assert desk.hub.drop() == 2
        assert [await device.ended() for device in devices[1:]] == [b"", b""]
        assert desk.hub.drop("nobody") == 0
        assert desk.hub.summary().hub_errors == {"404104": 3}


async def test_a_stored_session_may_be_lost_and_may_be_lied_about() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        for kind, present in ((FaultKind.LOSE_SUBSCRIPTIONS, False), (FaultKind.LIE_SESSION_PRESENT, True)):
            await device.subscribe("devices/dev-01/messages/devicebound/#")
            await device.disconnect()
            desk.hub.arm(kind, count=1)
            device = await RawDevice.connect(desk, "dev-01")
            assert device.session_present is present
            assert desk.hub.state.session("dev-01").subscriptions == {}
        await device.disconnect()


# The hub goes away


async def test_a_restart_closes_every_connection_and_keeps_the_sessions() -> None:
    async with emulated_hub("a", "b") as desk:
        devices = [await RawDevice.connect(desk, identity) for identity in "ab"]
        await devices[0].subscribe("devices/a/messages/devicebound/#")
        assert await desk.hub.restart() == 2
        assert [await device.ended() for device in devices] == [b"", b""]
        assert desk.hub.summary().hub_errors == {"400030": 2}
        device = await RawDevice.connect(desk, "a")
        assert device.session_present
        await device.disconnect()


async def test_a_restart_may_lose_the_sessions_but_not_the_queues() -> None:
    async with emulated_hub("a") as desk:
        device = await RawDevice.connect(desk, "a")
        await device.subscribe("devices/a/messages/devicebound/#")
        desk.hub.send_to_device("a", b"x")
        await desk.hub.restart(lose_sessions=True)
        await device.ended()
        device = await RawDevice.connect(desk, "a")
        assert not device.session_present
        assert desk.hub.state.session("a").subscriptions == {}
        assert desk.hub.queued("a") == 1
        await device.disconnect()


async def test_a_restart_may_take_time_and_the_hub_comes_back_on_the_same_address() -> None:
    async with emulated_hub("dev-01") as desk:
        address = desk.hub.address
        await desk.hub.restart(0.3)
        with pytest.raises(ConnectionRefusedError):
            await RawDevice.dial(desk)
        async with asyncio.timeout(5):
            while True:
                try:
                    device = await RawDevice.connect(desk, "dev-01")
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
        assert desk.hub.address == address
        await device.disconnect()


async def test_a_blackhole_takes_tcp_and_never_speaks_tls_while_open_connections_live_on() -> None:
    async with emulated_hub("dev-01", "dev-02") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await desk.hub.blackhole(0.5)
        dialling = asyncio.ensure_future(RawDevice.dial(desk))
        done, _ = await asyncio.wait([dialling], timeout=0.2)
        assert not done
        await device.publish(b"x")
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await dialling  # closed when the hub serves again
        follower = await RawDevice.connect(desk, "dev-02")
        await follower.disconnect()
        await device.disconnect()


async def test_another_root_is_shown_to_new_connections_only() -> None:
    async with emulated_hub("dev-01", "dev-02") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        rotated = make_certificate(desk.hostname, wall=desk.clock.wall())
        await desk.hub.rotate_certificate(rotated)
        with pytest.raises(ssl.SSLCertVerificationError):
            await RawDevice.dial(desk)
        await desk.hub.events.wait_for(lambda event: event.cause == "handshake_failed")
        await device.publish(b"x")
        await device.disconnect()
        assert desk.hub.summary().handshakes_failed == 1
        follower = await RawDevice.connect(DeskHub(desk.hub, rotated, desk.clock), "dev-02")
        await follower.disconnect()


# A handover with an old flow that is late


async def test_with_a_late_old_flow_a_fast_handover_is_a_takeover() -> None:
    async with emulated_hub("dev-01") as desk:
        old = await RawDevice.connect(desk, "dev-01")
        new = await RawDevice.dial(desk, "dev-01")
        desk.hub.arm(FaultKind.OLD_FLOW_DELAY, value=0.5, seconds=5.0)
        old.send(b"\xe0\x00")
        leaving = asyncio.ensure_future(old.ended())
        new.send(connect_bytes("dev-01", desk.username("dev-01"), desk.token("dev-01")))
        assert await new.connack() == 0
        await leaving
        assert (await disconnect_event(desk)).code == HubCode.TAKEN_OVER
        await new.disconnect()
        assert desk.hub.events.errors == {HubCode.TAKEN_OVER: 1}


async def test_with_a_late_old_flow_a_strict_handover_is_planned() -> None:
    async with emulated_hub("dev-01") as desk:
        old = await RawDevice.connect(desk, "dev-01")
        new = await RawDevice.dial(desk, "dev-01")
        desk.hub.arm(FaultKind.OLD_FLOW_DELAY, value=0.5, seconds=5.0)
        began = desk.clock.monotonic()
        old.send(b"\xe0\x00")
        await old.ended()  # strict: CONNECT only after the hub has closed the old one
        assert desk.clock.monotonic() - began >= 0.5
        new.send(connect_bytes("dev-01", desk.username("dev-01"), desk.token("dev-01")))
        assert await new.connack() == 0
        assert desk.hub.events.errors == {}
        assert desk.hub.summary().planned_disconnects == 1
        desk.hub.faults.clear()
        await new.disconnect()


async def test_everything_a_device_says_may_come_late() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.arm(FaultKind.INPUT_DELAY, value=0.2)
        began = desk.clock.monotonic()
        device = await RawDevice.connect(desk, "dev-01")
        assert desk.clock.monotonic() - began >= 0.2
        await device.publish(b"x")
        assert desk.clock.monotonic() - began >= 0.4
        await device.disconnect()
        assert desk.hub.events.errors == {}


# The account


async def test_the_account_names_peaks_gaps_errors_and_messages() -> None:
    async with emulated_hub("dev-01", connects_per_second=0) as desk:
        for _ in range(3):
            device = await RawDevice.connect(desk, "dev-01")
            await device.publish(b"x", "%24.mid=1")
            await device.disconnect()
        device = await RawDevice.connect(desk, "dev-01")
        desk.hub.drop()
        await device.ended()
        summary = desk.hub.summary()
        assert (summary.connects, sum(summary.connects_per_s)) == (4, 4)
        assert 1 <= summary.connects_peak_per_aligned_s <= summary.connects_peak_per_s <= 4
        assert (summary.planned_disconnects, summary.unplanned_disconnects) == (3, 1)
        assert summary.hub_errors == {"404104": 1}
        assert summary.hub_error_causes == {"404104/dropped": 1}
        assert summary.handover_gap_ms.count == 3
        assert 0 < summary.handover_gap_ms.p50 <= summary.handover_gap_ms.max < 5000
        assert (summary.messages_at_hub, summary.messages_distinct, summary.messages_duplicate) == (3, 1, 2)
        assert summary.open_connections == 0
        assert summary.as_dict()["handover_gap_ms"]


async def test_stopping_closes_everything_and_says_so() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        idle = await RawDevice.dial(desk)
    assert await device.ended() == b""
    await idle.ended()
    event = desk.hub.events.since()[-1]
    assert (event.code, event.cause, event.planned) == (HubCode.HUB_MOVED, "hub_stopped", False)
    assert desk.hub.state.all == set()


def test_the_test_hub_s_certificate_is_made_once() -> None:
    assert desk_certificate() is desk_certificate()
