"""The store's face on the loop, and the only thread that touches its file.

A call puts a command into a queue and returns. The thread takes all that waits, up to a bound, does it as one
transaction (`keeper`), and gives all answers back in one call into the loop: one fsync and one wake-up for as many
messages as came while the last fsync took. Callbacks run on the loop in the order of the calls.

Bytes that wait for the disk are bounded: beyond that an append is answered AT_BOUND, in its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gatewayd.errors import LocalProtocolError
from gatewayd.message import DropReason, Identity
from gatewayd.store import outbox
from gatewayd.store.commands import (
    Append,
    AppendDone,
    AskTwin,
    Command,
    Expire,
    KeepDone,
    KeepSubscriptions,
    KeepTwin,
    Lease,
    LeaseDone,
    Probe,
    Refuse,
    Release,
    Retune,
    Settle,
    TwinDone,
)
from gatewayd.store.keeper import Delivery, Keeper, Listeners
from gatewayd.store.messages import Contents, Health, NewMessage, WhenFull
from gatewayd.store.retention import Retention

THREAD_NAME = "gatewayd-store"

# One transaction takes at most this much; a commit must not keep its first message waiting for its last.
BATCH_COMMANDS = 1000
BATCH_BYTES = 1024 * 1024

# Bytes of appends that wait for the thread.
WAITING_BYTES = 64 * 1024 * 1024

# Settled messages are deleted together: a commit of one costs as much as one of forty. A crash within this time makes
# doubles at the hub of what was settled in it, never more.
GATHER_SECONDS = 0.05

# Seconds between two attempts while the disk refuses.
RETRY_SECONDS = 1.0


def _ignore(_: Contents) -> None:
    """The default of `on_contents`."""


class Store:
    """Messages, subscriptions and twins on disk. Made and used on one loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: Path,
        *,
        max_bytes: int,
        when_full: WhenFull,
        wall: Callable[[], float],
        on_health: Callable[[Health], None],
        on_dropped: Callable[[Identity, int, int, DropReason], None],
        on_contents: Callable[[Contents], None] = _ignore,
    ) -> None:
        """`on_contents` is called when the file holds other things than was told: damage found while running, or a
        disk that refused at `open` and works now."""
        self._loop = loop
        self._on_health = on_health
        self._keeper = Keeper(
            path, Retention(max_bytes, when_full), wall, Listeners(self._become, on_dropped, on_contents)
        )
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._health = Health.CLOSED
        self._messages = 0
        self._size = 0
        self._waiting_bytes = 0
        self._retry: asyncio.TimerHandle | None = None
        self._settled: list[int] = []  # not yet asked of the thread
        self._gathering: asyncio.TimerHandle | None = None

    @property
    def health(self) -> Health:
        """What an append can expect now."""
        return self._health

    @property
    def messages(self) -> int:
        """Messages stored, leased ones included."""
        return self._messages

    @property
    def size(self) -> int:
        """Bytes that count against `max_bytes`."""
        return self._size

    async def open(self) -> Contents:
        """What the file holds. Raises StoreTooNew, StoreInUse, StoreUnusable; a full or failing disk is a state."""
        opened: asyncio.Future[Contents] = self._loop.create_future()
        self._thread = threading.Thread(target=self._serve, args=(opened,), name=THREAD_NAME, daemon=True)
        self._thread.start()
        return await opened

    def append(self, messages: Sequence[NewMessage], done: AppendDone) -> None:
        """Store all of them or none. `done` gets their seqs once they are on the disk, or why nothing was stored."""
        size = sum(outbox.measure(new.message) for new in messages)
        if self._waiting_bytes + size > WAITING_BYTES:
            self._put(Refuse(done, Health.AT_BOUND))
            return
        self._waiting_bytes += size
        self._put(Append(messages, done, size))

    def lease(self, identity: Identity, limit: int, max_bytes: int, done: LeaseDone) -> None:
        """The next unleased messages, priority descending, then seq; at least one if there is any.

        A Health: they cannot be read now. `on_health` tells when it is worth asking again.
        """
        self._put(Lease(identity, limit, max_bytes, done))

    def settle(self, seqs: Sequence[int]) -> None:
        """The hub has these leased messages. They are deleted by a later commit, however long that takes."""
        self._must_be_open()
        if self._gathering is None:
            self._gathering = self._loop.call_later(GATHER_SECONDS, self._put_settled)
        self._settled.extend(seqs)

    def release(self, seqs: Sequence[int]) -> None:
        """These leased messages wait again, each at its old place."""
        self._put(Release(tuple(seqs)))

    def expire(self, wall: float) -> None:
        """Unleased messages whose time is over at `wall` go; `on_dropped` is told."""
        self._put(Expire(wall))

    def keep_subscriptions(self, identity: Identity, filters: Mapping[str, int], done: KeepDone) -> None:
        """These and no others; {} forgets. `done(False)`: not durable yet, and tried again."""
        self._put(KeepSubscriptions(identity, dict(filters), done))

    def keep_twin(self, identity: Identity, document: bytes | None) -> None:
        """The last known twin; None forgets it."""
        self._put(KeepTwin(identity, document))

    def twin(self, identity: Identity, done: TwinDone) -> None:
        """The last twin that was kept."""
        self._put(AskTwin(identity, done))

    def retune(self, *, max_bytes: int, when_full: WhenFull) -> None:
        """Other bounds from here on. What is stored already stays."""
        self._put(Retune(max_bytes, when_full))

    async def close(self) -> None:
        """Everything that was asked for is done and answered first."""
        if self._retry is not None:
            self._retry.cancel()
        thread = self._thread
        if thread is None:
            return
        self._put_settled()
        ended: asyncio.Future[None] = self._loop.create_future()
        self._ended = ended
        self._commands.put(None)
        await ended
        thread.join()
        self._thread = None
        self._health = Health.CLOSED

    def _put(self, command: Command) -> None:
        self._must_be_open()
        self._put_settled()
        self._commands.put(command)

    def _put_settled(self) -> None:
        """What the hub has goes before whatever is asked next: it makes room."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
            self._commands.put(Settle(tuple(self._settled)))
            self._settled.clear()

    def _must_be_open(self) -> None:
        if self._thread is None:
            raise LocalProtocolError("a call for a store that is not open")

    def _become(self, health: Health) -> None:
        self._health = health
        self._on_health(health)

    def _probe(self) -> None:
        self._retry = None
        self._put(Probe())

    def _deliver(self, deliveries: list[Delivery], messages: int, size: int, taken: int) -> None:
        self._messages = messages
        self._size = size
        self._waiting_bytes -= taken
        for tell, arguments in deliveries:
            try:
                tell(*arguments)
            except Exception as error:  # noqa: BLE001 - one caller's fault must not keep others from their answers
                self._loop.call_exception_handler(
                    {"message": "a callback of the store failed", "exception": error}
                )
        if self._retry is None and self._health in (Health.DISK_FULL, Health.FAILING):
            self._retry = self._loop.call_later(RETRY_SECONDS, self._probe)

    def _opened(self, opened: asyncio.Future[Contents], result: Contents | Exception) -> None:
        if isinstance(result, Exception):
            self._thread = None
            if not opened.done():
                opened.set_exception(result)
            return
        self._health = self._keeper.health
        self._deliver([], self._keeper.messages, self._keeper.size, 0)
        if not opened.done():
            opened.set_result(result)

    def _has_ended(self) -> None:
        if not self._ended.done():  # else nobody waited so long
            self._ended.set_result(None)

    # In the thread

    def _serve(self, opened: asyncio.Future[Contents]) -> None:
        # A loop that is closed means that nobody waits any more; the thread goes too.
        with contextlib.suppress(RuntimeError):
            try:
                contents = self._keeper.open()
            except Exception as error:  # noqa: BLE001 - carried to whoever waits, whatever it is
                self._loop.call_soon_threadsafe(self._opened, opened, error)
                return
            self._loop.call_soon_threadsafe(self._opened, opened, contents)
            going = True
            while going:
                batch, taken, going = self._take()
                self._post(self._run(batch), taken)
                if moved := self._keeper.empty_wal():
                    self._post(moved, 0)
            self._keeper.close()
            self._loop.call_soon_threadsafe(self._has_ended)

    def _run(self, batch: list[Command]) -> list[Delivery]:
        try:
            return self._keeper.run(batch)
        except Exception as error:  # noqa: BLE001 - a thread that ended would leave everyone waiting for ever
            self._loop.call_soon_threadsafe(
                self._loop.call_exception_handler,
                {"message": "the store failed, this is a fault of gatewayd", "exception": error},
            )
            return self._keeper.surrender(batch, error)

    def _take(self) -> tuple[list[Command], int, bool]:
        """All that waits, up to the bounds; False at the end: the store is to close."""
        batch: list[Command] = []
        taken = 0
        command = self._commands.get()
        while command is not None:
            batch.append(command)
            if isinstance(command, Append):
                taken += command.size
            if len(batch) >= BATCH_COMMANDS or taken >= BATCH_BYTES:
                return batch, taken, True
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return batch, taken, True
        return batch, taken, False

    def _post(self, deliveries: list[Delivery], taken: int) -> None:
        self._loop.call_soon_threadsafe(
            self._deliver, deliveries, self._keeper.messages, self._keeper.size, taken
        )
