"""Rows found page by page: the same as SQLite finds along the tree, and more where the tree is broken."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from pathlib import Path

import pytest

from gatewayd.store import page_scan
from gatewayd.store.schema import PAGE_SIZE, wal_path
from tests.support.outbox_rig import KeeperRig, new

# Around every bound of the format: a row that fits a page, and one that spills into one page or many.
SIZES = (0, 1, 200, 3900, *range(3940, 4100, 3), 8_000, 8_192, 70_000, 262_144)


def rig_with(path: Path, *sizes: int) -> KeeperRig:
    rig = KeeperRig(path)
    chance = random.Random(1)
    for size in sizes:
        rig.append(new(payload=chance.randbytes(size)))
    return rig


def by_sqlite(path: Path) -> list[tuple[object, ...]]:
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    found = database.execute("SELECT * FROM message ORDER BY seq").fetchall()
    database.close()
    return found


def by_pages(path: Path) -> list[tuple[object, ...]]:
    return sorted(page_scan.rows(path), key=lambda row: str(row[0]).zfill(20))


def test_a_closed_file_gives_the_rows_that_sqlite_gives(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    rig_with(path, *SIZES).close()
    assert by_pages(path) == by_sqlite(path)
    assert len(by_pages(path)) == len(SIZES)


def test_what_only_the_log_has_is_found_too(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    rig = rig_with(path, *SIZES[:12])
    assert wal_path(path).stat().st_size > PAGE_SIZE
    assert by_pages(path) == by_sqlite(path)
    rig.close()


def test_what_was_deleted_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    rig = rig_with(path, *[1000] * 100)
    rig.settle(*[message.seq for message in rig.lease(limit=90)])
    rig.close()
    assert len(by_pages(path)) == 10
    assert by_pages(path) == by_sqlite(path)


def test_without_its_tree_every_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    rig_with(path, *[1000] * 100, *SIZES).close()
    rows = by_sqlite(path)
    database = sqlite3.connect(path)
    inner = [
        page
        for (page,) in database.execute(
            "SELECT pageno FROM dbstat WHERE name = 'message' AND pagetype = 'internal'"
        )
    ]
    database.close()
    assert inner
    with path.open("r+b") as file:
        for page in inner:
            file.seek((page - 1) * PAGE_SIZE)
            file.write(os.urandom(PAGE_SIZE))
    assert by_pages(path) == rows


def test_an_outbox_whose_tree_is_gone_comes_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    rig_with(path, *[1000] * 100).close()
    with path.open("r+b") as file:
        file.seek(PAGE_SIZE)  # page 2: the root of the messages
        file.write(os.urandom(PAGE_SIZE))
    rig = KeeperRig(path)
    assert rig.contents.salvaged == 100
    assert [message.seq for message in rig.lease(limit=1000)] == list(range(1, 101))
    rig.close()


def test_a_page_that_the_disk_cannot_read_costs_its_own_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    rig_with(path, *[1000] * 100).close()
    read = os.pread

    def bad_sector(file: int, size: int, at: int) -> bytes:
        if at == 10 * PAGE_SIZE:
            raise OSError(errno.EIO, "Input/output error")
        return read(file, size, at)

    monkeypatch.setattr(os, "pread", bad_sector)
    assert 90 < len(by_pages(path)) < 100


@pytest.mark.parametrize("seed", range(60))
def test_whatever_stands_in_the_file_it_ends_and_raises_nothing(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    rig_with(path, *[500] * 60, 9_000, 30_000).close()
    chance, data = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(chance.choice([3, 300, 30_000])):
        data[chance.randrange(len(data))] = chance.choice([0, 1, 0x0D, 0x7F, 0xFF, chance.randrange(256)])
    path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
    for row in page_scan.rows(path):
        assert len(row) == page_scan.COLUMNS
