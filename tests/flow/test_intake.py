"""From a real device at the real listener to the hub, and to the desks of the way back."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.message import Identity
from gatewayd.upstream.session import State
from tests.support.hub_fleet_rig import hub_fleet_rig, listening
from tests.support.raw_device import PUBACK, UNSUBACK, RawDevice, publish_bytes, unsubscribe_bytes
from tests.support.tls_material import Tls


async def test_telemetry_goes_to_the_hub_as_it_was_published_and_is_receipted_then(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.publish(b"\x00body", "%24.mid=a%20b&x=1", packet_id=7)
        device.send(publish_bytes(device.events, b"second", qos=0))
        await rig.hub.ledger.wait_for_count(2)
        first, second = rig.hub.ledger.of("dev-01")
        assert (first.bag, first.payload, first.qos) == ("%24.mid=a%20b&x=1", b"\x00body", 1)
        assert (second.bag, second.payload, second.qos) == ("", b"second", 0)
        stages = [
            rig.value("gatewayd_messages_total", direction="device_to_cloud", stage=stage)
            for stage in ("received", "sent", "acknowledged", "receipted")
        ]
        assert stages == [2, 2, 1, 1]
        await device.disconnect()


async def test_a_module_speaks_on_its_own_topics(tls: Tls) -> None:
    name = "dev-01/mod"
    async with hub_fleet_rig("dev-01", name) as rig, listening(rig, tls, name) as desk:
        device = await RawDevice.connect(desk, name)
        await device.publish(b"body")
        assert [message.payload for message in rig.hub.ledger.of(name)] == [b"body"]
        await device.disconnect()


async def test_a_subscription_is_granted_kept_and_made_at_the_hub(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await rig.until_state(State.UP, "dev-01")
        assert await device.subscribe("$iothub/methods/POST/#", "#") == [1, 0x80]
        assert rig.hub.state.session("dev-01").subscriptions == {"$iothub/methods/POST/#": 1}
        assert rig.subscriptions.kept == {Identity("dev-01"): {"$iothub/methods/POST/#": 1}}
        device.send(unsubscribe_bytes("$iothub/methods/POST/#", packet_id=2))
        packet = await device.read()
        assert (packet.kind, packet.packet_id) == (UNSUBACK, 2)
        assert rig.subscriptions.kept == {}
        await rig.until(lambda: not rig.hub.state.session("dev-01").subscriptions)
        await device.disconnect()


async def test_twin_requests_are_receipted_and_answered_by_the_hub(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await rig.until_state(State.UP, "dev-01")
        await device.subscribe("$iothub/twin/res/#")
        device.send(publish_bytes("$iothub/twin/GET/?$rid=abc", b" ", packet_id=5))
        receipt, answer = await device.read(), await device.read()
        assert (receipt.kind, receipt.packet_id) == (PUBACK, 5)
        assert answer.topic == "$iothub/twin/res/200/?$rid=abc"
        assert rig.value("gatewayd_messages_total", direction="device_to_cloud", stage="received") == 0
        await device.disconnect()


async def test_a_method_reply_is_received_and_sent_as_a_message_is(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await rig.until_state(State.UP, "dev-01")
        await device.subscribe("$iothub/methods/POST/#", qos=0)
        call = asyncio.create_task(rig.hub.call_method("dev-01", "turn", b"1"))
        asked = await device.read()
        request_id = asked.topic.partition("$rid=")[2]
        device.send(publish_bytes(f"$iothub/methods/res/200/?$rid={request_id}", b"{}", qos=0))
        assert await call == (200, b"{}")
        stages = [
            rig.value("gatewayd_messages_total", direction="device_to_cloud", stage=stage)
            for stage in ("received", "sent")
        ]
        assert stages == [1, 1]
        await device.disconnect()


async def test_a_reply_nobody_waits_for_is_received_and_dropped_with_its_reason(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        device.send(publish_bytes("$iothub/methods/res/200/?$rid=3", b"{}", packet_id=5))
        assert (await device.read()).packet_id == 5
        assert rig.value("gatewayd_messages_dropped_total", reason="method_reply_late") == 1
        assert rig.value("gatewayd_messages_total", direction="device_to_cloud", stage="received") == 1
        await device.disconnect()


async def test_a_receipt_of_a_twin_request_keeps_its_place_behind_earlier_messages(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        device.send(
            publish_bytes(device.events, b"one", packet_id=1)
            + publish_bytes("$iothub/twin/GET/?$rid=1", b"", packet_id=2)
            + publish_bytes(device.events, b"two", packet_id=3)
        )
        assert [(await device.read()).packet_id for _ in range(3)] == [1, 2, 3]
        await device.disconnect()


async def test_no_session_is_said_to_be_present_without_subscriptions(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        for _ in range(2):
            device = await RawDevice.connect(desk, "dev-01", clean=False)
            assert not device.session_present
            await device.disconnect()


async def test_a_session_is_said_to_be_present_for_a_device_with_subscriptions_until_it_is_clean(
    tls: Tls,
) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("$iothub/methods/POST/#")
        await device.disconnect()
        for clean, present in ((False, True), (True, False), (False, False)):
            device = await RawDevice.connect(desk, "dev-01", clean=clean)
            assert device.session_present is present
            await device.disconnect()
        assert rig.subscriptions.kept == {}


@pytest.mark.parametrize(
    ("topic", "bag"),
    [
        ("devices/dev-01/messages/events/", "iothub-MessageType=Will"),
        ("devices/dev-01/messages/events", "iothub-MessageType=Will"),
        ("devices/dev-01/messages/events/a=b&%24.mid=1", "a=b&%24.mid=1&iothub-MessageType=Will"),
    ],
)
async def test_a_will_is_telemetry_with_a_property_more(tls: Tls, topic: str, bag: str) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01", will=(topic, b"gone"))
        await device.publish(b"last words")
        await device.abort()
        await rig.hub.ledger.wait_for_count(2)
        will = rig.hub.ledger.of("dev-01")[1]
        assert (will.bag, will.payload) == (bag, b"gone")


async def test_a_device_that_says_disconnect_has_no_will_said(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01", will=("devices/dev-01/messages/events/", b"gone"))
        await device.disconnect()
        device = await RawDevice.connect(desk, "dev-01")
        await device.publish(b"back")
        assert [message.payload for message in rig.hub.ledger.of("dev-01")] == [b"back"]
        await device.disconnect()


async def test_a_gateway_that_stops_says_no_will(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig:
        async with listening(rig, tls, "dev-01") as desk:
            will = ("devices/dev-01/messages/events/", b"gone")
            device = await RawDevice.connect(desk, "dev-01", will=will)
            await device.publish(b"here")
        await device.ended()
        assert [message.payload for message in rig.hub.ledger.of("dev-01")] == [b"here"]


async def test_a_retained_message_is_marked_by_the_hub(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        device.send(publish_bytes(f"{device.events}a=b", b"kept", retain=True))
        assert (await device.read()).kind == PUBACK
        assert [message.bag for message in rig.hub.ledger.of("dev-01")] == ["a=b&mqtt-retain=true"]
        await device.disconnect()


async def test_a_takeover_by_the_same_id_keeps_the_hub_session_and_resends_make_no_double(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        older = await RawDevice.connect(desk, "dev-01")
        await older.publish(b"one", packet_id=1)
        await rig.hub.blackhole(60.0)
        rig.hub.drop("dev-01")
        await rig.until_down("dev-01")
        older.send(publish_bytes(older.events, b"two", packet_id=2))
        await rig.until(lambda: rig.dispatch.unreceipted == 1)
        newer = await RawDevice.connect(desk, "dev-01")
        assert await older.ended() == b""
        newer.send(publish_bytes(newer.events, b"two", packet_id=2, dup=True))
        newer.send(publish_bytes(newer.events, b"three", packet_id=3))
        await rig.until(lambda: rig.dispatch.unreceipted == 2)
        await rig.hub.blackhole(0.001)
        await rig.until(lambda: rig.hub._front._mqtt._server is not None)
        await rig.live_through(20.0)
        assert [(await newer.read()).packet_id for _ in range(2)] == [2, 3]
        assert [message.payload for message in rig.hub.ledger.of("dev-01")] == [b"one", b"two", b"three"]
        assert rig.value("gatewayd_disconnects_total", side="device", planned="false", reason="takeover") == 1
        await newer.disconnect()


async def test_a_device_that_left_is_no_longer_wanted_at_the_hub_after_linger(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await rig.until_state(State.UP, "dev-01")
        await device.disconnect()
        await rig.until(lambda: all(lane.device is None for lane in rig.dispatch))
        rig.pass_seconds(rig.hub_sessions.linger)
        await rig.until_state(State.ABSENT, "dev-01")
        assert list(rig.dispatch) == []
