"""The daemon of the demo: the real one, started, read and ended."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import aiohttp
import pytest

from gatewayd.clock import SystemClock
from gatewayd.demo.gateway import Gateway
from gatewayd.demo.processes import ChildFailed, Children
from gatewayd.demo.settings import Places, Settings
from gatewayd.demo.stage import Stage, free_ports, stage

SETTINGS = Settings(devices=3)


@pytest.fixture
def ready() -> Iterator[Stage]:
    with stage(SETTINGS.devices, SystemClock().wall()) as files:
        yield files


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def places(ready: Stage) -> Places:
    hub_port, listener_port, metrics_port = free_ports(3)
    return Places(
        hub_port=hub_port,
        hub_authority=ready.gateway_authority,
        listener_port=listener_port,
        listener_certificate=ready.gateway_certificate,
        metrics_port=metrics_port,
        devices_file=ready.devices_file,
        outbox_file=ready.directory / "outbox.db",
        clock_floor_file=ready.directory / "clock-floor",
    )


async def test_it_is_ready_says_its_engine_and_ends_when_asked(
    ready: Stage, http: aiohttp.ClientSession
) -> None:
    async with Children() as children:
        gateway = await Gateway.start(SETTINGS, places(ready), ready.directory, children, http)
        reading = await gateway.read()
        assert reading.engine
        assert reading.renewals_failed == 0
        assert gateway.rss_kib() > 10_000
        assert await gateway.end() is None


async def test_a_port_that_is_taken_is_told_plainly(ready: Stage, http: aiohttp.ClientSession) -> None:
    taken = places(ready)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", taken.listener_port))
        holder.listen()
        async with Children() as children:
            with pytest.raises(ChildFailed, match="the daemon ended with exit code") as failure:
                await Gateway.start(SETTINGS, taken, ready.directory, children, http)
    assert str(taken.listener_port) in str(failure.value)


async def test_a_configuration_it_refuses_is_told_with_its_own_words(
    ready: Stage, http: aiohttp.ClientSession
) -> None:
    backwards = replace(SETTINGS, renew_earliest=0.9, renew_latest=0.8)
    async with Children() as children:
        with pytest.raises(ChildFailed, match="exit code 78") as failure:
            await Gateway.start(backwards, places(ready), ready.directory, children, http)
    assert "renew_earliest" in str(failure.value)


async def test_a_daemon_that_is_killed_is_noticed(ready: Stage, http: aiohttp.ClientSession) -> None:
    async with Children() as children:
        gateway = await Gateway.start(SETTINGS, places(ready), ready.directory, children, http)
        gateway.kill()
        assert await gateway.end() == "exit code -9"
