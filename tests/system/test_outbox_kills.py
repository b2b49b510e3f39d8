"""kill -9 of a process that stores: every message it acknowledged is there, whole, once, and in order.

A kill proves the order of commit and acknowledgement. It does not prove the fsync, because the kernel keeps what was
written: for that `tests/store/test_schema.py` holds SQLite's synchronous=FULL.
"""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from gatewayd.store.reading import stored

KILLS = 20


@dataclass
class Verdict:
    """What a checker found over all kills."""

    acknowledged: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)


def numbers(path: Path) -> list[int]:
    """Which messages are in the file, in their order."""
    found = []
    for one in stored(path):
        digits = one.message.payload.rstrip(b"\0")
        assert len(one.message.payload) == len(digits) + int(digits) % 3000
        found.append(int(digits))
    return found


def kill_again_and_again(path: Path, when: str, kills: int) -> Verdict:
    chance = random.Random(20)
    verdict = Verdict()
    first = 1
    for _ in range(kills):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.storing_child", str(path), str(first), when],
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            for _ in range(chance.randint(1, 300)):
                verdict.acknowledged.add(int(child.stdout.readline()))
            child.kill()
            # Whole lines only: what was said before the kill counts, also what we had not read yet.
            verdict.acknowledged.update(
                int(line) for line in child.stdout.read().splitlines(keepends=True)[:-1]
            )
        there = numbers(path)
        assert there == sorted(set(there))
        verdict.lost |= verdict.acknowledged - set(there)
        first = max(*verdict.acknowledged, *there) + 1
    return verdict


def test_no_acknowledged_message_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    verdict = kill_again_and_again(tmp_path / "outbox.db", "stored", KILLS)
    assert verdict.lost == set()
    assert len(verdict.acknowledged) > KILLS


def test_the_checker_catches_a_store_that_acknowledges_too_early(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path / "outbox.db", "asked", 3).lost != set()
