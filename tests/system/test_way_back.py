"""The whole daemon between a device and the hub: what faults of the hub and of devices may not cost."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gatewayd.emulator.faults import FaultKind
from gatewayd.message import Identity
from gatewayd.upstream.session import State
from tests.support.gateway_rig import GatewayRig, gateway_rig
from tests.support.raw_device import PUBLISH, RawDevice

NAME = "dev-01"
MODULE = "dev-01/mod"
C2D = "devices/dev-01/messages/devicebound/#"
INPUTS = "devices/dev-01/modules/mod/inputs/#"


async def up(rig: GatewayRig, name: str = NAME) -> None:
    await rig.until(lambda: rig.gateway.conductor.state(Identity.parse(name)) is State.UP)


async def take(device: RawDevice, count: int) -> list[bytes]:
    """The next so many messages, each acknowledged."""
    said = []
    for _ in range(count):
        packet = await device.read()
        assert packet.kind == PUBLISH
        device.acknowledge(packet.packet_id)
        said.append(packet.payload)
    return said


async def test_a_stream_of_messages_over_drops_and_lies_of_the_hub_comes_whole_and_in_order(
    tmp_path: Path,
) -> None:
    async with gateway_rig(tmp_path, NAME) as rig:
        hub = rig.hub.hub
        device = await RawDevice.connect(rig.site, NAME)
        await up(rig)
        await device.subscribe(C2D)
        heard: list[bytes] = []
        wanted = [str(number).encode() for number in range(40)]
        for number, body in enumerate(wanted):
            if number % 20 == 5:
                # Receipts that are on their way when the line breaks are lost with it, and cost a double.
                await rig.until(partial(lambda left: hub.queued(NAME) == left, number - len(heard)))
                hub.arm((FaultKind.LIE_SESSION_PRESENT, FaultKind.LOSE_SUBSCRIPTIONS)[number // 20], count=1)
                hub.drop(NAME)
                await rig.until(lambda: rig.gateway.conductor.state(Identity.parse(NAME)) is not State.UP)
            assert hub.send_to_device(NAME, body)
            if number % 3 == 0:
                heard += await take(device, 1)
        heard += await take(device, len(wanted) - len(heard))
        await rig.until(lambda: hub.queued(NAME) == 0)
        assert heard == wanted
        await device.disconnect()


async def test_a_module_has_its_inputs_and_its_own_will(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, NAME, MODULE) as rig:
        hub = rig.hub.hub
        will = ("devices/dev-01/modules/mod/messages/events/a=b", b"gone")
        module = await RawDevice.connect(rig.site, MODULE, will=will)
        await up(rig, MODULE)
        assert await module.subscribe(INPUTS) == [1]
        hub.send_to_device(MODULE, b"hot", module_input="sensors")
        assert await take(module, 1) == [b"hot"]
        await module.publish(b"here")
        await module.abort()
        await hub.ledger.wait_for_count(2)
        assert [(it.bag, it.payload) for it in hub.ledger.of(MODULE)] == [
            ("", b"here"),
            ("a=b&iothub-MessageType=Will", b"gone"),
        ]
        assert hub.ledger.of(NAME) == []


async def test_a_will_said_while_the_hub_is_away_is_there_when_it_is_back(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, NAME) as rig:
        hub = rig.hub.hub
        await hub.blackhole(1.5)
        device = await RawDevice.connect(rig.site, NAME, will=("devices/dev-01/messages/events/", b"gone"))
        await device.abort()
        await hub.ledger.wait_for_count(1)
        assert [it.bag for it in hub.ledger.of(NAME)] == ["iothub-MessageType=Will"]


async def test_other_devices_take_no_notice_of_one_that_acknowledges_nothing(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, NAME, "dev-02") as rig:
        hub = rig.hub.hub
        hub.settings.lock_seconds = 0.1
        deaf = await RawDevice.connect(rig.site, NAME)
        await up(rig)
        await deaf.subscribe(C2D)
        for number in range(50):
            hub.send_to_device(NAME, str(number).encode())
        other = await RawDevice.connect(rig.site, "dev-02")
        await other.publish(b"fine")
        heard = 0
        deaf.send(b"\xc0\x00")
        while (await deaf.read()).kind == PUBLISH:
            heard += 1
        assert heard <= 16, "the window"
        await rig.until(lambda: hub.queued(NAME) == 0)  # given up after ten deliveries
        await deaf.publish(b"telemetry goes on", packet_id=9)
        await deaf.disconnect()
        await other.disconnect()
