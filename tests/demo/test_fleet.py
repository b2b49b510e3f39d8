"""The devices as a program of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from gatewayd.demo.device import Tally
from gatewayd.demo.fleet import FleetPlan, main, make_devices, read_keys
from gatewayd.demo.settings import HUB_HOSTNAME, Policy
from gatewayd.demo.stage import device_lines, write_private
from tests.demo.conftest import LOOPBACK, Desk


def plan(desk: Desk) -> FleetPlan:
    return plan_for(desk.port, desk.authority, desk.devices_file)


def plan_for(port: int, authority: Path, devices_file: Path) -> FleetPlan:
    return FleetPlan(
        host=LOOPBACK,
        port=port,
        authority=str(authority),
        hub=HUB_HOSTNAME,
        devices_file=str(devices_file),
        process=1,
        processes=2,
        devices=10,
        policy=Policy.CUT,
        token_lifetime=60.0,
        rate=10.0,
        boot=0.3,
        duration=1.2,
        settle=5.0,
        keep_alive=60,
    )


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    written = plan_for(8883, tmp_path / "ca.pem", tmp_path / "devices.csv")
    assert FleetPlan.from_json(written.to_json()) == written


def test_a_plan_that_is_missing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


async def test_a_process_plays_its_share_with_the_keys_of_the_file(desk: Desk) -> None:
    devices = make_devices(plan(desk), Tally())
    assert [device.name for device in devices] == [f"device-0000{number}" for number in (1, 3, 5, 7, 9)]
    assert [device.schedule.boot for device in devices] == pytest.approx([0.03, 0.09, 0.15, 0.21, 0.27])


def test_keys_are_read_by_name(tmp_path: Path) -> None:
    keys = read_keys(write_private(tmp_path / "devices.csv", device_lines(3)))
    assert list(keys) == ["device-00000", "device-00001", "device-00002"]
    assert all(len(key) == 32 for key in keys.values())


async def test_it_ends_at_once_when_whoever_started_it_is_gone(desk: Desk, tmp_path: Path) -> None:
    file = write_private(tmp_path / "plan.json", plan(desk).to_json().encode())
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gatewayd.demo.fleet", str(file), stdin=pipe, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(30):
        said, complained = await process.communicate(b"")
    assert process.returncode == 1
    assert [json.loads(line)["event"] for line in said.splitlines()] == ["ready"]
    assert complained == b""
