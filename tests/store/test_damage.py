"""Damaged files: what can be read comes through, in order, and the damaged file is put aside."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.store import damage, keeper
from gatewayd.store.damage import KEPT_ASIDE, finish_move, is_damage, mend, put_aside
from gatewayd.store.schema import PAGE_SIZE, wal_path
from tests.support.outbox_rig import MODULE, WALL, A, KeeperRig, new

MESSAGES = 400
PER_PAGE = 12  # about, of the messages below


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An outbox that was closed well: 400 messages of 256 bytes on some 34 pages, two subscriptions, a twin."""
    path = tmp_path / "outbox.db"
    rig = KeeperRig(path)
    for begin in range(0, MESSAGES, 50):
        rig.append(*(new(payload=b"%04d" % number * 64) for number in range(begin, begin + 50)))
    rig.subscribe(A, {"a/#": 1})
    rig.subscribe(MODULE, {"m": 0})
    rig.close()
    return path


def numbers(rig: KeeperRig) -> list[int]:
    """Which of the messages are there, in drain order, each as it was."""
    found = [one.message.payload for one in rig.lease(limit=10_000)]
    assert all(payload == payload[:4] * 64 for payload in found)
    return [int(payload[:4]) for payload in found]


def overwrite(path: Path, offset: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(size))


def message_pages(path: Path) -> list[int]:
    """Offsets of the leaf pages of messages, by SQLite's own account."""
    database = sqlite3.connect(path)
    pages = database.execute(
        "SELECT pageno FROM dbstat WHERE name = 'message' AND pagetype = 'leaf'"
    ).fetchall()
    database.close()
    return [(page - 1) * PAGE_SIZE for (page,) in pages]


def test_garbage_in_the_first_page_costs_nothing(path: Path) -> None:
    overwrite(path, 0, 100)
    rig = KeeperRig(path)
    assert numbers(rig) == list(range(MESSAGES))
    assert rig.contents.salvaged == MESSAGES
    assert rig.contents.subscriptions == {A: {"a/#": 1}, MODULE: {"m": 0}}
    assert rig.contents.quarantined == path.with_name("outbox.db.damaged-20270115T080000Z")
    kept = rig.contents.quarantined.with_name(rig.contents.quarantined.name + "-page1")
    assert kept.stat().st_size == PAGE_SIZE
    rig.close()


def test_a_page_of_garbage_costs_the_messages_on_it(path: Path) -> None:
    pages = message_pages(path)
    overwrite(path, pages[len(pages) // 2], PAGE_SIZE)
    rig = KeeperRig(path)
    left = numbers(rig)
    assert left == sorted(left)
    assert MESSAGES - 2 * PER_PAGE <= len(left) < MESSAGES
    assert rig.contents.salvaged == len(left)
    assert rig.contents.lost is None
    assert {0, MESSAGES - 1} <= set(left)
    rig.close()


def test_several_pages_of_garbage_cost_the_messages_on_them(path: Path) -> None:
    pages = message_pages(path)
    for place in (0, 5, 6, 7, 20, len(pages) - 1):
        overwrite(path, pages[place], PAGE_SIZE)
    rig = KeeperRig(path)
    left = numbers(rig)
    assert left == sorted(left)
    assert MESSAGES - 7 * PER_PAGE <= len(left) < MESSAGES
    rig.close()


def test_a_truncated_file_gives_what_is_left_of_it(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3 // PAGE_SIZE * PAGE_SIZE + 100)
    rig = KeeperRig(path)
    left = numbers(rig)
    assert left == list(range(len(left)))
    assert len(left) > MESSAGES // 2
    rig.close()


def test_a_payload_that_changed_on_disk_does_not_go_to_the_hub(path: Path) -> None:
    where = path.read_bytes().index(b"0123" * 64)
    with path.open("r+b") as file:
        file.seek(where + 50)
        file.write(b"!")
    rig = KeeperRig(path)  # SQLite finds nothing wrong here
    assert rig.contents.quarantined is None
    assert numbers(rig) == [number for number in range(MESSAGES) if number != 123]
    assert [(one.salvaged, one.lost) for one in rig.heard.contents] == [(MESSAGES - 1, 1)]
    rig.close()


@pytest.mark.parametrize("content", [b"", b"no database " * 5000])
def test_a_file_without_anything_of_ours_gives_a_fresh_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(content)
    rig = KeeperRig(path)
    assert rig.contents.salvaged == 0
    assert (rig.contents.quarantined is None) == (not content)
    assert rig.append(new()) != ()
    rig.close()


def tear(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Ten commits in the log and none in the file, the log's end changed, as after a loss of power."""
    rig = KeeperRig(path)
    for number in range(10):
        rig.append(new(payload=b"%d" % number))
    database, log = path.read_bytes(), wal_path(path).read_bytes()
    rig.close()
    path.write_bytes(database)
    wal_path(path).write_bytes(change(log))


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda log: log, 10),
        (lambda log: log[:-1], 9),
        (lambda log: log[:-PAGE_SIZE], 9),
        (lambda log: log[:-100] + os.urandom(100), 9),
        (lambda log: log[:-PAGE_SIZE] + bytes(PAGE_SIZE), 9),
        (lambda log: log + os.urandom(3000), 10),
    ],
    ids=[
        "whole",
        "a byte short",
        "a page short",
        "its end garbage",
        "its last page zeros",
        "garbage behind it",
    ],
)
def test_a_torn_log_costs_only_the_commit_that_was_torn(
    tmp_path: Path, change: Callable[[bytes], bytes], left: int
) -> None:
    path = tmp_path / "outbox.db"
    tear(path, change)
    rig = KeeperRig(path)
    assert [one.message.payload for one in rig.lease()] == [b"%d" % number for number in range(left)]
    assert rig.contents.quarantined is None
    rig.close()


def test_messages_in_the_log_of_a_damaged_file_come_through(path: Path) -> None:
    rig = KeeperRig(path)
    rig.append(new(payload=b"0400" * 64))
    database, log = path.read_bytes(), wal_path(path).read_bytes()
    rig.close()
    path.write_bytes(database)
    wal_path(path).write_bytes(log)
    overwrite(path, message_pages_of(database, path)[3], PAGE_SIZE)
    wal_path(path).write_bytes(log)
    rig = KeeperRig(path)
    left = numbers(rig)
    assert left[-1] == MESSAGES
    assert len(left) < MESSAGES + 1
    quarantined = rig.contents.quarantined
    assert quarantined is not None
    assert wal_path(quarantined).read_bytes() == log
    rig.close()


def message_pages_of(database: bytes, path: Path) -> list[int]:
    """As `message_pages`, of a copy: to look opens the log and empties it."""
    copy = path.with_name("copy.db")
    copy.write_bytes(database)
    return message_pages(copy)


def test_seqs_are_not_used_again_in_the_fresh_file(path: Path) -> None:
    pages = message_pages(path)
    overwrite(path, pages[-1], PAGE_SIZE)
    rig = KeeperRig(path)
    (seq,) = rig.append(new())
    assert seq > MESSAGES
    rig.close()


def test_the_newest_damaged_files_are_kept(path: Path) -> None:
    for second in range(KEPT_ASIDE + 2):
        overwrite(path, 0, 100)
        rig = KeeperRig(path, wall=WALL + second)
        rig.close()
    stamps = [name.name.removeprefix("outbox.db.damaged-") for name in put_aside(path)]
    assert stamps == ["20270115T080002Z", "20270115T080003Z", "20270115T080004Z"]
    assert len([name for name in path.parent.iterdir() if name.name.endswith("-page1")]) == KEPT_ASIDE


def test_two_damaged_files_of_one_second_do_not_meet(path: Path) -> None:
    for _ in range(2):
        overwrite(path, 0, 100)
        assert mend(path, WALL).messages == MESSAGES
    assert len(put_aside(path)) == 2


def test_nothing_else_is_left_beside(path: Path) -> None:
    overwrite(path, 0, 100)
    KeeperRig(path).close()
    aside = "outbox.db.damaged-20270115T080000Z"
    assert {name.name for name in path.parent.iterdir()} == {
        "outbox.db", "outbox.db.lock", "outbox.db.reserve", aside, f"{aside}-page1",
    }  # fmt: skip


@pytest.mark.parametrize("step", range(4))
def test_a_crash_in_the_middle_loses_nothing(path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    overwrite(path, 0, 100)
    wal_path(path).write_bytes(b"")

    class Crash(BaseException):
        """The process is gone here."""

    def crash(*_: object, **__: object) -> None:
        raise Crash

    renames = 0
    rename = Path.rename

    def crash_at(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == step:
            raise Crash
        return rename(self, target)

    with monkeypatch.context() as patched:
        if step == 0:
            patched.setattr(damage, "_name_aside", crash)
        else:
            patched.setattr(Path, "rename", crash_at)
        with pytest.raises(Crash):
            mend(path, WALL)
    rig = KeeperRig(path)
    assert numbers(rig) == list(range(MESSAGES))
    assert not path.with_name("outbox.db.new").exists()
    rig.close()


def test_a_fresh_file_beside_the_damaged_one_is_begun_anew(path: Path) -> None:
    fresh = path.with_name("outbox.db.new")
    fresh.write_bytes(b"half")
    finish_move(path)
    assert path.exists()
    assert not fresh.exists()


def test_a_full_disk_is_not_damage() -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert not is_damage(full)
    assert not is_damage(OSError())
    corrupt = sqlite3.DatabaseError("malformed")
    corrupt.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_VTAB
    assert is_damage(corrupt)
    assert is_damage(sqlite3.OperationalError("Could not decode to UTF-8 column 'topic'"))


def test_a_row_with_values_of_other_kinds_is_damage_even_in_a_file_too_large_to_look_through(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "CHECKED_BYTES", 0)
    # The head of a record ("Database File Format", 2.1): seq is NULL, the identity text, priority the constant 0.
    text = 13 + 2 * len(str(A))
    whole, odd = bytes([0, text, 8]), bytes([0, text, 12])
    page = message_pages(path)[5]
    data = bytearray(path.read_bytes())
    place = data.rindex(whole, page, page + PAGE_SIZE)  # a page fills from its end
    data[place : place + len(odd)] = odd
    path.write_bytes(data)
    rig = KeeperRig(path)
    left = numbers(rig)
    assert rig.contents.quarantined is not None
    assert left == sorted(left)
    assert len(left) == MESSAGES - 1
    rig.close()
