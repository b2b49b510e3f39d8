"""From the hub to a real device at the real listener and back: cloud messages, subscriptions, what a desk may say."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

import pytest

from gatewayd.emulator.cloud_queue import MessageState
from gatewayd.emulator.faults import FaultKind
from gatewayd.flow.grants import PATIENCE_SECONDS
from gatewayd.flow.ways import Reach
from gatewayd.message import Identity
from gatewayd.upstream.handover import Mode
from gatewayd.upstream.hub_message import HubMessage
from gatewayd.upstream.session import State
from tests.support.hub_fleet_rig import LIFETIME, HubFleetRig, ListenerDesk, hub_fleet_rig, listening
from tests.support.raw_device import (
    PINGRESP,
    PUBLISH,
    SUBACK,
    RawDevice,
    RawPacket,
    subscribe_bytes,
    unsubscribe_bytes,
)
from tests.support.tls_material import Tls

NAME = "dev-01"
DEV = Identity(NAME)
C2D, METHODS = "devices/dev-01/messages/devicebound/#", "$iothub/methods/POST/#"
TWIN, DESIRED = "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"
PINGREQ = b"\xc0\x00"


async def subscribed(rig: HubFleetRig, desk: ListenerDesk, *filters: str, qos: int = 1) -> RawDevice:
    """A device at the hub, with its filters."""
    device = await RawDevice.connect(desk, NAME)
    await rig.until_state(State.UP, NAME)
    await device.subscribe(*filters or (C2D,), qos=qos)
    return device


async def bodies(device: RawDevice, count: int, *, acknowledge: bool = True) -> list[str]:
    """The next so many messages."""
    said = []
    for _ in range(count):
        packet = await message(device)
        said.append(packet.payload.decode())
        if acknowledge and packet.qos:
            device.acknowledge(packet.packet_id)
    return said


async def message(device: RawDevice) -> RawPacket:
    packet = await device.read()
    assert packet.kind == PUBLISH
    return packet


async def hears_nothing(device: RawDevice) -> None:
    """Up to here nothing came but what was read."""
    device.send(PINGREQ)
    assert (await device.read()).kind == PINGRESP


async def handed_over(rig: HubFleetRig) -> None:
    """The hub session goes over to a connection with a new token, long before a device's keep-alive is over."""
    rig.conductor.retimed(0.001, 0.002, LIFETIME, rig.time.clock.monotonic())
    rig.hub_sessions.turn()
    before = rig.renewals("ok")
    for _ in range(60):
        if rig.renewals("ok") > before:
            break
        await rig.live_through(1.0)
    assert rig.renewals("ok") > before
    rig.conductor.retimed(0.7, 0.85, LIFETIME, rig.time.clock.monotonic())
    rig.hub_sessions.turn()


def at_hub(rig: HubFleetRig, name: str = NAME) -> dict[str, int]:
    return rig.hub.state.session(name).subscriptions


def queued(rig: HubFleetRig, name: str = NAME) -> int:
    return len(rig.hub.state.session(name).queue)


def state_of(rig: HubFleetRig, number: int) -> MessageState:
    delivery = rig.hub.state.session(NAME).queue.delivery(number)
    assert delivery is not None
    return delivery.state


def cloud_messages(rig: HubFleetRig, stage: str) -> float:
    return rig.value("gatewayd_messages_total", direction="cloud_to_device", stage=stage)


# Cloud messages


async def test_a_cloud_message_is_completed_when_the_device_has_acknowledged_it_and_not_before(
    tls: Tls,
) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk)
        number = rig.hub.send_to_device(NAME, b"turn left", "a=b&%24.mid=7")
        packet = await message(device)
        assert (packet.topic, packet.payload, packet.qos) == (f"{C2D[:-1]}a=b&%24.mid=7", b"turn left", 1)
        await device.publish(b"meanwhile", packet_id=9)
        assert state_of(rig, number) is MessageState.INVISIBLE
        device.acknowledge(packet.packet_id)
        await rig.until(lambda: state_of(rig, number) is MessageState.COMPLETED)
        assert [cloud_messages(rig, stage) for stage in ("received", "sent", "acknowledged")] == [1, 1, 1]
        await device.disconnect()


async def test_a_device_that_asks_for_qos_0_gets_qos_0_and_the_message_is_completed_when_written(
    tls: Tls,
) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk, C2D, METHODS, qos=0)
        assert at_hub(rig) == {C2D: 1, METHODS: 0}
        number = rig.hub.send_to_device(NAME, b"turn left")
        packet = await message(device)
        assert (packet.payload, packet.qos) == (b"turn left", 0)
        await rig.until(lambda: state_of(rig, number) is MessageState.COMPLETED)
        await device.disconnect()


@pytest.mark.parametrize(
    "bag",
    [
        "",
        "null",
        "empty=",
        "null&empty=&k=v",
        "%24.mid=id%201&%24.ct=application%2Fjson&%24.ce=utf-8&a%20b=c%2Fd%2Be%3Df%26g~h",
        "%24.to=%2Fdevices%2Fdev-01%2Fmessages%2Fdevicebound&iothub-ack=full",
        "lower=%2f%c3%a9&upper=%2F%C3%A9",
        "literal=!'()*&plus=a%2Bb&twice=1&twice=2",
        "$.mid=bare&=nameless&k==v&&",
        "not-utf8=%ff%fe&nul=%00",
        "ümlaut=größe",
    ],
)
async def test_a_property_bag_passes_unharmed_both_ways(tls: Tls, bag: str) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk)
        rig.hub.send_to_device(NAME, b"body", bag)
        assert (await message(device)).topic == C2D[:-1] + bag
        await device.publish(b"body", bag, packet_id=5)
        assert [message.bag for message in rig.hub.ledger.of(NAME)] == [bag]
        await device.disconnect()


async def test_messages_for_a_device_that_left_wait_at_the_hub_and_come_in_order(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk)
        rig.hub.send_to_device(NAME, b"before")
        assert await bodies(device, 1, acknowledge=False) == ["before"]
        await device.disconnect()
        await rig.until(lambda: at_hub(rig) == {})
        wanted = [str(number) for number in range(49)]
        assert all(rig.hub.send_to_device(NAME, body.encode()) for body in wanted)
        assert not rig.hub.send_to_device(NAME, b"too many"), "the hub keeps 50"
        device = await RawDevice.connect(desk, NAME)
        assert device.session_present
        assert await bodies(device, 50) == ["before", *wanted]
        await rig.until(lambda: queued(rig) == 0)
        await hears_nothing(device)
        await device.disconnect()


async def test_what_the_device_did_not_acknowledge_comes_again_with_dup(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk)
        rig.hub.send_to_device(NAME, b"one")
        first = await message(device)
        await device.abort()
        device = await RawDevice.connect(desk, NAME)
        again = await message(device)
        assert (again.packet_id, again.payload, bool(again.first & 8)) == (first.packet_id, b"one", True)
        device.acknowledge(again.packet_id)
        await rig.until(lambda: queued(rig) == 0)
        await hears_nothing(device)
        await device.disconnect()


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("keeps_ids", [True, False])
async def test_a_handover_amid_an_unacknowledged_message_does_not_double_it(
    tls: Tls, mode: Mode, keeps_ids: bool
) -> None:
    async with hub_fleet_rig(NAME, mode=mode) as rig, listening(rig, tls, NAME) as desk:
        rig.hub.settings.keep_packet_ids = keeps_ids
        device = await subscribed(rig, desk)
        for body in (b"one", b"two"):
            rig.hub.send_to_device(NAME, body)
        packets = [await message(device) for _ in range(2)]
        await handed_over(rig)
        rig.hub.send_to_device(NAME, b"three")
        assert await bodies(device, 1) == ["three"]
        for packet in packets:
            device.acknowledge(packet.packet_id)
        await rig.until(lambda: queued(rig) == 0)
        await hears_nothing(device)
        assert cloud_messages(rig, "acknowledged") == 3
        assert rig.hub.events.errors == {}
        await device.disconnect()


@pytest.mark.parametrize("keeps_ids", [True, False])
async def test_a_message_acknowledged_while_the_hub_is_away_is_completed_when_it_is_back(
    tls: Tls, keeps_ids: bool
) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        rig.hub.settings.keep_packet_ids = keeps_ids
        device = await subscribed(rig, desk)
        rig.hub.send_to_device(NAME, b"one")
        packet = await message(device)
        rig.hub.drop(NAME)
        await rig.until_down(NAME)
        device.acknowledge(packet.packet_id)
        await hears_nothing(device)
        await rig.live_through(20.0)
        await rig.until(lambda: queued(rig) == 0)
        await hears_nothing(device)
        await device.disconnect()


async def test_messages_still_come_from_a_hub_that_lies_about_the_session(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk, C2D, METHODS)
        rig.hub.arm(FaultKind.LIE_SESSION_PRESENT, count=1)
        await handed_over(rig)
        await rig.until(lambda: at_hub(rig) == {C2D: 1, METHODS: 1})
        rig.hub.send_to_device(NAME, b"one")
        assert await bodies(device, 1) == ["one"]
        await device.disconnect()


async def test_a_device_with_a_clean_session_gets_its_messages_and_leaves_nothing(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await RawDevice.connect(desk, NAME, clean=True)
        await rig.until_state(State.UP, NAME)
        await device.subscribe(C2D)
        rig.hub.send_to_device(NAME, b"one")
        assert await bodies(device, 1, acknowledge=False) == ["one"]
        await device.disconnect()
        assert rig.subscriptions.kept == {}
        await rig.until(lambda: at_hub(rig) == {})
        device = await RawDevice.connect(desk, NAME, clean=True)
        await hears_nothing(device)
        device.send(subscribe_bytes(C2D))
        first, second = await device.read(), await device.read()
        packet = first if first.kind == PUBLISH else second
        assert (packet.payload, packet.first & 8) == (b"one", 0), "a new session knows of no first time"
        device.acknowledge(packet.packet_id)
        await rig.until(lambda: queued(rig) == 0)
        await device.disconnect()


async def test_a_slow_device_has_a_window_of_messages_and_gets_the_rest_as_it_acknowledges(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk)
        for number in range(50):
            assert rig.hub.send_to_device(NAME, str(number).encode() + bytes(60_000))
        await rig.until(lambda: cloud_messages(rig, "received") == 50)
        assert cloud_messages(rig, "sent") == 4, "256 KiB"
        said = await bodies(device, 50)
        assert [body.rstrip("\0") for body in said] == [str(number) for number in range(50)]
        await rig.until(lambda: queued(rig) == 0)
        await device.disconnect()


async def test_a_device_that_takes_nothing_is_sent_no_more_than_it_takes(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk, qos=0)
        sent = 0
        while cloud_messages(rig, "sent") == sent:
            rig.hub.send_to_device(NAME, str(sent).encode() + bytes(60_000))
            sent += 1
            await rig.until(partial(lambda count: cloud_messages(rig, "received") == count, sent))
        said = await bodies(device, sent)
        assert [body.rstrip("\0") for body in said] == [str(number) for number in range(sent)]
        await rig.until(lambda: queued(rig) == 0)
        await device.disconnect()


async def test_after_linger_the_hub_has_it_all_and_gives_it_once(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk)
        rig.hub.send_to_device(NAME, b"one")
        assert await bodies(device, 1, acknowledge=False) == ["one"]
        await device.disconnect()
        await rig.until(lambda: DEV not in rig.way_back._devices)
        rig.pass_seconds(rig.hub_sessions.linger)
        await rig.until_state(State.ABSENT, NAME)
        assert len(rig.way_back._cloud) == 0
        device = await RawDevice.connect(desk, NAME)
        assert device.session_present
        assert await bodies(device, 1) == ["one"]
        await rig.until(lambda: queued(rig) == 0)
        await hears_nothing(device)
        await device.disconnect()


async def test_a_module_gets_the_messages_of_its_inputs(tls: Tls) -> None:
    name = "dev-01/mod"
    async with hub_fleet_rig(NAME, name) as rig, listening(rig, tls, name) as desk:
        device = await RawDevice.connect(desk, name)
        await rig.until_state(State.UP, name)
        base = "devices/dev-01/modules/mod"
        filters = (f"{base}/inputs/#", METHODS, TWIN, DESIRED)
        assert await device.subscribe(*filters) == [1] * 4
        rig.hub.send_to_device(name, b"hot", "a=b", module_input="sensors")
        packet = await message(device)
        assert (packet.topic, packet.payload) == (f"{base}/inputs/sensors/a=b", b"hot")
        device.acknowledge(packet.packet_id)
        await rig.until(lambda: queued(rig, name) == 0)
        await device.disconnect()


# Subscriptions


async def test_all_five_filters_of_a_module_are_at_the_hub(tls: Tls) -> None:
    name = "dev-01/mod"
    async with hub_fleet_rig(NAME, name) as rig, listening(rig, tls, name) as desk:
        device = await RawDevice.connect(desk, name)
        base = "devices/dev-01/modules/mod"
        filters = (f"{base}/#", f"{base}/inputs/#", METHODS, TWIN, DESIRED)
        assert await device.subscribe(*filters) == [1] * 5
        await rig.until(lambda: at_hub(rig, name) == dict.fromkeys(filters, 1))
        await device.disconnect()


async def test_filters_of_an_earlier_life_are_given_up_at_the_hub(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        direct = await RawDevice.connect(rig.desk, NAME)
        await direct.subscribe(C2D, METHODS)
        await direct.disconnect()
        device = await RawDevice.connect(desk, NAME)
        await device.subscribe(METHODS)
        await rig.until(lambda: at_hub(rig) == {METHODS: 1})
        await device.disconnect()


async def test_a_subscription_waits_for_the_hub_that_is_up_but_not_for_ever(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await RawDevice.connect(desk, NAME)
        await rig.until_state(State.UP, NAME)
        rig.hub.arm(FaultKind.INPUT_DELAY, value=3600.0 / 60, count=1)
        device.send(subscribe_bytes(C2D, packet_id=3))
        await hears_nothing(device)
        rig.pass_seconds(PATIENCE_SECONDS)
        packet = await device.read()
        assert (packet.kind, packet.packet_id, list(packet.body[2:])) == (SUBACK, 3, [1])
        await device.disconnect()


async def test_a_subscription_waits_for_no_hub_that_is_away(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        await rig.hub.blackhole(60.0)
        device = await RawDevice.connect(desk, NAME)
        assert await device.subscribe(C2D) == [1]
        await device.disconnect()


async def test_a_subscription_waits_for_the_disk(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        rig.subscriptions.at_once = False
        device = await RawDevice.connect(desk, NAME)
        device.send(subscribe_bytes(C2D))
        await hears_nothing(device)
        rig.subscriptions.answer()
        assert (await device.read()).kind == SUBACK
        device.send(unsubscribe_bytes(C2D, packet_id=2))
        await hears_nothing(device)
        rig.subscriptions.answer()
        assert (await device.read()).packet_id == 2
        await device.disconnect()


async def test_what_the_hub_refuses_the_device_is_refused_and_it_is_not_kept(
    tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gatewayd.upstream.mqtt_session")
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await RawDevice.connect(desk, NAME)
        await rig.until_state(State.UP, NAME)
        await device.subscribe(METHODS)
        rig.hub.arm(FaultKind.SUBACK_REFUSE, count=1)
        assert await device.subscribe(C2D, packet_id=2) == [0x80]
        assert rig.subscriptions.kept == {DEV: {METHODS: 1}}
        assert "the hub refuses a subscription" in caplog.text
        await device.disconnect()


async def test_a_takeover_keeps_the_subscriptions(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        older = await subscribed(rig, desk)
        device = await RawDevice.connect(desk, NAME)
        assert device.session_present
        await older.ended()
        rig.hub.send_to_device(NAME, b"one")
        assert await bodies(device, 1) == ["one"]
        await device.disconnect()


# What the desks may say


async def test_nothing_goes_to_a_device_that_has_not_subscribed_or_is_away(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        device = await subscribed(rig, desk, TWIN, qos=0)
        ways = rig.way_back
        assert (ways.listens(DEV, TWIN), ways.listens(DEV, METHODS)) == (True, False)
        assert not ways.to_device(DEV, METHODS, "$iothub/methods/POST/turn/?$rid=1", b"", 0)
        assert ways.to_device(DEV, TWIN, "$iothub/twin/res/200/?$rid=1", b"{}", 1)
        packet = await message(device)
        assert (packet.topic, packet.qos) == ("$iothub/twin/res/200/?$rid=1", 0)
        await device.disconnect()
        await rig.until(lambda: not ways.listens(DEV, TWIN))
        assert not ways.to_device(DEV, TWIN, "$iothub/twin/res/200/?$rid=1", b"{}", 1)


async def test_the_reach_of_the_hub_follows_its_connection(tls: Tls) -> None:
    async with hub_fleet_rig(NAME) as rig, listening(rig, tls, NAME) as desk:
        ways = rig.way_back
        assert ways.reach(DEV) is Reach.DOWN
        assert not ways.to_hub(DEV, "$iothub/twin/GET/?$rid=1", b"")
        device = await RawDevice.connect(desk, NAME)
        assert ways.reach(DEV) is Reach.OPENING
        await rig.until_state(State.UP, NAME)
        assert ways.reach(DEV) is Reach.UP
        assert ways.to_hub(DEV, "$iothub/twin/GET/?$rid=1", b"")
        rig.hub.drop(NAME)
        await rig.until_down(NAME)
        assert ways.reach(DEV) is Reach.DOWN
        await device.disconnect()


class RecordingHub:
    """A hub session that takes everything."""

    can_say = True
    subscriptions_confirmed = True
    subscriptions_refused: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.wanted: Mapping[str, int] = {}

    def say(self, topic: str, payload: bytes) -> bool:
        return True

    def acknowledge(self, hub_message: HubMessage) -> bool:
        self.acknowledged.append(hub_message.packet_id)
        return True

    def want_subscriptions(self, wanted: Mapping[str, int]) -> None:
        self.wanted = wanted


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("devices/dev-02/messages/devicebound/", "topic of another identity"),
        ("$iothub/unheard/of", "topic is not one of IoT Hub's"),
        ("$iothub/methods/POST/turn/?$rid=1", None),
        ("$iothub/twin/res/200/?$rid=1", None),
        ("$iothub/twin/PATCH/properties/desired/?$version=2", None),
    ],
)
async def test_what_is_no_cloud_message_is_acknowledged_at_once_and_what_nobody_knows_is_said(
    topic: str, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gatewayd.flow.way_back")
    async with hub_fleet_rig(NAME) as rig:
        hub = RecordingHub()
        rig.way_back.hub_up(DEV, hub)
        rig.way_back.received(DEV, HubMessage(topic, b"{}", 1, packet_id=5))
        rig.way_back.received(DEV, HubMessage(topic, b"{}", 0))
        assert hub.acknowledged == [5]
        reasons = {record.__dict__["reason"] for record in caplog.records}
        assert reasons == (set() if said is None else {said})
        rig.way_back.hub_forgotten(DEV)


async def test_a_cloud_message_for_a_device_that_is_away_is_not_acknowledged() -> None:
    async with hub_fleet_rig(NAME) as rig:
        hub = RecordingHub()
        rig.way_back.hub_up(DEV, hub)
        rig.way_back.received(DEV, HubMessage(C2D[:-1], b"one", 1, packet_id=5))
        assert hub.acknowledged == []
        rig.way_back.hub_forgotten(DEV)
