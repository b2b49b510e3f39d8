"""From a real device at the real listener to the hub, and what is not carried."""

from __future__ import annotations

import logging

import pytest

from gatewayd.upstream.session import State
from tests.support.hub_fleet_rig import hub_fleet_rig, listening
from tests.support.raw_device import PUBACK, RawDevice, publish_bytes
from tests.support.tls_material import Tls

NOT_CARRIED = "gatewayd_messages_dropped_total"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.make(tmp_path_factory.mktemp("tls"))


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


async def test_a_subscription_is_refused_and_that_is_said_once(
    tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gatewayd.flow.intake")
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        for number in (1, 2):
            codes = await device.subscribe("$iothub/methods/POST/#", packet_id=number)
            assert codes == [0x80]
        said = [record for record in caplog.records if record.name == "gatewayd.flow.intake"]
        assert [record.__dict__["device_id"] for record in said] == ["dev-01"]
        await device.publish(b"goes on", packet_id=3)
        await device.disconnect()


@pytest.mark.parametrize(
    "topic",
    [
        "$iothub/twin/GET/?$rid=1",
        "$iothub/twin/PATCH/properties/reported/?$rid=2",
        "$iothub/methods/res/200/?$rid=3",
    ],
)
async def test_what_is_not_carried_is_dropped_counted_and_receipted(tls: Tls, topic: str) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        device.send(publish_bytes(topic, b"{}", packet_id=5))
        packet = await device.read()
        assert (packet.kind, packet.packet_id) == (PUBACK, 5)
        device.send(publish_bytes(topic, b"{}", qos=0))
        await device.publish(b"goes on", packet_id=6)
        assert rig.value(NOT_CARRIED, reason="not_carried") == 2
        assert [message.payload for message in rig.hub.ledger.of("dev-01")] == [b"goes on"]
        await device.disconnect()


async def test_a_receipt_of_what_is_not_carried_keeps_its_place_behind_earlier_messages(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        device.send(
            publish_bytes(device.events, b"one", packet_id=1)
            + publish_bytes("$iothub/twin/GET/?$rid=1", b"", packet_id=2)
            + publish_bytes(device.events, b"two", packet_id=3)
        )
        assert [(await device.read()).packet_id for _ in range(3)] == [1, 2, 3]
        await device.disconnect()


async def test_no_session_is_said_to_be_present(tls: Tls) -> None:
    async with hub_fleet_rig("dev-01") as rig, listening(rig, tls, "dev-01") as desk:
        for _ in range(2):
            device = await RawDevice.connect(desk, "dev-01", clean=False)
            assert not device.session_present
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
        await rig.until(lambda: rig.hub._listening._server is not None)
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
