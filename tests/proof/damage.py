"""Harm done to a closed outbox, and what is left of it: judged by bytes, not by SQLite.

What a device says follows from its name and number (see `keeping_fleet`), so whether the disk still has a message is
seen by looking for its bytes. File formats: "Database File Format" and "WAL-mode File Format" of sqlite.org.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.proof.custody import Said
from tests.proof.keeping_fleet import telemetry

PAGE = 4096
WAL_HEADER = 32
FRAME_HEADER = 24
# More than a row has before its property bag: sizes and kinds, identity, numbers, the rest of the topic.
ROW_HEAD = 100


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


def wal_commits(wal: Path) -> list[int]:
    """Those frames that end a transaction: they say how many pages the database has then."""
    data = wal.read_bytes()
    return [at for at in wal_frames(wal) if struct.unpack_from(">I", data, at + 4)[0]]


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


def cells(path: Path, said: Iterable[Said]) -> dict[Said, bytes]:
    """Of each message that is in the file: its words, and what its row has before them."""
    data = path.read_bytes()
    found = {}
    for name, number in said:
        bag, payload = telemetry(name, number)
        words = bag.encode() + payload
        at = data.find(words)
        if at >= 0:
            found[name, number] = data[max(0, at - ROW_HEAD) : at + len(words)]
    return found


def still_there(path: Path, rows: Mapping[Said, bytes]) -> set[Said]:
    """Those of `rows` that are in the file as they were."""
    data = path.read_bytes()
    return {said for said, row in rows.items() if row in data}
