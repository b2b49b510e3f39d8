"""SIGKILL at random moments costs nothing that was receipted; and a daemon that receipts too early is found out.

A short run of `python -m tests.proof.crash_rounds`, which says what a round is.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proof.crash_rounds import BEFORE_READY, Round, Settings, plan, run
from tests.proof.faulty_daemon import FAULTS, program
from tests.proof.rig import complaints


async def test_no_receipted_message_is_lost_when_the_daemon_is_killed_again_and_again(tmp_path: Path) -> None:
    report = await run(Settings(rounds=5, seed=11), tmp_path)
    assert report.holds, report
    assert report.verdict is not None
    assert report.verdict.receipted > 500
    assert report.killed_with_unreceipted >= 3


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_daemon_that_receipts_too_early_is_found_out(fault: str, tmp_path: Path) -> None:
    # A hub that is silent keeps messages in memory, one that is away sends them to the outbox at once.
    rounds = tuple(
        Round(False, kill_after, "", 0, trouble, BEFORE_READY, 5.0)
        for kill_after in (1.0, 1.4)
        for trouble in ("silent", "away")
    )
    settings = Settings(seed=11, program=program(fault), spill_after="5s", plan=rounds)
    report = await run(settings, tmp_path)
    assert report.verdict is not None
    assert report.verdict.lost
    assert not report.holds


def test_rounds_follow_from_their_seed() -> None:
    assert plan(3, 50) == plan(3, 50) != plan(4, 50)
    assert plan(3, 50)[:10] == plan(3, 10)
    assert {each.starting for each in plan(3, 50)} == {True, False}


def test_a_fault_the_daemon_speaks_of_is_heard() -> None:
    assert complaints(["ready", "Traceback (most recent call last):", "this is a fault of gatewayd"]) != []
    assert complaints(["ready"]) == []
