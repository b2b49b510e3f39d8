"""What an accepted connection carries, and what the hub does with it."""

from __future__ import annotations

import asyncio
import json

import pytest

from gatewayd.emulator.faults import FaultKind
from tests.support.emulated_hub import emulated_hub
from tests.support.raw_device import PUBACK, PUBLISH, RawDevice, publish_bytes

GET = "$iothub/twin/GET/?$rid=g"
PATCH = "$iothub/twin/PATCH/properties/reported/?$rid=p"


async def test_a_twin_is_read_and_reported_and_desired_changes_are_told() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", qos=0)
        device.send(publish_bytes("$iothub/twin/PATCH/properties/reported/?$rid=a", b'{"x":1}', qos=0))
        assert (await device.read()).topic == "$iothub/twin/res/204/?$rid=a&$version=2"
        device.send(publish_bytes("$iothub/twin/GET/?$rid=b", b" ", qos=0))
        packet = await device.read()
        assert packet.topic == "$iothub/twin/res/200/?$rid=b"
        assert packet.payload == b'{"desired":{"$version":1},"reported":{"x":1,"$version":2}}'
        assert desk.hub.desire("dev-01", {"y": 2})
        packet = await device.read()
        assert packet.topic == "$iothub/twin/PATCH/properties/desired/?$version=2"
        assert (packet.kind, packet.payload) == (PUBLISH, b'{"y":2,"$version":2}')
        await device.disconnect()


@pytest.mark.parametrize("status", [400, 429, 503])
async def test_a_twin_request_may_be_answered_with_an_error_and_then_changes_nothing(status: int) -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.arm(FaultKind.TWIN_STATUS, value=status, count=2)
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("$iothub/twin/res/#", qos=0)
        for topic, rid in ((PATCH, "p"), (GET, "g")):
            device.send(publish_bytes(topic, b'{"x":1}', qos=0))
            packet = await device.read()
            assert packet.topic == f"$iothub/twin/res/{status}/?$rid={rid}"
            assert json.loads(packet.payload) == {"message": "a fault is armed"}
        assert desk.hub.read_twin("dev-01").reported == {}
        device.send(publish_bytes(PATCH, b'{"x":1}', qos=0))
        assert (await device.read()).topic == "$iothub/twin/res/204/?$rid=p&$version=2"
        await device.disconnect()


async def test_a_twin_request_may_be_left_without_an_answer() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.arm(FaultKind.TWIN_SILENCE, count=1)
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("$iothub/twin/res/#", qos=0)
        device.send(publish_bytes("$iothub/twin/GET/?$rid=1", b" ", qos=0))
        device.send(publish_bytes("$iothub/twin/GET/?$rid=2", b" ", qos=0))
        assert (await device.read()).topic == "$iothub/twin/res/200/?$rid=2"
        await device.disconnect()


async def test_a_good_filter_may_be_refused() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.arm(FaultKind.SUBACK_REFUSE, count=1)
        device = await RawDevice.connect(desk, "dev-01")
        assert await device.subscribe("$iothub/twin/res/#", "$iothub/methods/POST/#") == [0x80, 1]
        assert desk.hub.state.session("dev-01").subscriptions == {"$iothub/methods/POST/#": 1}
        await device.disconnect()


async def test_sends_over_the_throttle_are_acknowledged_late_and_all_are_taken() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.send_throttle.per_second = 5
        device = await RawDevice.connect(desk, "dev-01")
        began = desk.clock.monotonic()
        for number in range(1, 9):
            device.send(publish_bytes(device.events, b"x", packet_id=number))
        receipts = [await device.read() for _ in range(8)]
        assert [packet.packet_id for packet in receipts] == list(range(1, 9))
        assert desk.clock.monotonic() - began >= 1.0
        summary = desk.hub.summary()
        assert (summary.sends, summary.sends_shaped, summary.messages_at_hub) == (8, 3, 8)
        assert (summary.sends_peak_per_s, sum(summary.sends_per_s)) == (8, 8)
        assert summary.hub_errors == {}
        await device.disconnect()


async def test_sends_far_over_the_throttle_end_the_connection() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.send_throttle.per_second = 2
        desk.hub.send_throttle.shape_seconds = 0.0
        device = await RawDevice.connect(desk, "dev-01")
        for number in (1, 2, 3):
            device.send(publish_bytes(device.events, b"x", packet_id=number))
        await device.ended()
        summary = desk.hub.summary()
        assert summary.hub_error_causes == {"429001/send_rate": 1}
        assert (summary.sends_dropped, summary.messages_at_hub) == (1, 2)


async def test_a_puback_behind_a_late_one_keeps_its_place() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        desk.hub.arm(FaultKind.PUBACK_DELAY, count=1, value=0.1)
        for number in (1, 2):
            device.send(publish_bytes(device.events, b"x", packet_id=number))
        packets = [await device.read(), await device.read()]
        assert [(packet.kind, packet.packet_id) for packet in packets] == [(PUBACK, 1), (PUBACK, 2)]
        await device.disconnect()


@pytest.mark.parametrize("topic", ["$iothub/methods/res/200/?$rid=99", "$iothub/methods/res/200/?$rid=1"])
async def test_a_reply_to_no_call_or_to_somebody_else_s_is_logged_and_dropped(topic: str) -> None:
    async with emulated_hub("dev-01", "dev-02") as desk:
        called = await RawDevice.connect(desk, "dev-02")
        await called.subscribe("$iothub/methods/POST/#", qos=0)
        calling = asyncio.ensure_future(desk.hub.call_method("dev-02", "m"))
        assert (await called.read()).topic.endswith("$rid=1")
        device = await RawDevice.connect(desk, "dev-01")
        device.send(publish_bytes(topic, b"{}", qos=0))
        await desk.hub.events.wait_for(lambda event: event.cause == "method_reply_to_nothing")
        called.send(publish_bytes("$iothub/methods/res/200/?$rid=1", b"mine", qos=0))
        assert await calling == (200, b"mine")
        for each in (device, called):
            await each.disconnect()


async def test_a_takeover_leaves_the_will_of_the_first_connection() -> None:
    async with emulated_hub("dev-01") as desk:
        will = ("devices/dev-01/messages/events/a=b", b"gone")
        first = await RawDevice.connect(desk, "dev-01", will=will)
        second = await RawDevice.connect(desk, "dev-01")
        await first.ended()
        (message,) = desk.hub.ledger.of("dev-01")
        assert (message.bag, message.payload) == ("a=b&iothub-MessageType=Will", b"gone")
        await second.disconnect()
