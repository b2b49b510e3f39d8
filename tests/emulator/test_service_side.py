"""What a cloud application may ask, and what it is answered."""

from __future__ import annotations

import asyncio
import struct

import pytest

from gatewayd.emulator.cloud_queue import Delivery, MessageState
from gatewayd.emulator.property_bag import CloudProperties, read
from gatewayd.emulator.service_side import (
    LONGEST_CALL_SECONDS,
    MAX_METHOD_BYTES,
    MAX_METHOD_CALLS,
    NoSuchIdentity,
    NotOnline,
)
from tests.support.emulated_hub import emulated_hub
from tests.support.raw_device import RawDevice, frame, publish_bytes, text


async def test_a_method_is_called_and_answered() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("$iothub/methods/POST/#", qos=0)
        calling = asyncio.ensure_future(desk.hub.call_method("dev-01", "reboot", b'{"in":5}'))
        call = await device.read()
        path, _, rid = call.topic.partition("/?$rid=")
        assert (path, call.payload) == ("$iothub/methods/POST/reboot", b'{"in":5}')
        device.send(publish_bytes(f"$iothub/methods/res/202/?$rid={rid}", b"{}", qos=0))
        assert await calling == (202, b"{}")
        await device.disconnect()


async def test_a_method_for_an_absent_or_deaf_device_is_not_online_and_a_silent_one_times_out() -> None:
    async with emulated_hub("dev-01") as desk:
        with pytest.raises(NotOnline):
            await desk.hub.call_method("dev-01", "reboot")
        device = await RawDevice.connect(desk, "dev-01")
        with pytest.raises(NotOnline):
            await desk.hub.call_method("dev-01", "reboot")
        await device.subscribe("$iothub/methods/POST/#", qos=0)
        with pytest.raises(TimeoutError):
            await desk.hub.call_method("dev-01", "reboot", within=0.05)
        assert desk.hub.state.method_calls == {}
        device.send(publish_bytes("$iothub/methods/res/200/?$rid=1", b"{}", qos=0))
        await device.disconnect()


async def test_the_queue_of_cloud_messages_says_when_it_is_full() -> None:
    async with emulated_hub("dev-01") as desk:
        assert all(desk.hub.send_to_device("dev-01", struct.pack("!H", number)) for number in range(50))
        assert not desk.hub.send_to_device("dev-01", b"one more")


async def test_a_message_says_everything_the_service_side_gave_it() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("devices/dev-01/messages/devicebound/#")
        custom = {"a b": "c&d=e/f", "null": None, "empty": ""}
        properties = CloudProperties(
            message_id="m", correlation_id="c", user_id="u", content_type="t", ack="full", custom=custom
        )
        number = desk.hub.send_to_device("dev-01", b"x", properties=properties)
        said = read((await device.read()).topic.removeprefix("devices/dev-01/messages/devicebound/"))
        assert said.custom == custom
        assert said.system == {
            "message-id": "m",
            "correlation-id": "c",
            "user-id": "u",
            "to": "/devices/dev-01/messages/devicebound",
            "content-type": "t",
            "ack": "full",
        }
        assert desk.hub.delivery("dev-01", number) == Delivery(MessageState.INVISIBLE, 1)
        await device.disconnect()


async def test_a_queue_is_counted_and_purged() -> None:
    async with emulated_hub("dev-01") as desk:
        numbers = [desk.hub.send_to_device("dev-01", b"x") for _ in range(3)]
        assert (numbers, desk.hub.queued("dev-01")) == ([1, 2, 3], 3)
        assert desk.hub.purge("dev-01") == 3
        assert desk.hub.delivery("dev-01", 1) == Delivery(MessageState.PURGED, 0)
        assert desk.hub.delivery("dev-01", 4) is None


async def test_who_is_not_registered_is_not_known() -> None:
    async with emulated_hub("dev-01") as desk:
        for ask in (
            lambda: desk.hub.send_to_device("nobody", b"x"),
            lambda: desk.hub.desire("nobody", {}),
            lambda: desk.hub.read_twin("nobody"),
            lambda: desk.hub.queued("nobody"),
        ):
            with pytest.raises(NoSuchIdentity):
                ask()
        with pytest.raises(NoSuchIdentity):
            await desk.hub.call_method("nobody", "m")


async def test_inputs_are_for_modules_and_commands_for_devices() -> None:
    async with emulated_hub("dev-01", "dev-01/mod") as desk:
        with pytest.raises(ValueError, match="input"):
            desk.hub.send_to_device("dev-01/mod", b"x")
        with pytest.raises(ValueError, match="input"):
            desk.hub.send_to_device("dev-01", b"x", module_input="in")
        with pytest.raises(ValueError, match="not both"):
            desk.hub.send_to_device("dev-01", b"x", "a=b", properties=CloudProperties())


async def test_a_twin_is_read_with_its_versions() -> None:
    async with emulated_hub("dev-01") as desk:
        assert not desk.hub.desire("dev-01", {"x": 1})
        twin = desk.hub.read_twin("dev-01")
        assert (twin.desired, twin.desired_version, twin.reported, twin.reported_version) == (
            {"x": 1},
            2,
            {},
            1,
        )
        assert not twin.connected
        device = await RawDevice.connect(desk, "dev-01")
        assert desk.hub.read_twin("dev-01").connected
        await device.disconnect()


async def test_a_call_may_wait_for_the_device_to_come_online() -> None:
    async with emulated_hub("dev-01") as desk:
        calling = asyncio.ensure_future(desk.hub.call_method("dev-01", "reboot", connect_within=10.0))
        device = await RawDevice.connect(desk, "dev-01")
        device.send(frame(0x82, b"\0\1" + text("$iothub/methods/POST/#") + b"\0"))
        packets = [await device.read(), await device.read()]
        (call,) = [packet for packet in packets if packet.kind == 0x30]
        rid = call.topic.partition("$rid=")[2]
        device.send(publish_bytes(f"$iothub/methods/res/200/?$rid={rid}", b"1", qos=0))
        assert await calling == (200, b"1")
        await device.disconnect()
        with pytest.raises(NotOnline):
            await desk.hub.call_method("dev-01", "reboot", connect_within=0.05)


async def test_calls_are_bounded_in_number_size_and_time() -> None:
    async with emulated_hub("dev-01") as desk:
        with pytest.raises(ValueError, match="bytes"):
            await desk.hub.call_method("dev-01", "m", bytes(MAX_METHOD_BYTES + 1))
        with pytest.raises(ValueError, match="waits"):
            await desk.hub.call_method("dev-01", "m", within=LONGEST_CALL_SECONDS + 1)
        reply: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        desk.hub.state.method_calls.update({str(n): ("dev-01", reply) for n in range(MAX_METHOD_CALLS)})
        with pytest.raises(ValueError, match="at once"):
            await desk.hub.call_method("dev-01", "m")
