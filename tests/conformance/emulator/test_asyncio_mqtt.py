"""The hub met by asyncio-mqtt (paho): a client we did not write, the one the demo's devices are made of."""

from __future__ import annotations

import asyncio

import asyncio_mqtt
import pytest
from asyncio_mqtt.error import MqttConnectError

from gatewayd.emulator.event_log import HubCode
from tests.support.emulated_hub import DeskHub, emulated_hub

HOST = "127.0.0.1"  # paho cannot give a host name and an address apart, so the address is the name


def client(desk: DeskHub, identity: str, token: str | None = None) -> asyncio_mqtt.Client:
    return asyncio_mqtt.Client(
        desk.hostname,
        desk.port,
        client_id=identity,
        username=desk.username(identity),
        password=desk.token(identity) if token is None else token,
        clean_session=False,
        tls_context=desk.client_context(),
    )


async def test_a_fleet_publishes_and_leaves_as_planned() -> None:
    names = [f"dev-{number:02d}" for number in range(20)]
    async with emulated_hub(*names, hostname=HOST) as desk:

        async def live(name: str) -> None:
            async with client(desk, name) as device:
                for number in range(10):
                    await device.publish(f"devices/{name}/messages/events/%24.mid={number}", b"x", qos=1)

        async with asyncio.TaskGroup() as fleet:
            for name in names:
                fleet.create_task(live(name))
        await desk.hub.ledger.wait_for_count(200)
        assert all(desk.hub.ledger.ids(name) == {str(number) for number in range(10)} for name in names)
        await desk.hub.events.wait_for(lambda _: desk.hub.events.planned == 20)
        summary = desk.hub.summary()
        assert (summary.planned_disconnects, summary.unplanned_disconnects, summary.hub_errors) == (20, 0, {})


async def test_a_refusal_is_understood() -> None:
    async with emulated_hub("dev-01", hostname=HOST) as desk:
        with pytest.raises(MqttConnectError, match="5"):
            async with client(desk, "dev-01", desk.token("dev-01", -1.0)):
                pass
        assert desk.hub.events.errors == {HubCode.UNAUTHORIZED: 1}
