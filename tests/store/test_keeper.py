"""Batches in, answers out: order, bounds, and a disk that refuses. Virtual time, real files."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatewayd.errors import StoreInUse, StoreUnusable
from gatewayd.message import DropReason
from gatewayd.store import damage, keeper, outbox
from gatewayd.store.commands import AskTwin, Expire, KeepTwin, Lease, Probe, Refuse, Release, Retune, Settle
from gatewayd.store.messages import BacklogCount, Health, WhenFull
from gatewayd.store.outbox import measure
from gatewayd.store.schema import PAGE_SIZE, WAL_BYTES, open_to_read, wal_path
from tests.support.outbox_rig import MODULE, PLENTY, WALL, A, B, KeeperRig, append, new, payloads

ONE = measure(new().message)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def rig(path: Path) -> Iterator[KeeperRig]:
    made = KeeperRig(path)
    yield made
    made.close()


def rows(path: Path) -> list[bytes]:
    """What another process sees in the file."""
    reader = open_to_read(path)
    found = [payload for (payload,) in reader.execute("SELECT payload FROM message ORDER BY seq")]
    reader.close()
    return found


def database_of(rig: KeeperRig) -> sqlite3.Connection:
    database = rig.keeper._database
    assert database is not None
    return database


def no_room_for_more(rig: KeeperRig, pages: int = 0) -> None:
    """SQLite's own bound on the size of the file: its error is that of a full disk."""
    database = database_of(rig)
    used = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {used + pages}")


def room_again(rig: KeeperRig) -> None:
    database_of(rig).execute(f"PRAGMA max_page_count = {1 << 30}")


# Order


def test_messages_come_out_by_priority_and_then_in_order(rig: KeeperRig) -> None:
    rig.append(new(payload=b"1", priority=1), new(payload=b"2", priority=9), new(payload=b"3", priority=1))
    rig.append(new(payload=b"4", priority=9), new(B, b"other"))
    assert payloads(rig.lease()) == [b"2", b"4", b"1", b"3"]
    assert payloads(rig.lease()) == []
    assert payloads(rig.lease(B)) == [b"other"]


def test_a_lease_is_bounded_in_messages_and_bytes_and_holds_at_least_one(rig: KeeperRig) -> None:
    rig.append(*(new(payload=b"%d" % number * 100) for number in range(5)))
    assert len(rig.lease(limit=2)) == 2
    assert len(rig.lease(max_bytes=1)) == 1
    size = new(payload=bytes(100)).message.size
    assert len(rig.lease(max_bytes=2 * size)) == 2


def test_what_is_released_comes_again_at_its_place(rig: KeeperRig) -> None:
    seqs = rig.append(*(new(payload=b"%d" % number) for number in range(4)))
    rig.lease(limit=3)
    rig.run(Release((seqs[2], seqs[0])))
    assert payloads(rig.lease()) == [b"0", b"2", b"3"]


def test_what_was_stored_as_leased_is_not_given_out_until_it_is_released(rig: KeeperRig) -> None:
    seqs = rig.append(new(payload=b"sent", leased=True), new(payload=b"news"))
    assert payloads(rig.lease()) == [b"news"]
    rig.run(Release(seqs[:1]))
    assert payloads(rig.lease()) == [b"sent"]


def test_what_is_settled_is_gone_from_the_file(rig: KeeperRig, path: Path) -> None:
    seqs = rig.append(new(payload=b"1"), new(payload=b"2"))
    rig.lease(limit=1)
    rig.settle(*seqs)  # the second is not leased: it stays
    assert rows(path) == [b"2"]
    assert (rig.keeper.messages, rig.keeper.size) == (1, ONE - len("payload") + 1)


def test_one_batch_keeps_the_order_of_its_commands(rig: KeeperRig) -> None:
    told: list[tuple[str, Any]] = []

    def tell(name: str) -> Any:
        return lambda what: told.append((name, what))

    rig.run(
        Lease(A, 9, 999, tell("before")),
        append([new(payload=b"1")], tell("first")),
        Lease(A, 9, 999, tell("between")),
        Refuse(tell("refused"), Health.AT_BOUND),
        append([], tell("nothing")),
        append([new(payload=b"2")], tell("second")),
        Lease(A, 9, 999, tell("after")),
    )
    assert [name for name, _ in told] == [
        "before",
        "first",
        "between",
        "refused",
        "nothing",
        "second",
        "after",
    ]
    answers = dict(told)
    assert (answers["before"], answers["first"], answers["second"]) == ((), (1,), (2,))
    assert (payloads(answers["between"]), payloads(answers["after"])) == ([b"1"], [b"2"])
    assert (answers["refused"], answers["nothing"]) == (Health.AT_BOUND, ())


def test_a_batch_is_one_transaction(rig: KeeperRig) -> None:
    commits: list[str] = []
    database_of(rig).set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    rig.run(
        *(append([new()], print) for _ in range(0)), *(append([new()], lambda _: None) for _ in range(50))
    )
    assert commits == ["COMMIT"]


def test_a_batch_that_writes_nothing_is_no_transaction(rig: KeeperRig) -> None:
    said: list[str] = []
    database_of(rig).set_trace_callback(said.append)
    rig.run(Settle((5,)), Release((5,)), Probe(), Retune(1 << 20, WhenFull.STOP))
    assert said == []


# Restart


def test_a_restart_finds_everything_and_no_lease(rig: KeeperRig, path: Path) -> None:
    first = rig.append(new(payload=b"1", priority=2), new(MODULE, b"m"), new(payload=b"2"))
    rig.subscribe(A, {"f": 1})
    rig.run(KeepTwin(B, b"{}"))
    rig.lease()
    rig.close()
    again = KeeperRig(path)
    counts = {count.identity: count for count in again.contents.backlog}
    assert set(counts) == {A, MODULE}
    assert counts[A] == BacklogCount(A, 2, 2 * (ONE - 6), 2)
    assert again.contents.subscriptions == {A: {"f": 1}}
    assert again.ask(lambda done: AskTwin(B, done)) == b"{}"
    assert again.ask(lambda done: AskTwin(A, done)) is None
    assert payloads(again.lease()) == [b"1", b"2"]
    (seq,) = again.append(new())
    assert seq > max(first)
    again.close()


def test_a_second_owner_is_refused(rig: KeeperRig, path: Path) -> None:
    with pytest.raises(StoreInUse):
        KeeperRig(path)


@pytest.mark.parametrize("bad", ["nowhere/outbox.db", "."])
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, bad: str) -> None:
    (tmp_path / "outbox.db").mkdir()
    with pytest.raises(StoreUnusable, match=r"outbox\.db"):
        KeeperRig(tmp_path / "outbox.db" if bad == "." else tmp_path / bad)


def test_deletions_are_cut_into_small_transactions_and_all_are_done(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "DELETED_AT_ONCE", 3)
    rig = KeeperRig(path)
    seqs = rig.append(*(new() for _ in range(10)))
    rig.append(*(new(B, expires_at=WALL) for _ in range(10)))
    rig.lease()
    commits: list[str] = []
    database_of(rig).set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    rig.settle(*seqs)
    assert len(rows(path)) == 10
    assert len(commits) == 4
    rig.expire(WALL)
    assert rows(path) == []
    assert len(commits) == 8
    assert sum(messages for _, messages, _, _ in rig.heard.dropped) == 10
    rig.close()


# The bound


def test_at_the_bound_nothing_is_stored_and_the_state_is_told_until_there_is_room(path: Path) -> None:
    rig = KeeperRig(path, max_bytes=10 * ONE)
    seqs = rig.append(*(new() for _ in range(10)))
    assert rig.append(new()) is Health.AT_BOUND
    assert len(rows(path)) == 10
    assert rig.heard.health == [Health.AT_BOUND]
    rig.lease()
    rig.settle(seqs[0])
    assert rig.heard.health == [Health.AT_BOUND, Health.OK]
    assert isinstance(rig.append(new()), tuple)
    assert rig.heard.dropped == []
    rig.close()


def test_behind_a_refused_append_nothing_of_the_batch_is_stored(path: Path) -> None:
    rig = KeeperRig(path, max_bytes=10 * ONE)
    told: list[Any] = []
    rig.run(append([new(payload=bytes(20 * ONE))], told.append), append([new()], told.append))
    assert told == [Health.AT_BOUND, Health.AT_BOUND]
    assert rows(path) == []
    rig.close()


@pytest.mark.parametrize("when_full", [WhenFull.DROP_OLDEST, WhenFull.DROP_LOWEST_PRIORITY])
def test_what_must_go_goes_in_the_same_transaction_and_is_told(path: Path, when_full: WhenFull) -> None:
    rig = KeeperRig(path, max_bytes=4 * ONE, when_full=when_full)
    rig.append(new(payload=b"leased1", leased=True), new(payload=b"old--hi", priority=1))
    rig.append(new(B, payload=b"young-1"), new(B, payload=b"young-2"))
    told: list[Any] = []
    rig.run(append([new(payload=b"new---1", priority=1)], told.append))
    assert told != [Health.AT_BOUND]
    gone, whose = (b"old--hi", A) if when_full is WhenFull.DROP_OLDEST else (b"young-1", B)
    assert gone not in rows(path)
    assert len(rows(path)) == 4
    assert rig.heard.dropped == [(whose, 1, ONE, DropReason.CAPACITY)]
    assert rig.heard.health == []
    rig.close()


def test_leased_messages_are_never_dropped(path: Path) -> None:
    rig = KeeperRig(path, max_bytes=2 * ONE, when_full=WhenFull.DROP_OLDEST)
    rig.append(new(leased=True), new(leased=True))
    assert rig.append(new()) is Health.AT_BOUND
    assert rig.heard.dropped == []
    rig.close()


def test_other_bounds_hold_from_there_on(path: Path) -> None:
    rig = KeeperRig(path, max_bytes=2 * ONE)
    rig.append(new(), new())
    rig.run(Retune(3 * ONE, WhenFull.STOP))
    assert rig.append(new()) is not Health.AT_BOUND
    rig.run(Retune(1 * ONE, WhenFull.STOP))
    assert rig.append(new()) is Health.AT_BOUND
    assert len(rows(path)) == 3
    rig.close()


def test_messages_whose_time_is_over_go_unless_they_are_leased(rig: KeeperRig, path: Path) -> None:
    rig.append(
        new(payload=b"over", expires_at=WALL),
        new(payload=b"at the hub", expires_at=WALL, leased=True),
        new(payload=b"later", expires_at=WALL + 1),
        new(payload=b"never"),
        new(B, payload=b"over", expires_at=WALL - 5),
    )
    rig.expire(WALL)
    assert rows(path) == [b"at the hub", b"later", b"never"]
    size = measure(new(payload=b"over").message)
    assert sorted(rig.heard.dropped, key=str) == sorted(
        [(A, 1, size, DropReason.TTL), (B, 1, size, DropReason.TTL)], key=str
    )
    assert payloads(rig.lease()) == [b"later", b"never"]


def test_a_drop_and_an_end_in_one_batch_count_a_message_once(path: Path) -> None:
    rig = KeeperRig(path, max_bytes=2 * ONE, when_full=WhenFull.DROP_OLDEST)
    rig.append(new(expires_at=WALL), new(expires_at=WALL))
    rig.run(append([new()], lambda _: None), Expire(WALL))
    assert sorted(reason.value for *_, reason in rig.heard.dropped) == ["capacity", "ttl"]
    assert (rig.keeper.messages, len(rows(path))) == (1, 1)
    rig.close()


# A disk that refuses


def test_a_full_disk_is_a_state_that_ends_by_itself(rig: KeeperRig, path: Path) -> None:
    seqs = rig.append(new(payload=b"1"), new(payload=b"2"))
    no_room_for_more(rig)
    assert rig.append(new(payload=bytes(100_000))) is Health.DISK_FULL
    said: list[str] = []
    database_of(rig).set_trace_callback(said.append)
    assert rig.append(new()) is Health.DISK_FULL  # at once: the disk is not asked
    assert said == []
    assert payloads(rig.lease(limit=1)) == [b"1"]
    rig.settle(seqs[0])
    assert not rig.subscribe(A, {"f": 1})
    rig.run(KeepTwin(A, b"{}"))
    rig.probe()
    assert rig.heard.health == [Health.DISK_FULL]
    room_again(rig)
    rig.probe()
    assert rig.heard.health == [Health.DISK_FULL, Health.OK]
    assert rows(path) == [b"2"]
    assert isinstance(rig.append(new(payload=b"3")), tuple)
    rig.close()
    again = KeeperRig(path)
    assert again.contents.subscriptions == {A: {"f": 1}}
    assert again.ask(lambda done: AskTwin(A, done)) == b"{}"
    again.close()


def test_an_append_in_the_batch_of_the_probe_is_the_attempt(rig: KeeperRig) -> None:
    no_room_for_more(rig)
    assert rig.append(new(payload=bytes(100_000))) is Health.DISK_FULL
    room_again(rig)
    told: list[Any] = []
    rig.run(Probe(), append([new()], told.append))
    assert isinstance(told[0], tuple)
    assert rig.heard.health[-1] is Health.OK


def test_what_was_to_be_dropped_stays_when_the_transaction_fails(path: Path) -> None:
    rig = KeeperRig(path, max_bytes=102 * ONE, when_full=WhenFull.DROP_OLDEST)
    rig.append(new(payload=b"1"), new(payload=b"2"))
    no_room_for_more(rig)
    assert rig.append(new(payload=bytes(101 * ONE - 100))) is Health.DISK_FULL
    assert rig.heard.dropped == []
    assert payloads(rig.lease()) == [b"1", b"2"]
    room_again(rig)
    rig.close()


def test_what_is_settled_while_the_disk_is_full_takes_little_memory(rig: KeeperRig, path: Path) -> None:
    rig.append(*(new() for _ in range(5000)))
    no_room_for_more(rig)
    assert rig.append(new(payload=bytes(100_000))) is Health.DISK_FULL
    while found := rig.lease(limit=100):
        rig.settle(*(one.seq for one in found))
    assert len(rig.keeper._settled) == 1
    assert rig.keeper.messages == 0
    room_again(rig)
    rig.probe()
    assert rows(path) == []


def test_seqs_of_a_transaction_that_failed_are_not_used_again(rig: KeeperRig) -> None:
    (before,) = rig.append(new())
    no_room_for_more(rig)
    rig.append(new(payload=bytes(100_000)))
    room_again(rig)
    rig.probe()
    (after,) = rig.append(new())
    assert after > before + 1


def test_a_disk_that_fails_otherwise_is_failing(rig: KeeperRig, monkeypatch: pytest.MonkeyPatch) -> None:
    database_of(rig).execute("PRAGMA query_only = ON")  # SQLITE_READONLY, as after a remount
    assert rig.append(new()) is Health.FAILING
    rig.probe()
    database_of(rig).execute("PRAGMA query_only = OFF")
    rig.probe()
    assert rig.heard.health == [Health.FAILING, Health.OK]


def test_damage_found_while_running_is_mended_without_a_restart(rig: KeeperRig, path: Path) -> None:
    rig.append(*(new(payload=b"%04d" % number * 64) for number in range(200)))
    database_of(rig).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    leased = rig.lease(limit=3)
    reader = open_to_read(path)
    page = reader.execute(
        "SELECT pageno FROM dbstat WHERE name = 'message' AND pagetype = 'leaf' ORDER BY pageno LIMIT 1 OFFSET 8"
    ).fetchone()[0]
    reader.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_SIZE)
        file.write(os.urandom(PAGE_SIZE))
    database_of(rig).execute("PRAGMA shrink_memory")
    found = [int(payload[:4]) for payload in payloads(rig.lease())]
    assert found == sorted(set(found))
    assert 160 <= len(found) < 197
    assert rig.heard.health == [Health.FAILING, Health.OK]
    (contents,) = rig.heard.contents
    assert contents.quarantined is not None
    assert (contents.salvaged, contents.lost) == (len(found) + 3, 197 - len(found))
    rig.settle(*(one.seq for one in leased))
    assert rig.keeper.messages == len(found)
    assert isinstance(rig.append(new()), tuple)


def test_an_append_that_meets_damage_is_stored_in_the_fresh_file(rig: KeeperRig, path: Path) -> None:
    rig.append(*(new(payload=b"%04d" % number * 64) for number in range(200)))
    database_of(rig).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
    database_of(rig).execute("PRAGMA shrink_memory")
    (seq,) = rig.append(new(payload=b"after"))
    assert rows(path) == [b"after"]
    assert seq > 200
    assert rig.heard.contents[0].lost == 200
    assert rig.heard.health == [Health.FAILING, Health.OK]


def test_mending_without_room_is_tried_again(
    rig: KeeperRig, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.append(new(payload=b"1"))
    real = outbox.is_whole
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def no_room(*_: object, **__: object) -> None:
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "is_whole", lambda _: False)
        patched.setattr(damage, "mend", no_room)
        assert rig.ask(lambda done: Lease(A, 1, PLENTY, done)) is Health.DISK_FULL
        assert rig.heard.health == [Health.FAILING, Health.DISK_FULL]
        assert rig.append(new()) is Health.DISK_FULL
    assert outbox.is_whole is real
    rig.probe()
    assert rig.heard.health[-1] is Health.OK
    assert payloads(rig.lease()) == [b"1"]


def test_a_disk_that_refuses_at_the_start_is_a_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = KeeperRig(path)
    rig.append(new(payload=b"1"))
    rig.close()
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def no_room(_: Path) -> None:
        raise full

    with monkeypatch.context() as patched:
        patched.setattr(keeper, "open_database", no_room)
        rig = KeeperRig(path)
        assert rig.contents.backlog == ()
        assert rig.keeper.health is Health.DISK_FULL
        assert rig.append(new()) is Health.DISK_FULL
    rig.probe()
    assert [one.backlog[0].messages for one in rig.heard.contents] == [1]
    assert payloads(rig.lease()) == [b"1"]
    rig.close()


# The log


def test_the_log_on_disk_stays_at_its_size(rig: KeeperRig, path: Path) -> None:
    largest = 0
    for _ in range(60):
        seqs = rig.append(*(new(payload=bytes(50_000)) for _ in range(10)))
        rig.lease()
        rig.settle(*seqs)
        largest = max(largest, wal_path(path).stat().st_size)
    assert largest < 2 * WAL_BYTES
    assert path.stat().st_size < 2 * WAL_BYTES  # free pages are used again


def test_a_reader_that_stays_makes_a_state_of_it_and_not_a_full_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "WAL_BOUND", 2 * WAL_BYTES)
    rig = KeeperRig(path)
    rig.append(new())
    reader = open_to_read(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM message").fetchone()
    answers = [rig.append(new(payload=bytes(1_000_000))) for _ in range(20)]
    assert answers[-1] is Health.FAILING
    assert wal_path(path).stat().st_size < 4 * WAL_BYTES
    reader.execute("COMMIT")
    reader.close()
    rig.probe()
    assert isinstance(rig.append(new()), tuple)
    rig.close()


def test_the_log_is_copied_when_it_has_grown_and_not_at_every_commit(rig: KeeperRig, path: Path) -> None:
    for _ in range(600):
        rig.append(new(payload=bytes(4000)))
        rig.keeper.empty_wal()
    rounds = int.from_bytes(wal_path(path).read_bytes()[12:16], "big")
    # A commit of such a message writes two or three pages.
    assert 2 <= rounds <= 600 * 4 * PAGE_SIZE // WAL_BYTES + 1
    assert wal_path(path).stat().st_size < 2 * WAL_BYTES


def test_what_is_stored_while_much_expires_is_answered_before_it_may_expire(rig: KeeperRig) -> None:
    rig.append(*[new(expires_at=WALL + 1) for _ in range(keeper.DELETED_AT_ONCE + 100)])
    answers: list[Any] = []
    late = [new(B, expires_at=WALL + 1), new(B, expires_at=WALL + 1, leased=True)]
    rig.run(append(late, answers.append), Expire(WALL + 5))
    ((first, second),) = answers
    assert rig.heard.dropped == [
        (A, keeper.DELETED_AT_ONCE, keeper.DELETED_AT_ONCE * ONE, DropReason.TTL),
        (A, 100, 100 * ONE, DropReason.TTL),
    ]
    assert [one.seq for one in rig.lease(B)] == [first]
    rig.settle(first, second)
    assert (rig.keeper.messages, rig.keeper.size) == (0, 0)


def test_damage_found_by_a_lease_counts_what_the_same_batch_stores_once(rig: KeeperRig, path: Path) -> None:
    rig.append(new(payload=b"bad"), new(payload=b"good"))
    with sqlite3.connect(path) as other:
        other.execute("UPDATE message SET payload = x'00' WHERE seq = 1")
    leases: list[Any] = []
    answers: list[Any] = []
    rig.run(
        append([new(B, b"before")], answers.append),
        Lease(A, 10, PLENTY, leases.append),
        append([new(B, b"after"), new(B, b"sent", leased=True)], answers.append),
    )
    assert payloads(leases[0]) == [b"good"]
    (contents,) = rig.heard.contents
    assert {one.identity: one.messages for one in contents.backlog} == {A: 1, B: 1}
    assert contents.lost == 1
    assert payloads(rig.lease(B)) == [b"before", b"after"]
    assert rig.keeper.messages == 4
    rig.settle(*(seq for seqs in answers for seq in seqs))
    assert rig.keeper.messages == 1
