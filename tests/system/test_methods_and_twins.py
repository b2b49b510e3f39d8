"""Methods and twins of an unmodified azure-iot-device behind the gateway, and the same script straight at the hub.

A transcript is what the application and the service saw, request ids aside.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd.emulator.faults import FaultKind
from gatewayd.emulator.service_side import NotOnline
from gatewayd.message import Identity
from gatewayd.upstream.session import State
from tests.support.azure_device import SDK_PORT, AzureDevice, azure_device, own_loopback_address
from tests.support.emulated_hub import DeskHub, device_key_text, emulated_hub
from tests.support.gateway_rig import GatewayRig, gateway_rig

DEV = "dev-01"
# What the SDK makes of a twin status of 300 and more, the hub's or ours: its ServiceError, within this one.
REFUSED = "ClientError"
Transcript = list[Any]


@asynccontextmanager
async def straight() -> AsyncIterator[tuple[AzureDevice, DeskHub]]:
    """A device at the hub itself."""
    address = own_loopback_address()
    async with (
        emulated_hub(DEV, hostname=address, host=address, port=SDK_PORT) as hub,
        azure_device(
            hub.hostname, DEV, hub.certificate.authority_pem.decode(), key=device_key_text(DEV)
        ) as device,
    ):
        yield device, hub


def device_of(rig: GatewayRig) -> AbstractAsyncContextManager[AzureDevice]:
    """A device behind the gateway."""
    return azure_device(
        rig.hub.hostname,
        DEV,
        rig.site.authority.read_text(),
        key=device_key_text(DEV),
        gateway_hostname=rig.site.host,
    )


@asynccontextmanager
async def behind(folder: Path, **lines: Any) -> AsyncIterator[tuple[AzureDevice, GatewayRig]]:
    """A device behind a gateway at a hub of its own; `lines` of the gateway's configuration."""
    async with (
        gateway_rig(folder, DEV, host=own_loopback_address(), port=SDK_PORT, **lines) as rig,
        device_of(rig) as device,
    ):
        yield device, rig


async def do(device: AzureDevice, what: str, **more: object) -> str:
    """Let the application do something; "done", or the name of the SDK's error."""
    device.tell(what, **more)
    while True:
        event = await device.next_event()
        if event["event"] in ("done", "failed"):
            assert event["what"] == what
            return str(event.get("error", "done"))


async def read_twin(device: AzureDevice) -> Any:
    """The twin, or the name of the SDK's error."""
    device.tell("twin")
    while True:
        event = await device.next_event()
        if event["event"] in ("twin", "failed"):
            if event["event"] == "twin":
                await device.until("done", what="twin")
            return event.get("twin") or event["error"]


async def script(device: AzureDevice, hub: DeskHub) -> Transcript:
    """Methods and twins as an application and a service use them."""
    seen: Transcript = []
    await device.connect()
    with pytest.raises(NotOnline):
        await hub.hub.call_method(DEV, "early")
    for feature in ("listen_for_methods", "listen_for_desired"):
        seen.append(await do(device, feature))
    seen.append(await read_twin(device))
    seen.append(
        await do(device, "report", patch={"firmware": {"version": "1.2", "ok": True}, "ü": [1, None]})
    )
    seen.append(await do(device, "report", patch={"firmware": {"version": None}}))
    seen.append(await do(device, "report", patch={"$no": 1}))
    hub.hub.desire(DEV, {"rate": 5, "nested": {"a": "\u00e9"}})
    seen.append((await device.until("desired"))["patch"])
    seen.append(await read_twin(device))
    for status in (429, 500):
        hub.hub.arm(FaultKind.TWIN_STATUS, identity=DEV, count=1, value=status)
        seen.append(await read_twin(device))
    calls = [
        asyncio.create_task(hub.hub.call_method(DEV, f"method-{number}", json.dumps({"n": number}).encode()))
        for number in range(3)
    ]
    # The SDK calls the application on threads of its own, so the order among those is nobody's.
    asked = sorted([await device.until("method") for _ in calls], key=lambda event: str(event["name"]))
    seen.append([(call["name"], call["payload"]) for call in asked])
    for call in reversed(asked):
        seen.append(await do(device, "answer", rid=call["rid"], status=207, payload={"was": call["payload"]}))
    seen.append([await call for call in calls])
    await device.stop()
    with pytest.raises(NotOnline):
        await hub.hub.call_method(DEV, "late")
    return seen


async def test_an_application_and_a_service_see_the_same_with_and_without_the_gateway(tmp_path: Path) -> None:
    async with straight() as (device, hub):
        wanted = await script(device, hub)
    async with behind(tmp_path) as (device, rig):
        found = await script(device, rig.hub)
        assert rig.hub.hub.events.errors == {}
    assert found == wanted
    assert wanted[-1] == [(207, json.dumps({"was": {"n": number}}).encode()) for number in range(3)], (
        "the script itself went as it should"
    )


async def test_across_renewals_no_request_fails_no_call_is_lost_and_no_change_is_missed(
    tmp_path: Path,
) -> None:
    async with behind(tmp_path, lifetime=10.0) as (device, rig):
        hub = rig.hub.hub
        await device.connect()
        for feature in ("listen_for_methods", "listen_for_desired"):
            assert await do(device, feature) == "done"
        rate, reported = 0, 0
        while hub.summary().connects < 3:
            reported += 1
            assert await do(device, "report", patch={"n": reported}) == "done"
            assert (await read_twin(device))["reported"]["n"] == reported
            if DEV in hub.open_identities:
                call = asyncio.create_task(hub.call_method(DEV, "ping", within=5.0))
                event = await device.until("method")
                assert await do(device, "answer", rid=event["rid"], status=200, payload=None) == "done"
                assert (await call)[0] == 200
            rate += 1
            hub.desire(DEV, {"rate": rate})
        told = [event["patch"]["rate"] for event in device.events if event["event"] == "desired"]
        while told[-1] != rate:
            told.append((await device.until("desired"))["patch"]["rate"])
        assert told == sorted(told)
        await device.stop()


async def test_while_the_hub_is_away_a_device_is_answered_in_time_and_told_afterwards_what_changed(
    tmp_path: Path,
) -> None:
    async with behind(tmp_path, tokens="[tokens.backoff]\nfirst = '100ms'") as (device, rig):
        hub = rig.hub.hub
        await device.connect()
        assert await do(device, "listen_for_desired") == "done"
        assert (await read_twin(device))["desired"] == {"$version": 1}
        await hub.restart(4.0)
        await rig.until(lambda: rig.gateway.conductor.state(Identity(DEV)) is not State.UP)
        assert await read_twin(device) == REFUSED
        assert await do(device, "report", patch={"n": 1}) == REFUSED
        assert not hub.desire(DEV, {"rate": 7})
        told = await device.until("desired")
        assert told["patch"] == {"rate": 7, "$version": 2}
        assert (await read_twin(device))["desired"] == {"rate": 7, "$version": 2}
        await device.stop()


async def test_with_the_cache_a_device_that_starts_while_the_hub_is_away_gets_its_last_known_twin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lines: dict[str, Any] = {
        "host": own_loopback_address(),
        "port": SDK_PORT,
        "device_lines": "twin_cache = true",
    }
    async with emulated_hub(DEV) as hub:
        hub.hub.desire(DEV, {"rate": 3})
        async with gateway_rig(tmp_path, DEV, hub=hub, **lines) as rig, device_of(rig) as device:
            await device.connect()
            first = await read_twin(device)
            assert first["desired"] == {"rate": 3, "$version": 2}
            await device.stop()
        async with gateway_rig(tmp_path, DEV, hub=hub, **lines) as rig, device_of(rig) as device:
            await hub.hub.restart(6.0)
            await device.connect()
            assert await read_twin(device) == first
            assert "last known twin" in caplog.text
            await device.stop()
