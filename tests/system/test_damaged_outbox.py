"""An outbox that is not as it was written: torn by a crash, overwritten, cut off. The daemon goes on, says so, puts the
file aside, and what the disk still had reaches the hub.

The oracle looks for the bytes of each message in what is left of the file (`proof.damage`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.proof.custody import Said, Verdict
from tests.proof.damage import (
    PAGE,
    add_torn_frame,
    cells,
    overwrite_pages,
    pages_of,
    still_there,
    tear,
    wal_commits,
    wal_of,
)
from tests.proof.faulty_daemon import program
from tests.proof.keeping_fleet import Habit
from tests.proof.rig import ProofRig, proof_rig
from tests.support.daemon_process import GATEWAYD, DaemonProcess

HABIT = Habit(rate=60.0, window=6)
STORED = 500


@asynccontextmanager
async def full_outbox(
    folder: Path, *, end: signal.Signals, program: Sequence[str] = GATEWAYD
) -> AsyncIterator[tuple[ProofRig, Path]]:
    """Many messages in the outbox, its daemon ended, the hub still away."""
    async with proof_rig(folder, devices=12, habit=HABIT, program=program) as rig:
        async with rig.daemon() as daemon:
            await rig.outage()
            await rig.receipts(STORED)
            # The log begins anew at a size; a torn end needs something before it.
            await rig.until(lambda: len(wal_commits(wal_of(folder / "outbox.db"))) > 5)
            daemon.tell(end)
            await daemon.ended()
        yield rig, folder / "outbox.db"


def promised(rig: ProofRig) -> set[Said]:
    """Receipted, and not at the hub."""
    return set(rig.verdict().lost)


def put_aside(outbox: Path) -> list[Path]:
    return list(outbox.parent.glob(f"{outbox.name}.damaged-*"))


def as_said(verdict: Verdict) -> bool:
    """What is at the hub came in order and whole."""
    return not (verdict.disordered or verdict.damaged or verdict.invented)


async def drained(rig: ProofRig, daemon: DaemonProcess) -> None:
    """The hub is back; until the outbox is empty and every device has its receipts. What was lost stays lost."""
    await rig.hub.come_back()
    rig.fleet.stop_talking()
    await rig.until(lambda: rig.fleet.unreceipted == 0)
    await daemon.until_metric("gatewayd_outbox_messages", lambda value: value == 0)
    await rig.hub.catch_up()


async def test_a_frame_that_was_being_written_when_the_daemon_was_killed_costs_nothing(
    tmp_path: Path,
) -> None:
    async with full_outbox(tmp_path, end=signal.SIGKILL) as (rig, outbox):
        add_torn_frame(wal_of(outbox))
        async with rig.daemon() as daemon:
            await rig.hub.come_back()
            assert await rig.settled(), rig.verdict()
            assert (await daemon.metrics())["gatewayd_outbox_quarantines_total"] == 0
        assert rig.verdict().holds, rig.verdict()
        assert rig.complaints == []


async def test_a_torn_end_of_the_log_costs_its_last_transaction_and_no_more(tmp_path: Path) -> None:
    async with full_outbox(tmp_path, end=signal.SIGKILL) as (rig, outbox):
        await rig.hub.catch_up()
        stored = promised(rig)
        wal = wal_of(outbox)
        tear(wal, wal_commits(wal)[-1])
        async with rig.daemon() as daemon:
            await drained(rig, daemon)
        verdict = rig.verdict()
        assert as_said(verdict), verdict
        when = {
            (device.identity, number): at
            for device in rig.fleet.devices
            for number, at in device.record.receipted.items()
        }
        assert len(verdict.lost) < 100, "one transaction"
        newest_kept = max(when[said] for said in stored - set(verdict.lost))
        assert all(when[said] > newest_kept - 0.05 for said in verdict.lost), "the last one"
        assert rig.complaints == []


def _here_and_there(path: Path) -> None:
    overwrite_pages(path, range(7, pages_of(path), 23))


def _tree_only(path: Path) -> None:
    overwrite_pages(path, [1, 2])  # the schema, and the root of the messages


def _cut_in_half(path: Path) -> None:
    os.truncate(path, pages_of(path) // 2 * PAGE)


def _one_byte_in_each_tenth_page(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(12, pages_of(path), 10):
            file.seek(page * PAGE + PAGE // 2)
            byte = file.read(1)[0]
            file.seek(page * PAGE + PAGE // 2)
            file.write(bytes([byte ^ 0x40]))


@pytest.mark.parametrize("harm", [_here_and_there, _tree_only, _cut_in_half, _one_byte_in_each_tenth_page])
async def test_what_a_damaged_file_still_has_reaches_the_hub(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    async with full_outbox(tmp_path, end=signal.SIGTERM) as (rig, outbox):
        assert not wal_of(outbox).exists(), "a daemon that ends leaves one file"
        await rig.hub.catch_up()
        stored = promised(rig)
        rows = cells(outbox, stored)
        assert set(rows) == stored
        harm(outbox)
        left = still_there(outbox, rows)
        assert left < stored or harm is _tree_only
        async with rig.daemon() as daemon:
            await rig.receipts(100)
            await drained(rig, daemon)
            metrics = await daemon.metrics()
            assert metrics["gatewayd_outbox_quarantines_total"] == 1
            assert "damaged" in (await daemon.get("/readyz"))[1]
            told = daemon.said("was damaged")
            assert [line["level"] for line in told] == ["error"]
        verdict = rig.verdict()
        lost = set(verdict.lost)
        assert not lost & left, f"{len(lost & left)} of {len(left)} that the disk still had are lost; {told}"
        assert as_said(verdict), verdict
        assert put_aside(outbox)
        assert rig.complaints == []


async def test_damage_that_is_found_in_use_costs_no_more_and_no_order(tmp_path: Path) -> None:
    rigged = full_outbox(tmp_path, end=signal.SIGTERM, program=program("check_nothing"))
    async with rigged as (rig, outbox):
        await rig.hub.catch_up()
        rows = cells(outbox, promised(rig))
        _one_byte_in_each_tenth_page(outbox)
        left = still_there(outbox, rows)
        async with rig.daemon() as daemon:
            await rig.receipts(100)
            assert (await daemon.metrics())["gatewayd_outbox_quarantines_total"] == 0, "not seen yet"
            await drained(rig, daemon)
            assert (await daemon.metrics())["gatewayd_outbox_quarantines_total"] >= 1
        verdict = rig.verdict()
        assert not set(verdict.lost) & left
        assert as_said(verdict), verdict
        assert rig.complaints == []
