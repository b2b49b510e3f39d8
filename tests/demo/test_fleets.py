"""A fleet of two processes against a real hub: what they say adds up, and the hub has what they have receipts for."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from gatewayd.demo.fleets import Fleet, FleetResult, Progress
from gatewayd.demo.identity import message_id
from gatewayd.demo.processes import ChildFailed, Children
from gatewayd.emulator.faults import FaultKind
from tests.demo.conftest import Desk, eventually
from tests.demo.test_fleet import plan


async def test_two_processes_play_one_fleet(desk: Desk, tmp_path: Path) -> None:
    async with Children() as children:
        fleet = Fleet("fleet", children, tmp_path)
        await fleet.start([dataclasses.replace(plan(desk), process=process) for process in (0, 1)])
        await fleet.begin(asyncio.get_running_loop().time() + 0.1)
        fleet.let_end()
        await eventually(lambda: fleet.is_done, 30)
        result = await fleet.finished()
    assert len(result.receipted) == 10
    assert result.scheduled == result.sent == result.receipts == fleet.progress.receipted > 70
    for device, numbers in result.receipted.items():
        assert desk.hub.ledger.ids(device) == {message_id(device, number) for number in numbers}
    assert not result.failures
    assert not desk.hub.events.errors


async def test_messages_without_receipt_are_scheduled_and_sent_and_not_receipted(
    desk: Desk, tmp_path: Path
) -> None:
    desk.hub.arm(FaultKind.PUBACK_DROP)
    async with Children() as children:
        fleet = Fleet("fleet", children, tmp_path)
        await fleet.start([dataclasses.replace(plan(desk), settle=0.5)])
        await fleet.begin(asyncio.get_running_loop().time() + 0.1)
        fleet.let_end()
        await eventually(lambda: fleet.is_done, 30)
        result = await fleet.finished()
    assert result.scheduled == result.sent > 30
    assert result.receipts == 0
    assert desk.hub.ledger.distinct == result.sent


async def test_a_fleet_that_cannot_start_is_named(desk: Desk, tmp_path: Path) -> None:
    async with Children() as children:
        broken = dataclasses.replace(plan(desk), devices_file=str(tmp_path / "nothing.csv"))
        with pytest.raises(ChildFailed, match="fleet, process 1 ended with exit code 1") as failure:
            await Fleet("fleet", children, tmp_path).start([broken])
    assert "nothing.csv" in str(failure.value)


def test_progress_adds_up() -> None:
    assert Progress(1, 2, 3, 4, 5, 6, 7).plus(Progress(10, 20, 30, 40, 50, 60, 70)) == Progress(
        11, 22, 33, 44, 55, 66, 77
    )


def test_receipts_are_counted_over_all_devices() -> None:
    assert FleetResult(receipted={"a": {0, 1}, "b": set(), "c": {4}}).receipts == 3
