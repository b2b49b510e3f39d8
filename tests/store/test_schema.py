"""Versions, migrations and the settings on which promises stand."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from gatewayd.errors import StoreTooNew, StoreUnusable
from gatewayd.store.schema import (
    MIGRATIONS,
    VERSION_1,
    WAL_BYTES,
    examine,
    migrate,
    open_database,
    open_to_read,
    version_of,
    wal_path,
)
from tests.support.outbox_rig import KeeperRig, new, payloads

PLUS_ONE = (*MIGRATIONS, "ALTER TABLE message ADD COLUMN colour TEXT; CREATE TABLE extra (a INTEGER);")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def digests(path: Path) -> dict[str, str]:
    files = (path, wal_path(path))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()}


def leave_a_wal(path: Path, user_version: int) -> None:
    """A file of another version whose last changes are in its WAL, as a crash leaves it."""
    source = open_database(path.with_name("source.db"))
    source.execute("INSERT INTO twin VALUES ('dev', x'00')")
    source.execute(f"PRAGMA user_version = {user_version}")
    path.write_bytes(path.with_name("source.db").read_bytes())
    wal_path(path).write_bytes(wal_path(path.with_name("source.db")).read_bytes())
    source.close()


def test_a_receipt_waits_for_the_disk(path: Path) -> None:
    database = open_database(path)
    settings = ("journal_mode", "synchronous", "auto_vacuum", "journal_size_limit", "page_size")
    found = {name: database.execute(f"PRAGMA {name}").fetchone()[0] for name in settings}
    full, none = 2, 0
    expected = ("wal", full, none, WAL_BYTES, 4096)
    assert found == dict(zip(settings, expected, strict=True))
    database.close()


def test_only_the_owner_reads_the_file_and_its_log(path: Path) -> None:
    path.touch(mode=0o644)
    database = open_database(path)
    database.execute("INSERT INTO twin VALUES ('dev', x'00')")
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    database.close()


def test_a_new_file_is_at_the_newest_version(path: Path) -> None:
    open_database(path).close()
    database = open_to_read(path)
    assert version_of(database) == len(MIGRATIONS)
    database.close()


def test_a_file_from_before_the_first_version_is_brought_up(path: Path) -> None:
    sqlite3.connect(path).close()
    path.touch()
    database = open_database(path)
    assert version_of(database) == len(MIGRATIONS)
    database.close()


def test_a_file_of_an_older_version_keeps_its_messages(path: Path) -> None:
    rig = KeeperRig(path)
    rig.append(new(payload=b"old"))
    rig.close()
    database = open_database(path, PLUS_ONE)
    assert version_of(database) == len(PLUS_ONE)
    assert database.execute("SELECT payload, colour FROM message").fetchall() == [(b"old", None)]
    assert database.execute("SELECT count(*) FROM extra").fetchone() == (0,)
    database.close()
    with pytest.raises(StoreTooNew, match=f"version {len(PLUS_ONE)}.*up to {len(MIGRATIONS)}"):
        open_database(path)


def test_a_migration_that_fails_leaves_the_version_before_it(path: Path) -> None:
    rig = KeeperRig(path)
    rig.append(new(payload=b"old"))
    rig.close()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        open_database(path, (*PLUS_ONE, "CREATE TABLE more (a INTEGER); DROP TABLE nowhere;"))
    rig = KeeperRig(path)
    assert payloads(rig.lease()) == [b"old"]
    rig.close()


def test_several_versions_are_one_transaction(path: Path) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrate(database, (VERSION_1, "SELECT * FROM nowhere;"))
    assert version_of(database) == 0
    assert database.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    database.close()


def test_a_migration_that_ends_inside_a_statement_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="ends inside"):
        open_database(path, ("CREATE TRIGGER one AFTER DELETE ON message BEGIN SELECT 1;",))


def test_a_newer_file_is_refused_and_left_whole_its_log_included(path: Path) -> None:
    newer = len(MIGRATIONS) + 6
    leave_a_wal(path, newer)
    before = digests(path)
    assert len(before) == 2
    with pytest.raises(StoreTooNew, match="was left as it is") as refused:
        open_database(path)
    assert (refused.value.found, refused.value.known) == (newer, len(MIGRATIONS))
    with pytest.raises(StoreTooNew):
        KeeperRig(path)
    assert digests(path) == before


def test_the_rig_sees_a_file_that_was_touched(path: Path) -> None:
    leave_a_wal(path, len(MIGRATIONS))
    before = digests(path)
    open_database(path).close()
    assert digests(path) != before


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE theirs (a INTEGER)")
    foreign.commit()
    foreign.close()
    before = digests(path)
    with pytest.raises(StoreUnusable, match="another program"):
        open_database(path)
    assert digests(path) == before


def test_nothing_is_wrong_with_a_file_that_is_not_there_or_empty(path: Path) -> None:
    examine(path)
    path.touch()
    examine(path)


def test_a_reader_cannot_write(path: Path) -> None:
    open_database(path).close()
    reader = open_to_read(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM message")
    reader.close()
