"""Harm done to a closed outbox, and what is left of it: judged by bytes, not by SQLite.

What a device says follows from its name and number (see `keeping_fleet`), so whether the disk still has a message is
seen by looking for its bytes. File formats: "Database File Format" and "WAL-mode File Format" of sqlite.org.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from pathlib import Path

from tests.proof.custody import Said
from tests.proof.keeping_fleet import telemetry

PAGE = 4096
WAL_HEADER = 32
FRAME_HEADER = 24


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def wal_frames(wal: Path) -> list[int]:
    """Where each frame of the log's present round begins: those that carry the salts of its header."""
    data = wal.read_bytes()
    salts = data[16:24]
    found = []
    for at in range(WAL_HEADER, len(data) - FRAME_HEADER - PAGE + 1, FRAME_HEADER + PAGE):
        if data[at + 8 : at + 16] != salts:
            break
        found.append(at)
    return found


def is_commit(wal: Path, at: int) -> bool:
    """The frame ends a transaction: it says how many pages the database has then."""
    with wal.open("rb") as file:
        file.seek(at)
        return bool(struct.unpack(">II", file.read(8))[1])


def tear(wal: Path, at: int) -> None:
    """The second half of the frame's page never reached the disk."""
    with wal.open("r+b") as file:
        file.seek(at + FRAME_HEADER + PAGE // 2)
        file.write(bytes(PAGE // 2))


def add_torn_frame(wal: Path) -> None:
    """A frame of the present round that was being written: half of it is there."""
    at = wal_frames(wal)[-1]
    with wal.open("r+b") as file:
        file.seek(at)
        half = file.read(FRAME_HEADER + PAGE // 2)
        file.seek(at + FRAME_HEADER + PAGE)
        file.write(half)


def overwrite_pages(path: Path, pages: Iterable[int], seed: int = 1) -> None:
    """Chance in place of these pages; the first is 1."""
    chance = random.Random(seed)
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(chance.randbytes(PAGE))


def pages_of(path: Path) -> int:
    return path.stat().st_size // PAGE


def still_there(path: Path, said: Iterable[Said]) -> set[Said]:
    """Those of `said` whose words are in the file, all of them."""
    data = path.read_bytes()
    found = set()
    for name, number in said:
        bag, payload = telemetry(name, number)
        at = data.find(f"{bag}".encode() + payload)
        if at >= 0:
            found.add((name, number))
    return found
