"""The listening socket: what a fault does to it ends by itself, and never costs an open connection."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest

from gatewayd.emulator.listening import LONGEST_FAULT_SECONDS
from tests.support.emulated_hub import DeskHub, emulated_hub
from tests.support.raw_device import RawDevice


async def back(desk: DeskHub) -> RawDevice:
    """A device that gets through as soon as the hub serves again."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                return await RawDevice.connect(desk, "dev-01")
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seconds", [0.0, -1.0, LONGEST_FAULT_SECONDS + 1])
async def test_a_fault_of_the_socket_is_bounded(seconds: float) -> None:
    async with emulated_hub("dev-01") as desk:
        with pytest.raises(ValueError, match="seconds"):
            await desk.hub.blackhole(seconds)
        device = await RawDevice.connect(desk, "dev-01")
        await device.disconnect()


async def test_a_second_fault_replaces_the_first_and_its_end() -> None:
    async with emulated_hub("dev-01") as desk:
        await desk.hub.restart(600.0)
        with pytest.raises(ConnectionRefusedError):
            await RawDevice.dial(desk)
        await desk.hub.blackhole(0.1)
        device = await back(desk)
        await device.disconnect()


async def test_a_certificate_may_change_while_the_hub_is_away() -> None:
    async with emulated_hub("dev-01") as desk:
        await desk.hub.restart(0.1)
        await desk.hub.rotate_certificate(desk.certificate)
        device = await back(desk)
        await device.disconnect()


async def test_stopping_during_a_fault_leaves_nothing_running() -> None:
    async with emulated_hub("dev-01") as desk:
        await desk.hub.blackhole(600.0)
        dialling = asyncio.ensure_future(RawDevice.dial(desk))
        await asyncio.sleep(0)
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await dialling
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert "hub serves again" not in names
