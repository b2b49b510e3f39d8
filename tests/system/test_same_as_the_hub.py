"""Every feature of the hub is the same through the gateway: one script, straight and through it, equal transcripts.

The clients are an unmodified azure-iot-device for Python, for devices and modules, paho-mqtt for what that cannot say,
and, where it is installed, azure-iot-device for Node. The scripts (`tests.support.feature_script` and
`tests/node/feature_script.js`) tell of both ends. Only times are left out of a transcript: every id in it is the
script's own.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gatewayd.emulator.ledger import Ledger
from tests.support.azure_device import SDK_PORT, own_loopback_address
from tests.support.daemon_process import daemon_process
from tests.support.features import (
    IDENTITIES,
    STORIES,
    WEBSOCKET_PORT,
    feature_hub,
    need_port,
    node_client,
    run_features,
)
from tests.support.gateway_files import GatewaySite

_ALONE: dict[str, list[str]] = {}


async def straight(*stories: str, client: Sequence[str] = (), websockets: bool = False) -> list[str]:
    """The transcript without a gateway."""
    async with feature_hub(websockets=websockets) as (desk, control):
        return await run_features(desk, control, stories=stories, client=client, websockets=websockets)


async def alone(story: str) -> list[str]:
    """The transcript without a gateway; every run is the same, as a test below says, so one will do."""
    if story not in _ALONE:
        _ALONE[story] = await straight(story)
        assert _ALONE[story][-1] == "end {}"
    return _ALONE[story]


async def through_the_gateway(
    folder: Path, *stories: str, client: Sequence[str] = (), websockets: bool = False
) -> list[str]:
    """The transcript with the whole daemon between client and hub; with `websockets` on both of its sides."""
    address = own_loopback_address()
    listener = f'websocket_address = "{address}:{WEBSOCKET_PORT}"' if websockets else ""
    async with feature_hub(websockets=websockets) as (desk, control):
        site = GatewaySite.make(folder, desk, IDENTITIES, host=address, port=SDK_PORT, listener=listener)
        if websockets:
            endpoint = f'websocket = "{desk.host}:{WEBSOCKET_PORT}"'
            site.rewrite("[hub.endpoints]", f'transport = "websocket"\n[hub.endpoints]\n{endpoint}')
        async with daemon_process(site) as daemon:
            transcript = await run_features(
                desk,
                control,
                gateway=address,
                authority=site.authority.read_text(),
                stories=stories,
                client=client,
                websockets=websockets,
            )
            assert daemon.said("a device connected"), "the script must have come through the gateway"
            return transcript


def difference(one: list[str], other: list[str]) -> str:
    return "\n".join(difflib.unified_diff(one, other, "straight", "through the gateway", lineterm="", n=1))


@pytest.mark.parametrize("story", STORIES)
async def test_a_story_is_the_same_straight_at_the_hub_and_through_the_gateway(
    story: str, tmp_path: Path
) -> None:
    assert difference(await alone(story), await through_the_gateway(tmp_path, story)) == ""


@pytest.mark.parametrize("story", STORIES)
async def test_a_story_over_websockets_on_both_sides_of_the_gateway_is_that_of_mqtt_at_the_hub(
    story: str, tmp_path: Path
) -> None:
    need_port(WEBSOCKET_PORT)
    assert difference(await alone(story), await through_the_gateway(tmp_path, story, websockets=True)) == ""


@pytest.mark.parametrize("story", STORIES)
async def test_straight_at_the_hub_websockets_make_no_difference(story: str) -> None:
    need_port(WEBSOCKET_PORT)
    assert difference(await alone(story), await straight(story, websockets=True)) == ""


@pytest.mark.parametrize("websockets", [False, True], ids=["mqtt", "websockets"])
async def test_the_node_sdk_finds_everything_the_same_too(tmp_path: Path, websockets: bool) -> None:
    client = node_client()
    if websockets:
        need_port(WEBSOCKET_PORT)
    told = await straight(client=client)
    assert told[-1] == "end {}"
    assert difference(told, await through_the_gateway(tmp_path, client=client, websockets=websockets)) == ""


async def test_two_runs_straight_at_the_hub_are_the_same() -> None:
    assert difference(await alone("plain"), await straight("plain")) == ""


async def test_a_property_that_is_changed_on_the_way_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rig can fail: here a hub that takes one percent-encoded byte for another."""
    good = await alone("plain")
    take = Ledger.add

    def take_wrongly(ledger: Ledger, identity: str, bag: str, payload: bytes, **more: Any) -> Any:
        return take(ledger, identity, bag.replace("%61=", "%62="), payload, **more)

    monkeypatch.setattr(Ledger, "add", take_wrongly)
    told = difference(good, await straight("plain"))
    assert '+hub has telemetry {"bag": "%24.ctime' in told
    assert "%62=%7E" in told
