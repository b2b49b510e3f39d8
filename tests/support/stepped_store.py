"""A store whose thread is stepped by hand: what it did and what the loop has heard of it are two instants.

`work` does what was asked, up to so many commands, as one batch; the answers wait until `deliver`. Between the two the
loop goes on asking, as it does beside the real thread. `StepsByHand` keeps messages in a dict; `StepsOfTheKeeper` lets
the real `Keeper` do the work on a real file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gatewayd.message import DropReason, Identity
from gatewayd.store.commands import Append, Command, Expire, Lease, Release, Settle
from gatewayd.store.keeper import Keeper, Listeners
from gatewayd.store.messages import Contents, Health, NewMessage, StoredMessage, WhenFull
from gatewayd.store.outbox import measure, message_of
from gatewayd.store.retention import Retention

Delivery = Callable[[], object]


class SteppedStore:
    """What both have: the queue of commands, and the answers on their way."""

    def __init__(self) -> None:
        self.health = Health.OK  # as the loop knows it
        self.on_dropped: Callable[[Identity, int, int, DropReason], None] = lambda *_: None
        self.on_health: Callable[[Health], None] = lambda _: None
        self.kept: dict[int, StoredMessage] = {}  # on disk, at this instant
        self.leased: set[int] = set()
        self.dropped: list[StoredMessage] = []  # by a rule
        self.commands: list[Command] = []
        self.deliveries: list[Delivery] = []

    def append(
        self, messages: Sequence[NewMessage], done: Callable[[tuple[int, ...] | Health], None]
    ) -> None:
        self.commands.append(Append(messages, done, sum(measure(new.message) for new in messages)))

    def lease(
        self,
        identity: Identity,
        limit: int,
        max_bytes: int,
        done: Callable[[tuple[StoredMessage, ...] | Health], None],
    ) -> None:
        self.commands.append(Lease(identity, limit, max_bytes, done))

    def settle(self, seqs: Sequence[int]) -> None:
        self.commands.append(Settle(tuple(seqs)))

    def release(self, seqs: Sequence[int]) -> None:
        self.commands.append(Release(tuple(seqs)))

    def expire(self, wall: float) -> None:
        self.commands.append(Expire(wall))

    def work(self, most: int = 1000) -> None:
        """The thread takes up to so many commands and does them."""
        batch, self.commands = self.commands[:most], self.commands[most:]
        if batch:
            self.do(batch)

    def deliver(self) -> None:
        """The loop hears the answers."""
        deliveries, self.deliveries = self.deliveries, []
        for tell in deliveries:
            tell()

    @property
    def is_idle(self) -> bool:
        return not self.commands and not self.deliveries

    def do(self, batch: Sequence[Command]) -> None:
        raise NotImplementedError

    def say_health(self, health: Health) -> None:
        self.health = health
        self.on_health(health)


class StepsByHand(SteppedStore):
    """Refuses while `disk` is not OK; drops what it is told to drop."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Health.OK
        self._seq = 0

    def turn_disk(self, disk: Health) -> None:
        """The disk does something else from now on; the loop hears it in its turn."""
        if disk is not self.disk:
            self.disk = disk
            self.deliveries.append(partial(self.say_health, disk))

    def drop_one(self, place: int, reason: DropReason) -> None:
        """A written rule takes one unleased message."""
        free = [seq for seq in self.kept if seq not in self.leased]
        if free:
            message = self.kept.pop(free[place % len(free)])
            self.dropped.append(message)
            self.deliveries.append(
                partial(self.on_dropped, message.message.identity, 1, message.message.size, reason)
            )

    def do(self, batch: Sequence[Command]) -> None:
        for command in batch:
            if isinstance(command, Settle | Release):
                for seq in command.seqs:
                    assert seq in self.leased, f"{seq} is given back or settled without a lease"
                    self.leased.discard(seq)
                    if isinstance(command, Settle):
                        del self.kept[seq]
        for command in batch:
            if isinstance(command, Append):
                self.deliveries.append(partial(command.done, self._append(command)))
            elif isinstance(command, Lease):
                self.deliveries.append(partial(command.done, self._lease(command)))

    def _append(self, command: Append) -> tuple[int, ...] | Health:
        if self.disk is not Health.OK:
            return self.disk
        seqs = []
        for new in command.messages:
            self._seq += 1
            seqs.append(self._seq)
            self.kept[self._seq] = StoredMessage(
                self._seq, new.message, new.priority, new.received_at, new.expires_at
            )
            if new.leased:
                self.leased.add(self._seq)
        return tuple(seqs)

    def _lease(self, command: Lease) -> tuple[StoredMessage, ...] | Health:
        if self.disk is Health.FAILING:
            return self.disk
        free = sorted(
            (
                one
                for one in self.kept.values()
                if one.message.identity == command.identity and one.seq not in self.leased
            ),
            key=lambda one: (-one.priority, one.seq),
        )
        given = tuple(free[: command.limit])
        self.leased.update(one.seq for one in given)
        return given


class StepsOfTheKeeper(SteppedStore):
    """The real keeper on a real file, in steps."""

    def __init__(
        self, path: Path, *, wall: Callable[[], float], max_bytes: int, when_full: WhenFull = WhenFull.STOP
    ) -> None:
        super().__init__()
        listeners = Listeners(self._hear_health, self._hear_dropped, self._hear_contents)
        self.keeper = Keeper(path, Retention(max_bytes, when_full), wall, listeners)
        self.keeper.open()
        self._settled: set[int] = set()

    def _hear_health(self, health: Health) -> None:
        self.say_health(health)

    def _hear_dropped(self, *what: Any) -> None:
        self.on_dropped(*what)

    def _hear_contents(self, contents: Contents) -> None:
        raise AssertionError(f"nothing damages this file: {contents}")

    def do(self, batch: Sequence[Command]) -> None:
        for command in batch:
            if isinstance(command, Settle):
                self._settled.update(command.seqs)
        self.deliveries += [partial(tell, *arguments) for tell, arguments in self.keeper.run(batch)]
        self.deliveries += [partial(tell, *arguments) for tell, arguments in self.keeper.empty_wal()]
        before, database = self.kept, self.keeper._database
        assert database is not None
        rows = database.execute("SELECT * FROM message")
        self.kept = {row[0]: message_of(row, Identity.parse(row[1])) for row in rows}
        gone = before.keys() - self.kept.keys() - self._settled
        self.dropped += [before[seq] for seq in sorted(gone)]

    def close(self) -> None:
        self.keeper.close()
