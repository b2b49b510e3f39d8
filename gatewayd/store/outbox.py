"""The messages of the file in SQL. Sync; whoever calls owns the transaction and the thread.

Statements are constant texts, so that SQLite prepares each once a connection.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from gatewayd.message import Identity, Telemetry
from gatewayd.store.backlog import Backlog, Entry
from gatewayd.store.messages import NewMessage, StoredMessage
from gatewayd.store.retention import size_of
from gatewayd.store.seq_ranges import SeqRanges

# Seqs are reserved in the file this many at a time. What a restart leaves unused of a block is never used: of 2^63
# there are enough.
SEQ_BLOCK = 1 << 20

QOS_1 = 1
RETAIN = 2

INSERT = "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_UNLESS_THERE = "INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SELECT = "SELECT * FROM message WHERE seq = ?"

# seq, identity, priority, size, received_at, expires_at, flags, checksum, topic, payload
Row = tuple[int, str, int, int, float, float | None, int, int, str, bytes]


class Rows:
    """Appends on their way into the file."""

    __slots__ = ("entries", "rows", "size")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.entries: list[tuple[Entry, bool]] = []
        self.size = 0

    def add(self, seq: int, new: NewMessage, size: int) -> None:
        """One message; `size` as `measure` says."""
        message, priority = new.message, new.priority
        topic, payload = message.topic, message.payload
        identity = str(message.identity)
        flags = (QOS_1 if message.qos else 0) | (RETAIN if message.retain else 0)
        checksum = checksum_of(identity, topic, payload)
        self.rows.append(
            (seq, identity, priority, size, new.received_at, new.expires_at, flags, checksum, topic, payload)
        )
        self.entries.append((Entry(seq, message.identity, priority, size), new.leased))
        self.size += size


def measure(message: Telemetry) -> int:
    """Bytes a message counts for."""
    return size_of(message.topic, message.payload, str(message.identity))


def checksum_of(identity: str, topic: str, payload: bytes) -> int:
    """SQLite has no checksums of its own: a byte that changed on disk must not go to the hub."""
    return zlib.crc32(payload, zlib.crc32(f"{identity}\n{topic}\n".encode()))


def is_whole(row: Row) -> bool:
    """The row is as it was written."""
    return checksum_of(row[1], row[8], row[9]) == row[7]


def message_of(row: Row, identity: Identity) -> StoredMessage:
    """The message of a row."""
    seq, _, priority, _, received_at, expires_at, flags, _, topic, payload = row
    telemetry = Telemetry(identity, topic, payload, 1 if flags & QOS_1 else 0, bool(flags & RETAIN))
    return StoredMessage(seq, telemetry, priority, received_at, expires_at)


def insert(database: sqlite3.Connection, rows: Rows) -> None:
    """Store them."""
    database.executemany(INSERT, rows.rows)


def delete(database: sqlite3.Connection, ranges: Sequence[tuple[int, int]]) -> None:
    """Delete everything between the ends of each range, ends included."""
    database.executemany("DELETE FROM message WHERE seq BETWEEN ? AND ?", ranges)


def read(database: sqlite3.Connection, seq: int) -> Row | None:
    """One message; None when it is not there."""
    row: Row | None = database.execute(SELECT, (seq,)).fetchone()
    return row


def size_at(database: sqlite3.Connection, seq: int) -> int:
    """What a stored message counts for; 0 when it is not there."""
    row = database.execute("SELECT size FROM message WHERE seq = ?", (seq,)).fetchone()
    return int(row[0]) if row is not None else 0


def expired(
    database: sqlite3.Connection, wall: float, limit: int, *, below: int
) -> Iterator[tuple[int, str, int, int]]:
    """Seq, identity, priority and size of what is over, the longest first; only seqs below `below`."""
    return iter(
        database.execute(
            "SELECT seq, identity, priority, size FROM message WHERE expires_at <= ? AND seq < ? "
            "ORDER BY expires_at LIMIT ?",
            (wall, below, limit),
        )
    )


def load(
    database: sqlite3.Connection, leased: frozenset[int], settled: SeqRanges, *, unanswered: range = range(0)
) -> Backlog:
    """The backlog of a file that was just opened; the leases and the settled of before still hold.

    `unanswered`: seqs that whoever wrote them still has to add. Raises ValueError for a row that nobody can have
    written: a garbage page can pass for a good one.
    """
    backlog = Backlog()
    lanes: dict[tuple[str, int], Callable[[int, int], None]] = {}
    for seq, text, priority, size in database.execute(
        "SELECT seq, identity, priority, size FROM message ORDER BY seq"
    ):
        if type(priority) is not int or type(size) is not int or type(text) is not str:
            raise ValueError(f"message {seq} has values of other kinds than were written")
        if seq in leased:
            backlog.add(Entry(seq, Identity.parse(text), priority, size), leased=True)
        elif (not len(settled) or seq not in settled) and seq not in unanswered:
            add = lanes.get((text, priority))
            if add is None:
                add = lanes[text, priority] = backlog.adder(Identity.parse(text), priority)
            add(seq, size)
    return backlog


def next_seq(database: sqlite3.Connection) -> int:
    """The first seq that was never given out."""
    row = database.execute(
        "SELECT max((SELECT value FROM note WHERE name = 'next_seq'), 1 + coalesce((SELECT max(seq) FROM message), 0))"
    ).fetchone()
    return int(row[0] or 1)


def reserve(database: sqlite3.Connection, first_free: int) -> None:
    """Everything below `first_free` counts as given out."""
    database.execute("UPDATE note SET value = ? WHERE name = 'next_seq'", (first_free,))


def probe(database: sqlite3.Connection, size: int) -> None:
    """Write `size` bytes and take them away again, each with a commit. Raises sqlite3.Error."""
    database.execute("INSERT INTO probe VALUES (zeroblob(?))", (size,))
    database.execute("DELETE FROM probe")


def as_ranges(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbours joined."""
    found: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        if found and found[-1][1] >= seq - 1:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return found
