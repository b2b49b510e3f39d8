"""A damaged file: what can be read of it goes into a fresh one, and it is put aside whole.

The order survives a crash at each step. The fresh file is made beside (`.new`), complete and on disk, before the
damaged one is renamed. From that rename on a `.new` without a file beside it is the outbox, and the next start finishes
the move.

A file whose first page is gone cannot be opened at all. Every file of ours has the same first page but for its
counters, so a page of a new file is put there and the old one is kept beside (`-page1`). Each message carries a
checksum of its own: whatever a wrong page makes SQLite believe, only messages that are as they were written come
through.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from gatewayd.errors import GatewaydError
from gatewayd.message import Identity
from gatewayd.store import outbox, page_scan
from gatewayd.store.schema import PAGE_SIZE, examine, open_database, open_to_read, wal_path

KEPT_ASIDE = 3
MAGIC = b"SQLite format 3\x00"
TRANSACTION_ROWS = 1000
LAST_SEQ = (1 << 62) - 1


class Damaged(GatewaydError):
    """A row is not as it was written, or missing; never leaves the store."""


@dataclass(frozen=True, slots=True)
class Salvage:
    """Where a damaged file is now, and how many messages came out of it."""

    quarantined: Path
    messages: int


def is_damage(error: BaseException) -> bool:
    """The file is damaged, rather than the disk full or the path wrong."""
    if isinstance(error, Damaged):
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return "decode" in str(error)  # the driver found text that is not UTF-8
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def check(path: Path) -> None:
    """Read every page, change none. Raises Damaged, sqlite3.Error, StoreTooNew, StoreUnusable."""
    examine(path)
    with contextlib.closing(open_to_read(path)) as database:
        verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise Damaged(verdict)


@contextlib.contextmanager
def untouched(path: Path) -> Iterator[None]:
    """Whatever closes meanwhile is not the last connection to the file."""
    with contextlib.ExitStack() as stack:
        # A file that cannot be opened to read is not written by whoever closes it either.
        with contextlib.suppress(sqlite3.Error):
            reader = stack.enter_context(contextlib.closing(open_to_read(path)))
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        yield


def finish_move(path: Path) -> None:
    """Before an open: finish what a crash interrupted."""
    fresh = _fresh(path)
    if not fresh.exists():
        return
    if path.exists():
        _remove(fresh)  # not complete, or not needed: the damaged file is still in place
        return
    _remove_logs(path)
    fresh.rename(path)
    _sync_directory(path)


def mend(path: Path, wall: float, *, next_seq: int = 1) -> Salvage:
    """Salvage, put aside, begin anew. Raises sqlite3.Error or OSError when the disk refuses; then nothing changed."""
    fresh = _fresh(path)
    _remove(fresh)
    _give_first_page(path)
    messages = _salvage(path, fresh, next_seq)
    aside = _name_aside(path, wall)
    path.rename(aside)
    for suffix in ("-wal", "-page1"):
        beside = path.with_name(path.name + suffix)
        if beside.exists() and beside.stat().st_size:
            beside.rename(aside.with_name(aside.name + suffix))
    _remove_logs(path)
    fresh.rename(path)
    _sync_directory(path)
    _prune(path)
    return Salvage(aside, messages)


def put_aside(path: Path) -> list[Path]:
    """The damaged files beside an outbox, oldest first."""
    names = path.parent.glob(f"{path.name}.damaged-*")
    return sorted(name for name in names if not name.name.endswith(("-wal", "-shm", "-page1")))


def _salvage(path: Path, fresh: Path, next_seq: int) -> int:
    """How many messages were copied."""
    target = open_database(fresh)
    source = open_to_read(path)
    try:
        source.text_factory = lambda text: text.decode("utf-8", "replace")
        source.execute("PRAGMA writable_schema = ON")  # a truncated file is read as far as it goes
        copied = 0
        highest = next_seq - 1
        target.execute("BEGIN IMMEDIATE")
        for row in _found(source, path):
            if not _is_ours(row):
                continue
            copied += target.execute(outbox.INSERT_UNLESS_THERE, row).rowcount
            highest = max(highest, row[0])
            if copied % TRANSACTION_ROWS == TRANSACTION_ROWS - 1:
                target.execute("COMMIT")
                target.execute("BEGIN IMMEDIATE")
        _copy_keepsakes(source, target)
        with contextlib.suppress(sqlite3.DatabaseError, TypeError):
            highest = max(highest, outbox.next_seq(source) - 1)
        # Whatever was given out and cannot be read any more is jumped over.
        outbox.reserve(target, min(highest + outbox.SEQ_BLOCK, LAST_SEQ))
        target.execute("COMMIT")
    finally:
        source.close()
        target.close()  # the last connection moves the WAL into the file
    _remove_logs(fresh)
    return copied


def _is_ours(row: outbox.Row) -> bool:
    """The row is whole, down to the types of its columns."""
    try:
        seq, identity, priority, size, received_at, expires_at, flags, _, _, payload = row
        numbers = all(isinstance(number, int) for number in (priority, size, flags))
        times = isinstance(received_at, float) and isinstance(expires_at, float | None)
        Identity.parse(identity)
        return (
            numbers and times and 0 < seq <= LAST_SEQ and isinstance(payload, bytes) and outbox.is_whole(row)
        )
    except (AttributeError, TypeError, UnicodeError, ValueError):
        return False


def _found(source: sqlite3.Connection, path: Path) -> Iterator[outbox.Row]:
    """Every row that is there, some twice: along the tree first, then page by page if the tree is broken."""
    breaks: list[sqlite3.DatabaseError] = []
    yield from _readable(source, breaks)
    if breaks:
        yield from cast(Iterator[outbox.Row], page_scan.rows(path))


def _readable(source: sqlite3.Connection, breaks: list[sqlite3.DatabaseError]) -> Iterator[outbox.Row]:
    """Every row that can be reached, in order of seq, ascending and once; where it could not go on is told."""
    last = 0
    while True:
        try:
            for row in source.execute("SELECT * FROM message WHERE seq > ? ORDER BY seq", (last,)):
                if row[0] <= last:
                    breaks.append(sqlite3.DatabaseError("a page leads in a circle"))
                    break
                last = row[0]
                yield row
            else:
                return
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            breaks.append(error)
        following = _behind(source, last)
        if following is None:
            return
        last = following - 1


def _behind(source: sqlite3.Connection, last: int) -> int | None:
    """The first readable seq behind an unreadable stretch that begins after `last`."""
    failing, step = last + 1, 1
    while not _can_seek(source, failing + step):
        failing += step
        step *= 2
        if failing > LAST_SEQ:
            return None
    working = failing + step
    while working - failing > 1:
        middle = (failing + working) // 2
        if _can_seek(source, middle):
            working = middle
        else:
            failing = middle
    row = source.execute("SELECT seq FROM message WHERE seq >= ? ORDER BY seq LIMIT 1", (working,)).fetchone()
    return int(row[0]) if row is not None and row[0] > last else None


def _can_seek(source: sqlite3.Connection, seq: int) -> bool:
    """The first row from `seq` on can be read whole, or there is none."""
    try:
        source.execute("SELECT * FROM message WHERE seq >= ? ORDER BY seq LIMIT 1", (seq,)).fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return False
    return True


def _copy_keepsakes(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    for table, marks in (("subscription", "?, ?, ?"), ("twin", "?, ?")):
        try:
            for row in source.execute(f"SELECT * FROM {table}"):  # noqa: S608 - the two names above
                with contextlib.suppress(sqlite3.IntegrityError, ValueError):
                    Identity.parse(row[0])
                    target.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)  # noqa: S608
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise


def _give_first_page(path: Path) -> None:
    """Put a good first page in place of one that is no first page of SQLite's."""
    with path.open("r+b") as file:
        first = file.read(PAGE_SIZE)
        pages = path.stat().st_size // PAGE_SIZE
        if (
            first[:16] == MAGIC
            and first[16:18] == struct.pack(">H", PAGE_SIZE)
            and first[100:101] in (b"\x0d", b"\x05")
        ):
            return
        kept = path.with_name(path.name + "-page1")
        if not kept.exists():
            kept.write_bytes(first)
        template = bytearray(_template(path))
        struct.pack_into(">I", template, 28, max(pages, 1))  # pages of the file
        struct.pack_into(">II", template, 32, 0, 0)  # nothing is known of free pages
        file.seek(0)
        file.write(template)
        file.flush()
        os.fsync(file.fileno())


def _template(path: Path) -> bytes:
    """The first page of a file that was just made."""
    made = path.with_name(path.name + ".template")
    _remove(made)
    try:
        open_database(made).close()
        with made.open("rb") as file:
            return file.read(PAGE_SIZE)
    finally:
        _remove(made)


def _fresh(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _name_aside(path: Path, wall: float) -> Path:
    stamp = datetime.fromtimestamp(wall, UTC).strftime("%Y%m%dT%H%M%SZ")
    name = path.with_name(f"{path.name}.damaged-{stamp}")
    count = 1
    while name.exists():
        count += 1
        name = path.with_name(f"{path.name}.damaged-{stamp}.{count}")
    return name


def _prune(path: Path) -> None:
    for old in put_aside(path)[:-KEPT_ASIDE]:
        _remove(old)
        old.with_name(old.name + "-page1").unlink(missing_ok=True)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _remove_logs(path)


def _remove_logs(path: Path) -> None:
    wal_path(path).unlink(missing_ok=True)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
