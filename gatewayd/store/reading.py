"""The outbox for people: look into it beside a running daemon, or take messages out while none runs.

Looking is read-only and in short transactions: a long one would keep the daemon from emptying its WAL. What is seen is
the file at several moments, not at one. Taking out needs the lock that a running daemon holds.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gatewayd.errors import StoreUnusable
from gatewayd.message import Identity
from gatewayd.store import outbox
from gatewayd.store.lock import StoreLock
from gatewayd.store.messages import StoredMessage
from gatewayd.store.schema import examine, open_database, open_to_read

# Rows read in one transaction.
ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Pile:
    """What is stored for one identity; `oldest` is in wall seconds."""

    identity: str
    messages: int
    size: int
    oldest: float
    top_priority: int


def piles(path: Path) -> list[Pile]:
    """Everybody for whom something is stored, by name. Raises StoreUnusable, StoreTooNew."""
    with _converted(path), contextlib.closing(_open(path)) as database:
        found: dict[str, Pile] = {}
        last = 0
        while rows := database.execute(
            "SELECT seq, identity, size, received_at, priority FROM message WHERE seq > ? ORDER BY seq LIMIT ?",
            (last, ROWS_AT_ONCE),
        ).fetchall():
            for _, identity, size, received_at, priority in rows:
                pile = found.get(identity) or Pile(identity, 0, 0, received_at, priority)
                found[identity] = Pile(
                    identity,
                    pile.messages + 1,
                    pile.size + size,
                    min(pile.oldest, received_at),
                    max(pile.top_priority, priority),
                )
            last = rows[-1][0]
        return [found[identity] for identity in sorted(found)]


def stored(path: Path, identity: Identity | None = None) -> Iterator[StoredMessage]:
    """Every stored message, or those of one identity, in the order of storing. Raises StoreUnusable, StoreTooNew."""
    wanted = str(identity) if identity is not None else None
    with _converted(path), contextlib.closing(_open(path)) as database:
        last = 0
        while rows := database.execute(
            "SELECT * FROM message WHERE seq > ? ORDER BY seq LIMIT ?", (last, ROWS_AT_ONCE)
        ).fetchall():
            for row in rows:
                if wanted is None or row[1] == wanted:
                    yield outbox.message_of(row, Identity.parse(row[1]))
            last = rows[-1][0]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages to take out: of one identity or of all, received before an instant or whenever."""

    identity: Identity | None = None
    received_before: float | None = None

    @property
    def terms(self) -> tuple[str | None, float | None]:
        """What `WHERE` takes."""
        return (str(self.identity) if self.identity is not None else None, self.received_before)


# A NULL selects all.
WHERE = "(?1 IS NULL OR identity = ?1) AND (?2 IS NULL OR received_at < ?2)"


class OwnedOutbox:
    """The outbox while no daemon has it. Raises StoreInUse when one has; StoreUnusable, StoreTooNew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        _must_exist(path)
        with _converted(path):
            self._lock = StoreLock(path)
            try:
                examine(path)
                self._database = open_database(path)
            except BaseException:
                self._lock.release()
                raise

    def count(self, selection: Selection) -> tuple[int, int]:
        """Messages and bytes of a selection."""
        with _converted(self._path):
            row = self._database.execute(
                f"SELECT count(*), coalesce(sum(size), 0) FROM message WHERE {WHERE}",  # noqa: S608 - a constant
                selection.terms,
            ).fetchone()
        return int(row[0]), int(row[1])

    def remove(self, selection: Selection) -> int:
        """Delete a selection in one transaction; how many messages it was. An emptied file gives its room back."""
        with _converted(self._path):
            gone = self._database.execute(
                f"DELETE FROM message WHERE {WHERE}",  # noqa: S608 - a constant
                selection.terms,
            ).rowcount
            if self._database.execute("SELECT NOT EXISTS (SELECT 1 FROM message)").fetchone()[0]:
                self._database.execute("VACUUM")
        return int(gone)

    def close(self) -> None:
        """Let a daemon have it."""
        self._database.close()
        self._lock.release()


def _open(path: Path) -> sqlite3.Connection:
    _must_exist(path)
    examine(path)
    return open_to_read(path)


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise StoreUnusable(str(path), "there is no such file")


@contextlib.contextmanager
def _converted(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnusable(str(path), str(error)) from error
    except OSError as error:
        raise StoreUnusable(str(path), error.strerror or str(error)) from error
