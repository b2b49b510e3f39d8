"""The outbox on disk: tables, versions, and the settings of every connection.

    message              one row a message, complete in itself: what is left of a damaged file needs no other table.
                         What a start must know stands before topic and payload, which it then need not read
    subscription, twin   what is kept for a device beside its messages
    note                 the first seq that was never given out; seqs are reserved in blocks, so it is written seldom
    probe                takes a write when we want to know whether the disk accepts one

Messages lie in the order of their seq and no index names the device, so a commit of a hundred messages touches the last
few pages and not a hundred. Only what has an end is in an index, by its end, which ascends nearly too. Who comes next
for a device is kept in memory (`backlog`).

The version is SQLite's `user_version`. Each step of MIGRATIONS goes from its index to the next version, all of them in
one transaction: a file is at a version or at the next, never between. A newer version is refused before anything is
written. Roots stay where version 1 put them (no auto_vacuum), on which `damage` relies when the first page is gone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gatewayd.errors import StoreTooNew, StoreUnusable

APPLICATION_ID = 0x67776F62  # "gwob"
PAGE_SIZE = 4096

# The WAL is copied into the file at this size and then written from its start again. It keeps this size on disk: room
# in which messages can be deleted when the file system is full.
WAL_BYTES = 1024 * 1024

WAL_HEADER = 32
WAL_FRAME = 24 + PAGE_SIZE

# Seconds SQLite waits for another process that reads; `gatewayd outbox` holds its locks for milliseconds.
BUSY_SECONDS = 1.0

VERSION_1 = """
CREATE TABLE message (
    seq INTEGER PRIMARY KEY,
    identity TEXT NOT NULL,
    priority INTEGER NOT NULL,
    size INTEGER NOT NULL,      -- what it counts for
    received_at REAL NOT NULL,
    expires_at REAL,
    flags INTEGER NOT NULL,     -- 1: QoS 1, 2: retain
    checksum INTEGER NOT NULL,  -- CRC-32 of identity, line feed, topic, line feed, payload
    topic TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE subscription (
    identity TEXT NOT NULL, filter TEXT NOT NULL, qos INTEGER NOT NULL, PRIMARY KEY (identity, filter)
) STRICT, WITHOUT ROWID;
CREATE TABLE twin (identity TEXT NOT NULL PRIMARY KEY, document BLOB NOT NULL) STRICT;
CREATE TABLE note (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE probe (filler BLOB NOT NULL) STRICT;
CREATE INDEX message_expiry ON message (expires_at) WHERE expires_at IS NOT NULL;
INSERT INTO note VALUES ('next_seq', 1);
"""

MIGRATIONS: tuple[str, ...] = (VERSION_1,)


def open_database(path: Path, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection:
    """The outbox, made or brought to our version. Raises StoreTooNew, StoreUnusable, sqlite3.Error, OSError."""
    examine(path, known=len(migrations))
    _make_private(path)
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _settle_in(database)
        migrate(database, migrations)
    except BaseException:
        database.close()
        raise
    return database


def examine(path: Path, *, known: int = len(MIGRATIONS)) -> None:
    """Refuse what is not ours to open, without writing a byte of it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    database = open_to_read(path)
    try:
        found = version_of(database)
        owner = int(database.execute("PRAGMA application_id").fetchone()[0])
        tables = int(database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    finally:
        database.close()
    if tables and owner != APPLICATION_ID:
        raise StoreUnusable(
            str(path), "it is a database of another program; name another file in [outbox] path"
        )
    if found > known:
        raise StoreTooNew(str(path), found=found, known=known)


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that cannot write: neither the file nor its WAL change, also not when it closes."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def version_of(database: sqlite3.Connection) -> int:
    """The version of the schema; 0 for a file without one."""
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def migrate(database: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the file to the newest version of `migrations`, whole or not at all."""
    if version_of(database) == len(migrations):
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        for step in migrations[version_of(database) :]:
            for statement in _statements(step):
                database.execute(statement)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {len(migrations)}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def wal_path(path: Path) -> Path:
    """Where SQLite keeps the write-ahead log of a file."""
    return path.with_name(path.name + "-wal")


def wal_round(path: Path, size: int) -> tuple[bytes, bool]:
    """The salts of the log's present round, and whether the round has grown to `size` bytes.

    The file itself keeps its size over all rounds; a frame belongs to the round whose salts it carries ("WAL-mode File
    Format" of sqlite.org). SQLite holds no locks on this file that another descriptor's end would drop.
    """
    try:
        with wal_path(path).open("rb") as log:
            salts = log.read(WAL_HEADER)[16:24]
            log.seek(WAL_HEADER + size // WAL_FRAME * WAL_FRAME + 8)
            return salts, bool(salts) and log.read(8) == salts
    except FileNotFoundError:
        return b"", False


def _make_private(path: Path) -> None:
    """SQLite gives its other files the mode of the first."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _settle_in(database: sqlite3.Connection) -> None:
    """What must hold for each connection; the first ones act only before the first table."""
    database.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    database.execute("PRAGMA auto_vacuum = NONE")
    mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise sqlite3.OperationalError(f"journal_mode is {mode}, expected wal")
    database.execute(
        "PRAGMA synchronous = FULL"
    )  # a receipt is a promise: fsync before it, power loss included
    database.execute("PRAGMA wal_autocheckpoint = 0")  # after the answers, by us
    database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    # A page that becomes free is not written: on a full disk there may be no room to. What was deleted stays in the
    # file until its page is used again; the file is the owner's alone.
    database.execute("PRAGMA secure_delete = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA temp_store = MEMORY")


def _statements(script: str) -> list[str]:
    """The statements of a script; `executescript` would commit in the middle."""
    found: list[str] = []
    rest = ""
    for part in script.rstrip().removesuffix(";").split(";"):
        rest += part + ";"
        if sqlite3.complete_statement(rest):
            found.append(rest)
            rest = ""
    if rest:
        raise ValueError("a migration ends inside a statement")
    return found
