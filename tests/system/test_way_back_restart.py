"""The whole daemon, stopped and started again: what devices subscribed to is still there.

With an unmodified azure-iot-device client too, which never subscribes again after a reconnect.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.azure_device import SDK_PORT, azure_device, own_loopback_address
from tests.support.daemon_process import daemon_process
from tests.support.emulated_hub import DeskHub, device_key_text, emulated_hub
from tests.support.gateway_files import GatewaySite
from tests.support.raw_device import PUBLISH, RawDevice

NAME = "dev-01"
C2D, METHODS = "devices/dev-01/messages/devicebound/#", "$iothub/methods/POST/#"
WITHIN_SECONDS = 20.0


def at_hub(hub: DeskHub, name: str = NAME) -> dict[str, int]:
    return hub.hub.state.session(name).subscriptions


async def until_at_hub(hub: DeskHub, wanted: dict[str, int]) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while at_hub(hub) != wanted:  # noqa: ASYNC110 - what is waited for lies in the hub, which has no event for it
            await asyncio.sleep(0.02)


async def next_message(device: RawDevice) -> bytes:
    packet = await device.read()
    assert packet.kind == PUBLISH
    device.acknowledge(packet.packet_id)
    return packet.payload


async def test_subscriptions_outlive_the_daemon_and_session_present_says_so(tmp_path: Path) -> None:
    async with emulated_hub(NAME) as hub:
        site = GatewaySite.make(tmp_path, hub, [NAME])
        async with daemon_process(site):
            device = await RawDevice.connect(site, NAME)
            assert not device.session_present
            assert await device.subscribe(C2D, METHODS) == [1, 1]
            await until_at_hub(hub, {C2D: 1, METHODS: 1})
            await device.close()
        async with daemon_process(site):
            device = await RawDevice.connect(site, NAME)
            assert device.session_present
            hub.hub.send_to_device(NAME, b"one", "a=b")
            assert await next_message(device) == b"one"
            await until_at_hub(hub, {C2D: 1, METHODS: 1})
            await device.disconnect()


async def test_subscriptions_outlive_a_daemon_that_is_killed(tmp_path: Path) -> None:
    async with emulated_hub(NAME) as hub:
        site = GatewaySite.make(tmp_path, hub, [NAME])
        async with daemon_process(site) as daemon:
            device = await RawDevice.connect(site, NAME)
            assert await device.subscribe(C2D) == [1]
            daemon.tell(signal.SIGKILL)
            await daemon.ended()
            await device.close()
        async with daemon_process(site):
            device = await RawDevice.connect(site, NAME)
            assert device.session_present
            hub.hub.send_to_device(NAME, b"one")
            assert await next_message(device) == b"one"
            await device.disconnect()


async def test_a_clean_session_leaves_nothing_for_the_next_daemon(tmp_path: Path) -> None:
    async with emulated_hub(NAME) as hub:
        site = GatewaySite.make(tmp_path, hub, [NAME])
        async with daemon_process(site):
            device = await RawDevice.connect(site, NAME)
            await device.subscribe(C2D)
            await device.disconnect()
            device = await RawDevice.connect(site, NAME, clean=True)
            await device.subscribe(METHODS)
            await device.disconnect()
        async with daemon_process(site):
            device = await RawDevice.connect(site, NAME)
            assert not device.session_present
            await device.publish(b"at the hub")
            await until_at_hub(hub, {})
            await device.disconnect()


async def test_the_python_sdk_gets_its_cloud_messages_after_a_restart_without_subscribing_again(
    tmp_path: Path,
) -> None:
    address = own_loopback_address()
    async with emulated_hub(NAME) as hub:
        site = GatewaySite.make(tmp_path, hub, [NAME], host=address, port=SDK_PORT)
        async with AsyncExitStack() as first:
            # The SDK connects as soon as it is given a callback for messages.
            await first.enter_async_context(daemon_process(site))
            async with azure_device(
                hub.hostname,
                NAME,
                site.authority.read_text(),
                key=device_key_text(NAME),
                gateway_hostname=address,
            ) as device:
                await device.connect()
                hub.hub.send_to_device(NAME, b"first")
                await device.until("message", body="first")
                await first.aclose()
                async with daemon_process(site):
                    # It tries again every 10 s.
                    await device.until("connected")
                    hub.hub.send_to_device(NAME, b"second")
                    await device.until("message", body="second")
                    await device.stop()
