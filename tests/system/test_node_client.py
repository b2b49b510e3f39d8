"""Methods and twins of an unmodified azure-iot-device for Node, straight at the hub and behind the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_device import AzureDevice
from tests.support.emulated_hub import DeskHub, device_key_text, emulated_hub
from tests.support.gateway_rig import gateway_rig
from tests.support.node_device import node_device, why_no_node_device

DEV = "dev-01"

pytestmark = pytest.mark.skipif(why_no_node_device() is not None, reason=str(why_no_node_device()))


async def do(device: AzureDevice, what: str, **more: object) -> None:
    device.tell(what, **more)
    await device.until("done", what=what)


async def script(device: AzureDevice, hub: DeskHub) -> list[Any]:
    """Methods and twins as an application and a service use them."""
    seen: list[Any] = []
    await do(device, "connect")
    await do(device, "listen_for_methods", name="ping")
    device.tell("twin")
    seen.append(await device.until("twin"))
    await device.until("done", what="twin")
    await do(device, "listen_for_desired")
    seen.append(await device.until("desired"))  # this SDK tells the present state first
    await do(device, "report", patch={"firmware": "1.2"})
    hub.hub.desire(DEV, {"rate": 5})
    seen.append(await device.until("desired"))
    seen.append(await hub.hub.call_method(DEV, "ping", json.dumps({"n": 1}).encode()))
    device.tell("twin")
    seen.append(await device.until("twin"))
    return seen


async def straight() -> list[Any]:
    async with (
        emulated_hub(DEV, hostname="127.0.0.1") as hub,
        node_device(
            hub.hostname,
            DEV,
            hub.certificate.authority_pem.decode(),
            key=device_key_text(DEV),
            gateway=f"{hub.host}:{hub.port}",
        ) as device,
    ):
        return await script(device, hub)


async def test_it_sees_the_same_behind_the_gateway_and_misses_no_change_while_the_hub_is_away(
    tmp_path: Path,
) -> None:
    wanted = await straight()
    async with (
        gateway_rig(tmp_path, DEV) as rig,
        node_device(
            rig.hub.hostname,
            DEV,
            rig.site.authority.read_text(),
            key=device_key_text(DEV),
            gateway=f"{rig.site.host}:{rig.site.port}",
        ) as device,
    ):
        assert await script(device, rig.hub) == wanted
        await rig.hub.hub.restart(0.5)
        assert not rig.hub.hub.desire(DEV, {"rate": 6})
        assert (await device.until("desired"))["patch"] == {"rate": 6, "$version": 3}
        assert rig.hub.hub.summary().unplanned_disconnects == 1
