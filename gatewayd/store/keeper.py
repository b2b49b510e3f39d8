"""The store without its thread: batches of commands in, answers out. Sync, sqlite3, no clock.

A batch is one transaction. Its commands keep their order: what a lease sees is what the commands before it made. What
cannot fail (settle, release) happens in memory first; then everything that must be durable is written and committed;
then the answers are made, in order. A transaction that fails changes nothing but the state:

    disk full, I/O error    appends are answered with the state at once, without a touch of the disk; settled seqs,
                            subscriptions and twins are remembered, the newest only. `Probe` lets one attempt through;
                            the first that succeeds ends the state
    damage                  the file is mended (`damage`) and the batch is written again

Reads go on while writes fail.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatewayd.errors import StoreUnusable
from gatewayd.message import DropReason, Identity
from gatewayd.store import damage, keepsakes, outbox
from gatewayd.store.backlog import Backlog, Entry
from gatewayd.store.commands import (
    Append,
    AskTwin,
    Command,
    Expire,
    KeepSubscriptions,
    KeepTwin,
    Lease,
    Probe,
    Refuse,
    Release,
    Retune,
    Settle,
)
from gatewayd.store.lock import StoreLock
from gatewayd.store.messages import Contents, Health, StoredMessage
from gatewayd.store.reserve import Reserve
from gatewayd.store.retention import Retention
from gatewayd.store.schema import PAGE_SIZE, WAL_BYTES, WAL_FRAME, open_database, wal_round
from gatewayd.store.seq_ranges import SeqRanges

# A damaged page is found when it is read. To look at all of them before the first message costs a read of the file:
# up to this size that is below a second at 20 MB/s; a larger file is only read where the start needs it.
CHECKED_BYTES = 16 * 1024 * 1024

# Seqs deleted and messages expired in one transaction, each of which may change a page; the next follows at once. Must
# fit into the reserve.
DELETED_AT_ONCE = 500

# While a reader elsewhere keeps the WAL from being emptied it grows; at this size nothing is appended any more.
WAL_BOUND = 16 * WAL_BYTES

# More than the largest message (256 KiB at the hub is seldom; a usual one is below 64 KiB), so that a disk that takes
# the probe takes what comes after it.
PROBE_BYTES = 64 * 1024

# What the WAL can hold: its size, a transaction of one batch that begins just below it, and one large append. The file
# must be able to take all of it on a disk that has become full.
RESERVE_BYTES = 4 * WAL_BYTES

DISK_ERRORS = {errno.ENOSPC: Health.DISK_FULL, errno.EDQUOT: Health.DISK_FULL}
HOPELESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH)

REMEMBERED = (Settle, Release, Retune, KeepSubscriptions, KeepTwin)

Delivery = tuple[Callable[..., None], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told what no one asked for."""

    health: Callable[[Health], None]
    dropped: Callable[[Identity, int, int, DropReason], None]
    contents: Callable[[Contents], None]


@dataclass(slots=True)
class _Transaction:
    """What a batch wants to change, and what to undo when it cannot."""

    rows: outbox.Rows = field(default_factory=outbox.Rows)
    kept: dict[int, range] = field(default_factory=dict)  # place in the batch -> its part of rows
    dropped: list[tuple[Entry, DropReason]] = field(default_factory=list)
    settled: list[tuple[int, int]] = field(default_factory=list)
    reserved: int | None = None


class Keeper:
    """Owns the file, its lock and what is known of it."""

    def __init__(
        self, path: Path, retention: Retention, wall: Callable[[], float], listeners: Listeners
    ) -> None:
        self._path = path
        self._retention = retention
        self._wall = wall
        self._listeners = listeners
        self._lock: StoreLock | None = None
        self._reserve = Reserve(path, RESERVE_BYTES)
        self._database: sqlite3.Connection | None = None
        self._backlog = Backlog()
        self._settled = SeqRanges()
        self._keepsakes = keepsakes.Keepsakes()
        self._health = Health.OK
        self._trying = True
        self._expiring: float | None = None  # more is over at this time than one transaction takes
        self._next_seq = 1
        self._answered = (
            1  # seqs below are in the backlog; what a batch has written and not yet answered is not
        )
        self._reserved = 1  # seqs below are reserved on disk
        self._wal_seen = 0  # how much of the WAL's round the last checkpoint has seen
        self._wal_copied = b""  # the round that is copied whole, by its salts
        self._out: list[Delivery] = []

    @property
    def health(self) -> Health:
        return self._health

    @property
    def messages(self) -> int:
        return self._backlog.messages

    @property
    def size(self) -> int:
        return self._backlog.size

    def open(self) -> Contents:
        """Take the lock and the file. Raises StoreTooNew, StoreInUse, StoreUnusable; a failing disk is a state."""
        if self._path.exists() and not self._path.is_file():
            raise StoreUnusable(str(self._path), "it is not a file")
        try:
            self._lock = StoreLock(self._path)
        except OSError as error:
            raise StoreUnusable(str(self._path), error.strerror or str(error)) from error
        try:
            with contextlib.suppress(sqlite3.Error, OSError):
                return self._connect()
            self._reserve.give_up()  # SQLite needs a little room of its own to begin
            return self._connect()
        except (sqlite3.Error, OSError) as error:
            if _is_hopeless(error):
                self.close()
                raise StoreUnusable(str(self._path), str(error)) from error
            self._fail(error)
            return Contents()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Write what waits if the disk takes it, empty the WAL, let the lock go."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                while len(self._settled) or self._keepsakes.waiting:
                    self._commit((), set())
            self._disconnect()
        self._health = Health.CLOSED
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def run(self, batch: Sequence[Command]) -> list[Delivery]:
        """Do all of it; who is to be told what, in order."""
        self._out = []
        self._answered = self._next_seq
        # One look at each command: a batch is short of nothing but time.
        kinds = {type(command) for command in batch}
        self._trying = not self._is_failing or Probe in kinds
        if not kinds.isdisjoint(REMEMBERED):
            for command in batch:
                self._remember(command)
        if self._trying and self._database is None:
            self._try_to_connect()
        done = self._write(batch, kinds)
        with self._reading(kinds):
            for place, command in enumerate(batch):
                self._answer(place, command, done)
        self._retention.look_again(self._backlog.size)
        self._show_health()
        return self._out

    def surrender(self, batch: Sequence[Command], error: Exception) -> list[Delivery]:
        """`run` failed in a way nobody foresaw: everyone is answered, and the next probe reads the file anew."""
        self._out = []
        self._disconnect()
        self._fail(error)
        for place, command in enumerate(batch):
            self._answer(place, command, None)
        return self._out

    def empty_wal(self) -> list[Delivery]:
        """After the answers: copy the WAL into the file when it has grown to its size."""
        self._out = []
        if self._database is not None and not self._is_failing:
            try:
                self._checkpoint()
            except sqlite3.Error as error:
                self._fail(error)
        return self._out

    # What cannot fail

    def _remember(self, command: Command) -> None:
        if isinstance(command, Settle):
            self._settled.update(seq for seq in command.seqs if self._backlog.settle(seq))
        elif isinstance(command, Release):
            for seq in command.seqs:
                self._backlog.release(seq)
        elif isinstance(command, Retune):
            self._retention.retune(command.max_bytes, command.when_full)
        elif isinstance(command, KeepSubscriptions):
            self._keepsakes.subscribe(command.identity, command.filters)
        elif isinstance(command, KeepTwin):
            self._keepsakes.twin(command.identity, command.document)

    # What must be durable

    def _write(self, batch: Sequence[Command], kinds: set[type[Command]]) -> _Transaction | None:
        """What was committed; None: nothing."""
        for again in (True, False):
            if self._database is None or not self._trying:
                return None
            try:
                done = self._commit(batch, kinds)
                self._delete_the_rest()
                return done
            except (sqlite3.Error, damage.Damaged) as error:
                if not self._recovers(error, again=again):
                    return None
        return None

    def _delete_the_rest(self) -> None:
        """What one transaction did not delete. A failure here keeps it for later and takes no answer back."""
        try:
            while len(self._settled) or self._expiring is not None:
                over = () if self._expiring is None else (Expire(self._expiring),)
                self._commit(over, {Expire} if over else set())
        except sqlite3.Error as error:
            self._expiring = None
            self._fail(error)

    def _commit(self, batch: Sequence[Command], kinds: set[type[Command]]) -> _Transaction:
        wanted = _Transaction()
        needed = len(self._settled) > 0 or self._keepsakes.waiting or not kinds.isdisjoint((Append, Expire))
        if self._is_failing:
            self._try_the_disk()
        if not needed:
            self._succeed()
            return wanted
        database = self._database
        assert database is not None
        has_room = self._has_room()
        try:
            database.execute("BEGIN IMMEDIATE")
            self._settle_on_disk(database, wanted)
            for place, command in enumerate(batch):
                if isinstance(command, Append):
                    if has_room:
                        self._admit(database, place, command, wanted)
                elif isinstance(command, Expire):
                    self._expire(database, command.wall, wanted)
            self._keepsakes.write(database)
            outbox.delete(database, outbox.as_ranges(entry.seq for entry, _ in wanted.dropped))
            outbox.insert(database, wanted.rows)
            database.execute("COMMIT")
        except BaseException:
            self._backlog.restore(entry for entry, _ in wanted.dropped)
            with contextlib.suppress(sqlite3.Error):
                if database.in_transaction:
                    database.execute("ROLLBACK")
            raise
        self._settled.drop(wanted.settled)
        self._keepsakes.written()
        if wanted.reserved is not None:
            self._reserved = wanted.reserved
        self._succeed()
        self._tell_drops(wanted.dropped)
        return wanted

    def _settle_on_disk(self, database: sqlite3.Connection, wanted: _Transaction) -> None:
        wanted.settled = self._settled.first(DELETED_AT_ONCE)
        outbox.delete(database, wanted.settled)

    def _admit(self, database: sqlite3.Connection, place: int, append: Append, wanted: _Transaction) -> None:
        if not append.messages:
            wanted.kept[place] = range(0)
            return
        stored = self._backlog.size + wanted.rows.size
        if not self._retention.fits(stored + append.size):
            victims = self._retention.make_room(
                stored + append.size,
                append.size,
                min(new.priority for new in append.messages),
                self._backlog,
                lambda seq: outbox.size_at(database, seq),
            )
            if victims is None:
                return
            wanted.dropped += [(entry, DropReason.CAPACITY) for entry in victims]
        begin = len(wanted.rows.entries)
        alone = len(append.messages) == 1
        for new in append.messages:
            # Never used twice, also when this transaction fails: nobody knows what a failed fsync left on the disk.
            wanted.rows.add(self._next_seq, new, append.size if alone else outbox.measure(new.message))
            self._next_seq += 1
        wanted.kept[place] = range(begin, len(wanted.rows.entries))
        if self._next_seq > (wanted.reserved or self._reserved):
            wanted.reserved = self._next_seq + outbox.SEQ_BLOCK
            outbox.reserve(database, wanted.reserved)

    def _expire(self, database: sqlite3.Connection, wall: float, wanted: _Transaction) -> None:
        limit = DELETED_AT_ONCE + self._backlog.leased
        gone = {entry.seq for entry, _ in wanted.dropped}
        over = [
            Entry(seq, Identity.parse(text), priority, size)
            for seq, text, priority, size in outbox.expired(
                database, wall, limit + len(gone), below=self._answered
            )
            if not self._backlog.is_leased(seq) and seq not in gone
        ]
        self._expiring = wall if len(over) >= DELETED_AT_ONCE else None
        self._backlog.remove(over)
        wanted.dropped += [(entry, DropReason.TTL) for entry in over]

    def _has_room(self) -> bool:
        """What goes into the WAL finds room in the file, also when the disk becomes full now."""
        if self._reserve.hold():
            return True
        database = self._database
        assert database is not None
        free: int = database.execute("PRAGMA freelist_count").fetchone()[0]
        return free * PAGE_SIZE >= RESERVE_BYTES

    def _try_the_disk(self) -> None:
        database = self._database
        assert database is not None
        self._checkpoint(whole=True)
        outbox.probe(database, PROBE_BYTES)

    def _checkpoint(self, *, whole: bool = False) -> None:
        database = self._database
        assert database is not None
        salts, is_due = wal_round(self._path, self._wal_seen + WAL_BYTES)
        if not whole and (not is_due or salts == self._wal_copied):
            return
        busy, frames, copied = database.execute(
            f"PRAGMA wal_checkpoint({'RESTART' if whole else 'PASSIVE'})"
        ).fetchone()
        # All copied: the next commit begins a round. Otherwise somebody reads; look again one size later.
        all_copied = frames == copied and not busy
        self._wal_copied = salts if all_copied else b""
        self._wal_seen = 0 if all_copied else frames * WAL_FRAME
        if self._wal_seen >= WAL_BOUND:
            raise sqlite3.OperationalError(
                "the WAL is at its bound: another process reads the outbox for too long"
            )

    # Answers

    def _answer(self, place: int, command: Command, done: _Transaction | None) -> None:
        if isinstance(command, Append):
            self._out.append((command.done, (self._answer_append(place, done),)))
        elif isinstance(command, Lease):
            self._out.append((command.done, (self._lease(command),)))
        elif isinstance(command, Refuse):
            self._out.append((command.done, (command.health,)))
        elif isinstance(command, KeepSubscriptions):
            self._out.append((command.done, (done is not None,)))
        elif isinstance(command, AskTwin):
            self._out.append((command.done, (self._read_twin(command.identity),)))

    @contextlib.contextmanager
    def _reading(self, kinds: set[type[Command]]) -> Iterator[None]:
        """One read transaction for all reads of a batch: its locks cost more than a read."""
        database = self._database
        if database is None or kinds.isdisjoint((Lease, AskTwin)):
            yield
            return
        with contextlib.suppress(sqlite3.Error):  # whatever is wrong, the reads meet it
            database.execute("BEGIN")
        yield
        with contextlib.suppress(sqlite3.Error):  # closed when it was found damaged meanwhile
            database.execute("COMMIT")

    def _answer_append(self, place: int, done: _Transaction | None) -> tuple[int, ...] | Health:
        if done is None:
            return self._health
        if place not in done.kept:
            self._show_health()
            return self._health
        kept = done.kept[place]
        for entry, leased in done.rows.entries[kept.start : kept.stop]:
            self._backlog.add(entry, leased=leased)
            self._answered = entry.seq + 1
        return tuple([entry.seq for entry, _ in done.rows.entries[kept.start : kept.stop]])

    def _lease(self, command: Lease) -> tuple[StoredMessage, ...] | Health:
        for again in (True, False):
            found: list[StoredMessage] = []
            if self._database is None:
                break
            try:
                self._fill(command, found)
            except (sqlite3.Error, damage.Damaged) as error:
                for message in found:
                    self._backlog.release(message.seq)
                if not self._recovers(error, again=again):
                    break
            else:
                return tuple(found)
        return self._health

    def _fill(self, command: Lease, found: list[StoredMessage]) -> None:
        database = self._database
        assert database is not None
        size = 0
        while len(found) < command.limit:
            following = self._backlog.next_of(command.identity)
            if following is None:
                return
            priority, seq = following
            row = outbox.read(database, seq)
            if row is None or not outbox.is_whole(row):
                raise damage.Damaged(f"message {seq} is not as it was written")
            message = outbox.message_of(row, command.identity)
            size += message.message.size
            if found and size > command.max_bytes:
                return
            self._backlog.lease(Entry(seq, command.identity, priority, outbox.measure(message.message)))
            found.append(message)

    def _read_twin(self, identity: Identity) -> bytes | None:
        for again in (True, False):
            try:
                return self._keepsakes.read_twin(self._database, identity)
            except sqlite3.Error as error:
                if not self._recovers(error, again=again):
                    return None
        return None

    def _tell_drops(self, dropped: Sequence[tuple[Entry, DropReason]]) -> None:
        sums: dict[tuple[Identity, DropReason], list[int]] = {}
        for entry, reason in dropped:
            one = sums.setdefault((entry.identity, reason), [0, 0])
            one[0] += 1
            one[1] += entry.size
        for (identity, reason), (messages, size) in sums.items():
            self._out.append((self._listeners.dropped, (identity, messages, size, reason)))

    # The state

    @property
    def _is_failing(self) -> bool:
        return self._health in (Health.DISK_FULL, Health.FAILING)

    def _fail(self, error: BaseException) -> None:
        health = _health_after(error)
        if health is Health.DISK_FULL:
            self._reserve.give_up()
        self._become(health)

    def _succeed(self) -> None:
        """The disk took what it was given; whether it takes messages is a question of room."""
        if not self._has_room():
            self._become(Health.DISK_FULL)
        elif self._is_failing:
            self._become(Health.AT_BOUND if self._retention.at_bound else Health.OK)

    def _show_health(self) -> None:
        if not self._is_failing:
            self._become(Health.AT_BOUND if self._retention.at_bound else Health.OK)

    def _become(self, health: Health) -> None:
        if health is not self._health:
            self._health = health
            self._out.append((self._listeners.health, (health,)))

    # The file

    def _connect(self) -> Contents:
        damage.finish_move(self._path)
        salvage: damage.Salvage | None = None
        try:
            self._load()
        except (sqlite3.Error, damage.Damaged) as error:
            self._disconnect(damaged=damage.is_damage(error))
            if not damage.is_damage(error):
                raise
            salvage = damage.mend(self._path, self._wall(), next_seq=self._next_seq)
            self._load()
        return self._contents(salvage)

    def _load(self) -> None:
        if 0 < _size_of_file(self._path) <= CHECKED_BYTES:
            damage.check(self._path)
        self._database = database = open_database(self._path)
        leased = self._backlog.leases()
        unanswered = range(self._answered, self._next_seq)
        try:
            self._backlog = outbox.load(database, leased, self._settled, unanswered=unanswered)
        except ValueError as error:
            raise damage.Damaged(str(error)) from error
        self._next_seq = self._reserved = max(self._next_seq, outbox.next_seq(database))
        self._wal_seen, self._wal_copied = 0, b""
        if not self._is_failing:
            self._succeed()

    def _contents(self, salvage: damage.Salvage | None, lost: int | None = None) -> Contents:
        database = self._database
        assert database is not None
        return Contents(
            self._backlog.counts(),
            keepsakes.subscriptions(database),
            salvage.quarantined if salvage else None,
            salvage.messages if salvage else 0,
            lost if salvage else 0,
        )

    def _disconnect(self, *, damaged: bool = False) -> None:
        if self._database is None:
            return
        # The last connection that closes copies the WAL into the file. A damaged one is put aside as it is.
        aside = damage.untouched(self._path) if damaged else contextlib.nullcontext()
        with aside, contextlib.suppress(sqlite3.Error):
            self._database.close()
        self._database = None

    def _recovers(self, error: BaseException, *, again: bool) -> bool:
        """After an error in use: True when the file was damaged and is mended, so that it may be asked once more."""
        if not (again and damage.is_damage(error)):
            self._fail(error)
            return False
        self._become(Health.FAILING)
        self._disconnect(damaged=True)
        self._try_to_connect(damaged=True)
        if self._database is None:
            return False
        self._succeed()
        return True

    def _try_to_connect(self, *, damaged: bool = False) -> None:
        try:
            if damaged:
                salvage = damage.mend(self._path, self._wall(), next_seq=self._next_seq)
                known = self._backlog.messages
                self._load()
                contents = self._contents(salvage, known - self._backlog.messages)
            else:
                contents = self._connect()
        except (sqlite3.Error, OSError, damage.Damaged, StoreUnusable) as error:
            self._disconnect()
            self._fail(error)
            return
        self._out.append((self._listeners.contents, (contents,)))


def _health_after(error: BaseException) -> Health:
    if isinstance(error, OSError):
        return DISK_ERRORS.get(error.errno or 0, Health.FAILING)
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return Health.DISK_FULL if full else Health.FAILING


def _is_hopeless(error: BaseException) -> bool:
    """Waiting does not help: the path is wrong or not ours."""
    if isinstance(error, OSError):
        return error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in HOPELESS


def _size_of_file(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
