"""The hub of the demo: the emulator as a program, read by its log and its account."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gatewayd.clock import SystemClock
from gatewayd.demo.fleets import Fleet
from gatewayd.demo.hubs import Hub
from gatewayd.demo.processes import ChildFailed, Children
from gatewayd.demo.readings import NotThere
from gatewayd.demo.settings import Policy
from gatewayd.demo.stage import Stage, stage
from tests.demo.conftest import eventually
from tests.demo.test_fleet import plan_for


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    async with Children() as started:
        yield started


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def play(hub: Hub, ready: Stage, children: Children, **changes: object) -> Fleet:
    """A fleet of five straight at the hub, to its end."""
    fleet = Fleet("fleet", children, ready.directory)
    plan = plan_for(hub.port, hub.authority, ready.devices_file)
    await fleet.start([dataclasses.replace(plan, **changes)])  # type: ignore[arg-type]  # fields of several types
    await fleet.begin(asyncio.get_running_loop().time() + 0.1)
    fleet.let_end()
    await eventually(lambda: fleet.is_done, 40)
    await fleet.finished()
    return fleet


async def test_it_knows_the_devices_and_accounts_for_their_messages(
    children: Children, http: aiohttp.ClientSession
) -> None:
    with stage(10, SystemClock().wall()) as ready:
        hub = await Hub.start("the hub", ready, children, http)
        fleet = await play(hub, ready, children)
        await hub.read()
        assert hub.messages_distinct == fleet.result.receipts > 30
        assert hub.connects_peak >= 5
        assert len(hub.story.connects) == 5
        assert hub.story.error_counts() == {}
        assert await hub.count_missing(fleet.result.receipted) == 0
        claimed = {**fleet.result.receipted, "device-00000": {0, 1}, "device-00001": {10_000}}
        assert await hub.count_missing(claimed) == 3


async def test_it_cuts_an_expired_token_at_once_and_the_log_says_so(
    children: Children, http: aiohttp.ClientSession
) -> None:
    with stage(10, SystemClock().wall()) as ready:
        hub = await Hub.start("the hub", ready, children, http)
        await play(hub, ready, children, policy=Policy.CUT, token_lifetime=2.0, duration=3.0)
        await hub.read()
        assert hub.errors == hub.story.error_counts()
        assert hub.errors["401003"] == hub.errors["404104"] == hub.unplanned >= 5
        assert f"the hub counted {hub.unplanned} of 401003/expired" in hub.remarks()


async def test_it_can_be_made_to_drop_a_device(children: Children, http: aiohttp.ClientSession) -> None:
    with stage(10, SystemClock().wall()) as ready:
        hub = await Hub.start("the hub", ready, children, http)
        fleet = Fleet("fleet", children, ready.directory)
        plan = plan_for(hub.port, hub.authority, ready.devices_file)
        await fleet.start([dataclasses.replace(plan, process=0)])
        await fleet.begin(asyncio.get_running_loop().time() + 0.1)
        await eventually(lambda: fleet.progress.connected == 5, 20)
        await hub.drop_one()
        fleet.let_end()
        await fleet.finished()
        assert hub.story.error_counts() == {"404104": 1}


async def test_an_account_that_cannot_be_had_is_an_error_and_not_an_old_one(
    children: Children, http: aiohttp.ClientSession
) -> None:
    with stage(2, SystemClock().wall()) as ready:
        async with Children() as gone:
            hub = await Hub.start("the hub", ready, gone, http)
        with pytest.raises(NotThere):
            await hub.read()


async def test_a_hub_that_cannot_start_says_why(children: Children, http: aiohttp.ClientSession) -> None:
    with stage(2, SystemClock().wall()) as ready:
        ready.devices_file.write_text("nonsense\n")
        with pytest.raises(ChildFailed, match="the hub ended with exit code 2") as failure:
            await Hub.start("the hub", ready, children, http)
    assert "expected the header" in str(failure.value)
