"""Parts for tests of the outbox: messages, a keeper without a thread, a store with one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatewayd.message import DropReason, Identity, Telemetry
from gatewayd.store.commands import Append, Command, Expire, KeepSubscriptions, Lease, Probe, Settle
from gatewayd.store.keeper import Keeper, Listeners
from gatewayd.store.messages import Contents, Health, NewMessage, StoredMessage, WhenFull
from gatewayd.store.outbox import measure
from gatewayd.store.retention import Retention
from gatewayd.store.store_thread import Store

WALL = 1_800_000_000.0  # 2027-01-15T08:00:00Z
PLENTY = 1 << 30
A = Identity("dev-a")
B = Identity("dev-b")
MODULE = Identity("dev-a", "mod")


def new(
    identity: Identity = A,
    payload: bytes = b"payload",
    *,
    priority: int = 0,
    expires_at: float | None = None,
    leased: bool = False,
    topic: str | None = None,
    received_at: float = WALL,
    qos: int = 1,
    retain: bool = False,
) -> NewMessage:
    """A message to store."""
    topic = topic if topic is not None else f"devices/{identity}/messages/events/n=1"
    return NewMessage(
        Telemetry(identity, topic, payload, qos, retain), priority, received_at, expires_at, leased
    )


def append(messages: Sequence[NewMessage], done: Callable[[Any], None]) -> Append:
    """The command for some messages."""
    return Append(messages, done, sum(measure(one.message) for one in messages))


def payloads(messages: Sequence[StoredMessage]) -> list[bytes]:
    return [one.message.payload for one in messages]


@dataclass
class Heard:
    """What was told without being asked."""

    health: list[Health] = field(default_factory=list)
    dropped: list[tuple[Identity, int, int, DropReason]] = field(default_factory=list)
    contents: list[Contents] = field(default_factory=list)

    def on_dropped(self, *what: Any) -> None:
        self.dropped.append(what)


class KeeperRig:
    """A keeper, and its commands as calls that answer at once."""

    def __init__(
        self, path: Path, *, max_bytes: int = PLENTY, when_full: WhenFull = WhenFull.STOP, wall: float = WALL
    ) -> None:
        self.heard = Heard()
        self.wall = wall
        listeners = Listeners(self.heard.health.append, self.heard.on_dropped, self.heard.contents.append)
        self.keeper = Keeper(path, Retention(max_bytes, when_full), lambda: self.wall, listeners)
        self.contents = self.keeper.open()

    def run(self, *commands: Command) -> None:
        for tell, arguments in self.keeper.run(commands):
            tell(*arguments)
        for tell, arguments in self.keeper.empty_wal():
            tell(*arguments)

    def ask(self, make: Callable[[Callable[[Any], None]], Command]) -> Any:
        answers: list[Any] = []
        self.run(make(answers.append))
        assert len(answers) == 1
        return answers[0]

    def append(self, *messages: NewMessage) -> Any:
        return self.ask(lambda done: append(messages, done))

    def lease(
        self, identity: Identity = A, limit: int = 1000, max_bytes: int = PLENTY
    ) -> tuple[StoredMessage, ...]:
        found: tuple[StoredMessage, ...] = self.ask(lambda done: Lease(identity, limit, max_bytes, done))
        return found

    def settle(self, *seqs: int) -> None:
        self.run(Settle(seqs))

    def expire(self, wall: float) -> None:
        self.run(Expire(wall))

    def subscribe(self, identity: Identity, filters: dict[str, int]) -> bool:
        durable: bool = self.ask(lambda done: KeepSubscriptions(identity, filters, done))
        return durable

    def probe(self) -> None:
        self.run(Probe())

    def close(self) -> None:
        self.keeper.close()


@dataclass
class StoreRig:
    """A store with its thread; calls are awaited."""

    store: Store
    heard: Heard
    contents: Contents

    async def append(self, *messages: NewMessage) -> tuple[int, ...] | Health:
        answer: tuple[int, ...] | Health = await self._ask(self.store.append, messages)
        return answer

    async def lease(
        self, identity: Identity = A, limit: int = 1000, max_bytes: int = PLENTY
    ) -> tuple[StoredMessage, ...]:
        answer: tuple[StoredMessage, ...] = await self._ask(self.store.lease, identity, limit, max_bytes)
        return answer

    async def subscribe(self, identity: Identity, filters: dict[str, int]) -> bool:
        answer: bool = await self._ask(self.store.keep_subscriptions, identity, filters)
        return answer

    async def twin(self, identity: Identity) -> bytes | None:
        answer: bytes | None = await self._ask(self.store.twin, identity)
        return answer

    async def _ask(self, call: Callable[..., None], *arguments: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call(*arguments, answer.set_result)
        async with asyncio.timeout(10):
            return await answer


async def open_store(
    path: Path, *, max_bytes: int = PLENTY, when_full: WhenFull = WhenFull.STOP, wall: float = WALL
) -> StoreRig:
    """An open store; whoever opens it closes it."""
    heard = Heard()
    store = Store(
        asyncio.get_running_loop(),
        path,
        max_bytes=max_bytes,
        when_full=when_full,
        wall=lambda: wall,
        on_health=heard.health.append,
        on_dropped=heard.on_dropped,
        on_contents=heard.contents.append,
    )
    return StoreRig(store, heard, await store.open())
