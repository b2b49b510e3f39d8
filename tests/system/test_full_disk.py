"""A disk that takes no more: the daemon goes on and says so, receipts stop, nothing receipted is lost, and all goes on
by itself when there is room.

The daemon, the hub and the disks are real; devices keep what is unreceipted, as real ones do.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.proof.keeping_fleet import Habit
from tests.proof.rig import ProofRig, proof_rig
from tests.proof.small_disk import file_size_limit, needs_mount, small_file_system
from tests.proof.system_calls import inject, needs_strace
from tests.support.daemon_process import DaemonProcess

DEVICES = 12
# Some 1.5 MB a second: a disk of a few MiB is full soon.
TALKATIVE = Habit(rate=120.0, window=8)


@asynccontextmanager
async def rig_on_disk(folder: Path, outbox: str = "") -> AsyncIterator[ProofRig]:
    lines = f'spill_after = "200ms"\n{outbox}'
    async with proof_rig(folder, devices=DEVICES, habit=TALKATIVE, outbox=lines) as rig:
        yield rig


async def says(daemon: DaemonProcess, state: str, words: str, *, ready: bool) -> None:
    """Log, metric and readiness agree about the outbox."""
    await daemon.until_metric(f'gatewayd_outbox_state{{state="{state}"}}', lambda value: value == 1)
    assert daemon.said(words)
    status, page = await daemon.get("/readyz")
    # With the hub away it is not ready on that account either.
    assert (words in page) is not ready, (status, page)


async def connects(rig: ProofRig) -> list[int]:
    return [device.connects for device in rig.fleet.devices]


@needs_mount
async def test_a_full_file_system_stops_receipts_until_there_is_room_and_costs_nothing(
    tmp_path: Path,
) -> None:
    with small_file_system(tmp_path / "disk", mebibytes=12) as disk:
        async with rig_on_disk(tmp_path) as rig:
            rig.site.rewrite('path = "outbox.db"', 'path = "disk/outbox.db"')
            (disk / "ballast").write_bytes(bytes(3 << 20))
            async with rig.daemon() as daemon:
                await rig.outage()
                before = await connects(rig)
                await rig.receipts_cease()
                await says(daemon, "disk_full", "the disk of the outbox is full", ready=False)
                (disk / "ballast").unlink()
                await rig.receipts(1000)
                await says(daemon, "ok", "the disk of the outbox is full", ready=True)
                assert await connects(rig) == before, "devices were read and answered all the while"
                await rig.receipts_cease()
                await rig.hub.come_back()
                assert await rig.settled(), f"full to the brim it must drain all the same: {rig.verdict()}"
                assert rig.verdict().early > 1000
                assert rig.verdict().holds, rig.verdict()
                assert rig.complaints == []


@needs_mount
async def test_a_daemon_killed_on_a_full_file_system_has_all_it_receipted(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "disk", mebibytes=8):
        async with rig_on_disk(tmp_path) as rig:
            rig.site.rewrite('path = "outbox.db"', 'path = "disk/outbox.db"')
            async with rig.daemon() as daemon:
                await rig.outage()
                await rig.receipts_cease()
                daemon.tell(signal.SIGKILL)
                await daemon.ended()
            async with rig.daemon():
                await rig.hub.come_back()
                assert await rig.settled(), rig.verdict()
            assert rig.verdict().holds, rig.verdict()
            assert rig.complaints == []


async def test_a_file_that_may_not_grow_stops_receipts_until_it_may_and_costs_nothing(tmp_path: Path) -> None:
    async with rig_on_disk(tmp_path) as rig, rig.daemon() as daemon:
        await rig.outage()
        with file_size_limit(daemon.pid, 3 << 20):
            await rig.receipts_cease()
            await says(daemon, "failing", "the disk of the outbox fails", ready=False)
        await rig.receipts(500)
        await rig.hub.come_back()
        assert await rig.settled(), rig.verdict()
        assert rig.verdict().holds, rig.verdict()
        assert rig.complaints == []


async def test_at_its_own_bound_the_outbox_stops_receipts_until_it_has_drained(tmp_path: Path) -> None:
    async with rig_on_disk(tmp_path, 'max_bytes = "2MiB"') as rig, rig.daemon() as daemon:
        await rig.outage()
        await rig.receipts_cease()
        await says(daemon, "at_bound", "the outbox is at outbox.max_bytes", ready=True)
        metrics = await daemon.metrics()
        assert metrics["gatewayd_outbox_bytes"] <= 2 << 20
        await rig.hub.come_back()
        assert await rig.settled(), rig.verdict()
        assert rig.verdict().holds, rig.verdict()


@needs_strace
async def test_a_disk_that_fails_its_syncs_gives_no_receipt(tmp_path: Path) -> None:
    async with rig_on_disk(tmp_path) as rig, rig.daemon() as daemon:
        await rig.outage()
        async with inject(daemon.pid, "fdatasync:error=EIO"):
            await rig.receipts_cease()
            await says(daemon, "failing", "the disk of the outbox fails", ready=False)
        await rig.receipts(500)
        daemon.tell(signal.SIGKILL)
        await daemon.ended()
        await rig.hub.come_back()
        async with rig.daemon():
            assert await rig.settled(), rig.verdict()
        assert rig.verdict().holds, rig.verdict()
        assert rig.complaints == []


@needs_strace
async def test_a_disk_that_fails_its_reads_for_a_while_loses_and_reorders_nothing(tmp_path: Path) -> None:
    async with rig_on_disk(tmp_path) as rig, rig.daemon() as daemon:
        await rig.outage()
        await rig.receipts(3000)
        async with inject(daemon.pid, "pread64:error=EIO"):
            await rig.hub.come_back()
            await asyncio.sleep(2.0)
        assert await rig.settled(), rig.verdict()
        assert rig.verdict().holds, rig.verdict()


@needs_strace
async def test_a_receipt_waits_for_the_sync_of_its_message(tmp_path: Path) -> None:
    """What holds against a loss of power, which no test here can cause: synced first, receipted then."""
    slow = 0.6
    async with rig_on_disk(tmp_path) as rig, rig.daemon() as daemon:
        await rig.outage()
        async with inject(daemon.pid, f"fdatasync:delay_enter={int(slow * 1e6)}"):
            said = {device.identity: device.record.said for device in rig.fleet.devices}
            await asyncio.sleep(slow)  # what was under way before
            said = {device.identity: device.record.said for device in rig.fleet.devices}
            await rig.receipts(DEVICES * TALKATIVE.window * 4)
            waits = [
                device.record.receipted[number] - device.said_at(number)
                for device in rig.fleet.devices
                for number in range(said[device.identity], device.record.said)
                if number in device.record.receipted
            ]
            assert len(waits) > DEVICES
            assert min(waits) > slow
        await rig.hub.come_back()
        assert await rig.settled(), rig.verdict()
