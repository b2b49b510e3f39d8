"""Messages in SQL: what comes out is what went in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.message import Telemetry
from gatewayd.store import outbox
from gatewayd.store.outbox import Rows, as_ranges, is_whole, measure, message_of
from gatewayd.store.schema import migrate, open_database
from gatewayd.store.seq_ranges import SeqRanges
from tests.support.outbox_rig import MODULE, WALL, A, B, new


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = open_database(tmp_path / "outbox.db")
    yield made
    made.close()


def store(database: sqlite3.Connection, *news: object) -> None:
    rows = Rows()
    for one in news:
        rows.add(outbox.next_seq(database) + len(rows.rows), one, measure(one.message))  # type: ignore[arg-type,attr-defined]  # NewMessage
    outbox.insert(database, rows)


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")), st.binary(), st.booleans())
def test_every_topic_and_payload_comes_out_as_it_went_in(topic: str, payload: bytes, retain: bool) -> None:
    database = sqlite3.connect(":memory:", isolation_level=None)
    migrate(database)
    wanted = new(MODULE, payload, topic=topic, retain=retain, qos=0, priority=3, expires_at=WALL + 1)
    store(database, wanted)
    row = outbox.read(database, 1)
    assert row is not None
    assert is_whole(row)
    found = message_of(row, MODULE)
    assert found.message == wanted.message
    assert (found.seq, found.priority, found.received_at, found.expires_at) == (1, 3, WALL, WALL + 1)
    database.close()


@pytest.mark.parametrize(
    "column", ["identity = 'x'", "topic = topic || 'x'", "payload = x'00'", "checksum = 1"]
)
def test_a_row_that_changed_is_not_whole(database: sqlite3.Connection, column: str) -> None:
    store(database, new())
    database.execute(f"UPDATE message SET {column}")
    row = outbox.read(database, 1)
    assert row is not None
    assert not is_whole(row)


def test_a_message_that_is_not_there_is_none(database: sqlite3.Connection) -> None:
    assert outbox.read(database, 7) is None
    assert outbox.size_at(database, 7) == 0


def test_ranges_are_deleted_with_their_ends(database: sqlite3.Connection) -> None:
    store(database, *(new() for _ in range(6)))
    outbox.delete(database, [(1, 2), (5, 5)])
    assert [seq for seq in range(1, 7) if outbox.read(database, seq)] == [3, 4, 6]
    assert outbox.size_at(database, 3) == measure(new().message)


def test_what_is_over_is_found_the_longest_over_first(database: sqlite3.Connection) -> None:
    store(database, new(expires_at=30.0), new(B, expires_at=10.0), new(), new(expires_at=31.0))
    assert [row[:2] for row in outbox.expired(database, 30.0, 10, below=9)] == [(2, "dev-b"), (1, "dev-a")]
    assert len(list(outbox.expired(database, 30.0, 1, below=9))) == 1


def test_the_backlog_of_a_file_keeps_leases_and_leaves_out_what_is_settled(
    database: sqlite3.Connection,
) -> None:
    store(database, *(new() for _ in range(4)))
    settled = SeqRanges()
    settled.add(1)
    backlog = outbox.load(database, frozenset({2}), settled)
    assert backlog.messages == 3
    assert backlog.is_leased(2)
    assert backlog.next_of(A) == (0, 3)


def test_what_was_reserved_is_never_given_out(database: sqlite3.Connection) -> None:
    assert outbox.next_seq(database) == 1
    outbox.reserve(database, 100)
    assert outbox.next_seq(database) == 100
    rows = Rows()
    rows.add(200, new(), 1)
    outbox.insert(database, rows)
    assert outbox.next_seq(database) == 201


def test_a_probe_leaves_nothing(database: sqlite3.Connection) -> None:
    outbox.probe(database, 10_000)
    assert database.execute("SELECT count(*) FROM probe").fetchone() == (0,)


def test_neighbours_are_one_range() -> None:
    assert as_ranges([5, 1, 2, 9, 3]) == [(1, 3), (5, 5), (9, 9)]


def test_bytes_are_counted_and_not_characters() -> None:
    assert measure(Telemetry(A, "ä", b"", 1)) == measure(Telemetry(A, "aa", b"", 1))
