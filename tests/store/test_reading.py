"""Looking beside an owner, taking out without one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.errors import StoreInUse, StoreTooNew, StoreUnusable
from gatewayd.store import reading
from gatewayd.store.reading import OwnedOutbox, Pile, Selection, piles, stored
from gatewayd.store.schema import open_database, wal_path
from tests.support.outbox_rig import MODULE, WALL, A, B, KeeperRig, new


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def rig(path: Path) -> Iterator[KeeperRig]:
    made = KeeperRig(path)
    made.append(new(payload=b"1", priority=4), new(B, b"22", received_at=WALL - 50), new(MODULE, b"3"))
    made.append(new(payload=b"4", received_at=WALL - 100))
    yield made
    made.close()


def digests(path: Path) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, wal_path(path))]


@pytest.mark.parametrize("rows_at_once", [1, 2, 500])
def test_everything_is_seen_beside_an_owner_and_nothing_changes(
    rig: KeeperRig, path: Path, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", rows_at_once)
    before = digests(path)
    found = piles(path)
    assert [(pile.identity, pile.messages) for pile in found] == [
        ("dev-a", 2),
        ("dev-a/mod", 1),
        ("dev-b", 1),
    ]
    assert isinstance(found[0], Pile)
    assert (found[0].oldest, found[0].top_priority) == (WALL - 100, 4)
    assert sum(pile.size for pile in found) == rig.keeper.size
    assert [one.message.payload for one in stored(path)] == [b"1", b"22", b"3", b"4"]
    assert [one.message.payload for one in stored(path, A)] == [b"1", b"4"]
    assert digests(path) == before


def test_a_slow_reader_does_not_keep_the_owner_from_emptying_its_log(
    rig: KeeperRig, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", 1)
    reader = stored(path)
    next(reader)
    database = rig.keeper._database
    assert database is not None
    rig.append(new())
    busy, frames, copied = database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    assert (busy, frames) == (0, copied)
    assert len(list(reader)) == 4


def test_what_an_owner_has_is_not_taken_out(rig: KeeperRig, path: Path) -> None:
    with pytest.raises(StoreInUse):
        OwnedOutbox(path)


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        (Selection(), []),
        (Selection(A), [b"22", b"3"]),
        (Selection(received_before=WALL), [b"1", b"3"]),
        (Selection(A, WALL), [b"1", b"22", b"3"]),
        (Selection(received_before=0.0), [b"1", b"22", b"3", b"4"]),
    ],
)
def test_what_is_selected_is_counted_and_taken_out(
    rig: KeeperRig, path: Path, selection: Selection, left: list[bytes]
) -> None:
    rig.close()
    owned = OwnedOutbox(path)
    count, size = owned.count(selection)
    assert count == 4 - len(left)
    assert (size > 0) == (count > 0)
    assert owned.remove(selection) == count
    owned.close()
    assert [one.message.payload for one in stored(path)] == left
    KeeperRig(path).close()


def test_an_outbox_that_was_emptied_gives_its_room_back(rig: KeeperRig, path: Path) -> None:
    rig.append(*(new(payload=bytes(10_000)) for _ in range(100)))
    rig.subscribe(A, {"f": 1})
    rig.close()
    owned = OwnedOutbox(path)
    owned.remove(Selection())
    owned.close()
    assert path.stat().st_size < 100_000
    rig = KeeperRig(path)
    assert rig.contents.subscriptions == {A: {"f": 1}}
    rig.close()


def test_nothing_is_made_where_nothing_is(path: Path) -> None:
    for look in (piles, lambda where: list(stored(where)), OwnedOutbox):
        with pytest.raises(StoreUnusable, match="no such file"):
            look(path)
    assert list(path.parent.iterdir()) == []


def test_a_newer_or_damaged_file_is_said_and_left(path: Path) -> None:
    database = open_database(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    for look in (piles, OwnedOutbox):
        with pytest.raises(StoreTooNew):
            look(path)
    path.write_bytes(b"garbage" * 1000)
    for look in (piles, OwnedOutbox):
        with pytest.raises(StoreUnusable, match="not a database"):
            look(path)
    assert path.read_bytes() == b"garbage" * 1000
