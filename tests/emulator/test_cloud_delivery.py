"""The way of a cloud message to a device: order, locks, DUP, and what a connection's end leaves."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.emulator.cloud_queue import MAX_DELIVERIES, Delivery, MessageState
from gatewayd.emulator.event_log import HubCode, HubEvent, Operation
from gatewayd.emulator.faults import FaultKind
from gatewayd.emulator.property_bag import CloudProperties
from tests.support.emulated_hub import DeskHub, emulated_hub
from tests.support.raw_device import UNSUBACK, RawDevice, RawPacket, frame, text

COMMANDS = "devices/dev-01/messages/devicebound/#"
PURGE_SECONDS = 0.2


async def end_of(desk: DeskHub) -> HubEvent:
    return await desk.hub.events.wait_for(lambda event: event.operation is Operation.DISCONNECT)


async def listening(desk: DeskHub, *, qos: int = 1) -> RawDevice:
    device = await RawDevice.connect(desk, "dev-01")
    await device.subscribe(COMMANDS, qos=qos)
    return device


async def settled(device: RawDevice, packet: RawPacket) -> None:
    """PUBACK, and a ping's answer: the hub has read it."""
    device.acknowledge(packet.packet_id)
    device.send(b"\xc0\x00")
    await device.read()


async def test_a_cloud_message_is_complete_when_it_is_acknowledged_and_comes_again_when_not() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("devices/dev-01/messages/devicebound/#")
        for body in (b"1", b"2"):
            assert desk.hub.send_to_device("dev-01", body)
        first, second = await device.read(), await device.read()
        assert [packet.payload for packet in (first, second)] == [b"1", b"2"]
        device.acknowledge(first.packet_id)
        await device.disconnect()
        device = await RawDevice.connect(desk, "dev-01")
        assert (await device.read()).payload == b"2"
        await device.disconnect()


async def test_pubacks_out_of_order_close_the_connection() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("devices/dev-01/messages/devicebound/#")
        for body in (b"1", b"2"):
            desk.hub.send_to_device("dev-01", body)
        await device.read()
        device.acknowledge((await device.read()).packet_id)
        assert await device.ended() == b""
        assert (await end_of(desk)).code == HubCode.INVALID_PUBACK_ORDER


async def test_what_a_kept_session_had_in_flight_comes_again_with_its_packet_id_and_dup() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await listening(desk)
        for body in (b"1", b"2"):
            desk.hub.send_to_device("dev-01", body)
        before = [await device.read(), await device.read()]
        desk.hub.send_to_device("dev-01", b"3")
        await device.close()
        await end_of(desk)
        assert desk.hub.delivery("dev-01", 1) == Delivery(MessageState.ENQUEUED, 1)
        device = await RawDevice.connect(desk, "dev-01")
        again = [await device.read() for _ in range(3)]
        assert [packet.body for packet in again[:2]] == [packet.body for packet in before]
        assert [bool(packet.first & 8) for packet in again] == [True, True, True]
        assert desk.hub.delivery("dev-01", 1) == Delivery(MessageState.INVISIBLE, 2)
        await device.disconnect()


async def test_without_kept_packet_ids_it_comes_again_as_a_new_message() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.settings.keep_packet_ids = False
        device = await listening(desk)
        desk.hub.send_to_device("dev-01", b"1")
        before = await device.read()
        await device.disconnect()
        device = await RawDevice.connect(desk, "dev-01")
        again = await device.read()
        assert (again.topic, again.payload, again.first & 8) == (before.topic, b"1", 0)
        await device.disconnect()


@pytest.mark.parametrize("kind", [FaultKind.LOSE_SUBSCRIPTIONS, FaultKind.LIE_SESSION_PRESENT])
async def test_a_lost_session_leaves_the_queue_which_waits_for_a_new_subscription(kind: FaultKind) -> None:
    async with emulated_hub("dev-01") as desk:
        device = await listening(desk)
        desk.hub.send_to_device("dev-01", b"1")
        await device.read()
        await device.disconnect()
        desk.hub.arm(kind, count=1)
        device = await RawDevice.connect(desk, "dev-01")
        with pytest.raises(TimeoutError):
            await device.read(0.05)
        device.send(frame(0x82, b"\0\1" + text(COMMANDS) + b"\1"))
        packets = [await device.read(), await device.read()]
        (message,) = [packet for packet in packets if packet.kind == 0x30]
        assert (message.payload, message.first & 8) == (b"1", 0)
        await device.disconnect()


async def test_a_lock_that_runs_out_offers_the_message_again_on_the_open_connection() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.settings.lock_seconds = 0.05
        device = await listening(desk)
        desk.hub.send_to_device("dev-01", b"1")
        first, again = await device.read(), await device.read()
        assert again.body == first.body
        assert (first.first & 8, again.first & 8) == (0, 8)
        await settled(device, again)
        assert desk.hub.delivery("dev-01", 1) == Delivery(MessageState.COMPLETED, 2)
        await device.disconnect()


async def test_a_message_nobody_acknowledges_is_dead_lettered_after_ten_deliveries() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.settings.lock_seconds = 0.02
        device = await listening(desk)
        desk.hub.send_to_device("dev-01", b"1")
        packets = [await device.read() for _ in range(MAX_DELIVERIES)]
        assert len({packet.packet_id for packet in packets}) == 1
        with pytest.raises(TimeoutError):
            await device.read(0.1)
        exceeded = Delivery(MessageState.DELIVERY_COUNT_EXCEEDED, MAX_DELIVERIES)
        assert desk.hub.delivery("dev-01", 1) == exceeded
        await settled(device, packets[0])
        assert desk.hub.events.errors == {}
        await device.disconnect()


async def test_without_a_subscription_a_lock_ends_and_the_message_waits() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.settings.lock_seconds = 0.05
        device = await listening(desk)
        desk.hub.send_to_device("dev-01", b"1")
        first = await device.read()
        device.send(frame(0xA2, b"\0\2" + text(COMMANDS)))
        assert (await device.read()).kind == UNSUBACK
        with pytest.raises(TimeoutError):
            await device.read(0.15)
        assert desk.hub.delivery("dev-01", 1) == Delivery(MessageState.ENQUEUED, 1)
        await settled(device, first)
        assert desk.hub.events.errors == {HubCode.LOCK_LOST: 1}
        assert desk.hub.queued("dev-01") == 1, "a PUBACK behind the lock completes nothing"
        await device.disconnect()


async def test_with_qos_0_a_message_is_complete_once_it_is_written() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await listening(desk, qos=0)
        desk.hub.send_to_device("dev-01", b"1")
        assert (await device.read()).qos == 0
        assert desk.hub.delivery("dev-01", 1) == Delivery(MessageState.COMPLETED, 1)
        await device.disconnect()


async def test_a_message_that_expires_in_the_queue_is_not_delivered() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.send_to_device("dev-01", b"1", properties=CloudProperties(lifetime=0.01))
        await asyncio.sleep(0.02)
        desk.hub.send_to_device("dev-01", b"2")
        device = await listening(desk)
        assert (await device.read()).payload == b"2"
        assert desk.hub.delivery("dev-01", 1) == Delivery(MessageState.EXPIRED, 0)
        await device.disconnect()


@pytest.mark.parametrize("below", ["#", "inputs/#"])
async def test_a_module_takes_messages_at_its_inputs(below: str) -> None:
    async with emulated_hub("dev-01", "dev-01/mod") as desk:
        device = await RawDevice.connect(desk, "dev-01/mod")
        await device.subscribe(f"devices/dev-01/modules/mod/{below}")
        desk.hub.send_to_device("dev-01/mod", b"1", "a=b", module_input="in1")
        packet = await device.read()
        assert (packet.topic, packet.payload) == ("devices/dev-01/modules/mod/inputs/in1/a=b", b"1")
        await settled(device, packet)
        assert desk.hub.queued("dev-01/mod") == 0
        await device.disconnect()
