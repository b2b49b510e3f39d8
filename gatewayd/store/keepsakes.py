"""What is kept for a device beside its messages: its subscriptions and the last twin. SQL, sync.

What could not be written waits here, the newest only, and goes with the next transaction: memory is bounded by the
number of devices.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from gatewayd.message import Identity


class Keepsakes:
    """Subscriptions and twins, and those of them that are not on disk yet."""

    def __init__(self) -> None:
        self._filters: dict[Identity, dict[str, int]] = {}
        self._twins: dict[Identity, bytes | None] = {}

    @property
    def waiting(self) -> bool:
        """Something is not on disk yet."""
        return bool(self._filters or self._twins)

    def subscribe(self, identity: Identity, filters: Mapping[str, int]) -> None:
        """These and no others."""
        self._filters[identity] = dict(filters)

    def twin(self, identity: Identity, document: bytes | None) -> None:
        """The last known twin; None forgets it."""
        self._twins[identity] = document

    def write(self, database: sqlite3.Connection) -> None:
        """Everything that waits, within the caller's transaction."""
        for identity, filters in self._filters.items():
            name = str(identity)
            database.execute("DELETE FROM subscription WHERE identity = ?", (name,))
            database.executemany(
                "INSERT INTO subscription VALUES (?, ?, ?)",
                [(name, one, qos) for one, qos in filters.items()],
            )
        for identity, document in self._twins.items():
            if document is None:
                database.execute("DELETE FROM twin WHERE identity = ?", (str(identity),))
            else:
                database.execute("INSERT OR REPLACE INTO twin VALUES (?, ?)", (str(identity), document))

    def written(self) -> None:
        """The transaction is durable."""
        self._filters.clear()
        self._twins.clear()

    def read_twin(self, database: sqlite3.Connection | None, identity: Identity) -> bytes | None:
        """The newest known, on disk or not yet."""
        if identity in self._twins:
            return self._twins[identity]
        if database is None:
            return None
        row = database.execute("SELECT document FROM twin WHERE identity = ?", (str(identity),)).fetchone()
        return bytes(row[0]) if row is not None else None


def subscriptions(database: sqlite3.Connection) -> dict[Identity, dict[str, int]]:
    """All of them."""
    found: dict[Identity, dict[str, int]] = {}
    for name, one, qos in database.execute(
        "SELECT identity, filter, qos FROM subscription ORDER BY identity"
    ):
        found.setdefault(Identity.parse(name), {})[one] = qos
    return found
