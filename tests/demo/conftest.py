"""A hub in the test's own process, with keys that the device file of a fleet holds too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from gatewayd.clock import SystemClock
from gatewayd.demo.connection import Connection, Peer, connect, trusting
from gatewayd.demo.device import Device, Role, Tally
from gatewayd.demo.fleet import read_keys
from gatewayd.demo.identity import device_name
from gatewayd.demo.schedule import Schedule
from gatewayd.demo.settings import HUB_HOSTNAME, Policy
from gatewayd.demo.stage import device_lines, write_private
from gatewayd.emulator.certificate import make_certificate
from gatewayd.emulator.hub import HubEmulator
from gatewayd.emulator.hub_state import HubSettings
from gatewayd.emulator.registry import load_registry

LOOPBACK = "127.0.0.1"
LOOK_SECONDS = 0.005


async def eventually(true: Callable[[], bool], within: float = 15.0) -> None:
    """Until something that nobody announces has come true; AssertionError when it does not in time."""
    for _ in range(int(within / LOOK_SECONDS)):
        if true():
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(f"not true within {within:g} s")


@dataclass
class Desk:
    """A hub and what its devices need."""

    hub: HubEmulator
    authority: Path
    devices_file: Path
    tally: Tally

    @property
    def port(self) -> int:
        return self.hub.address[1]

    def peer(self) -> Peer:
        return Peer(LOOPBACK, self.port, trusting(str(self.authority)), keep_alive=60)

    def key(self, number: int = 0) -> bytes:
        return read_keys(self.devices_file)[device_name(number)]

    async def connect(self, name: str, username: str, password: str) -> Connection:
        return await connect(self.peer(), name, username, password)

    def device(self, schedule: Schedule, *, policy: Policy = Policy.CUT, lifetime: float = 60.0) -> Device:
        role = Role(HUB_HOSTNAME, policy, lifetime)
        reach = partial(connect, self.peer())
        return Device(device_name(0), self.key(), role, schedule, reach, SystemClock(), self.tally)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    certificate = make_certificate(HUB_HOSTNAME, (LOOPBACK,), wall=SystemClock().wall())
    devices_file = write_private(tmp_path / "devices.csv", device_lines(10))
    hub = HubEmulator(
        load_registry(devices_file),
        HubSettings(HUB_HOSTNAME, skew_seconds=0, grace_seconds=0),
        certificate,
    )
    await hub.start()
    authority = write_private(tmp_path / "hub.pem", certificate.authority_pem)
    yield Desk(hub, authority, devices_file, Tally())
    await hub.stop()
