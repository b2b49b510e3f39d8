"""A message store by hand: it answers when the test says so, and refuses when the test says so.

It keeps the contract of `store.store_thread.Store`: answers in the order of calls, leases in memory, draining order. It
keeps messages in a dict, so that a test of custody can stand between an append and its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gatewayd.message import Identity
from gatewayd.store.messages import Health, NewMessage, StoredMessage


class HandStore:
    """`answers_at_once` is the way of most tests; else `answer()` gives what waits."""

    def __init__(self, *, answers_at_once: bool = True) -> None:
        self.health = Health.OK
        self.answers_at_once = answers_at_once
        self.kept: dict[int, StoredMessage] = {}
        self.leased: set[int] = set()
        self.appends = 0
        self.leases: list[int] = []  # how many each lease gave
        self.expired_at: list[float] = []
        self._seq = 0
        self.most_leased = 1000  # what one lease gives at most
        self._waiting: list[Callable[[], Callable[[], None]]] = []  # do it; the answer is what comes of it
        self._answers: list[Callable[[], None]] = []

    def append(
        self, messages: Sequence[NewMessage], done: Callable[[tuple[int, ...] | Health], None]
    ) -> None:
        self.appends += 1

        def do() -> Callable[[], None]:
            if self.health is not Health.OK:
                return partial(done, self.health)
            seqs = []
            for new in messages:
                self._seq += 1
                seqs.append(self._seq)
                self.kept[self._seq] = StoredMessage(
                    self._seq, new.message, new.priority, new.received_at, new.expires_at
                )
                if new.leased:
                    self.leased.add(self._seq)
            return partial(done, tuple(seqs))

        self._later(do)

    def lease(
        self,
        identity: Identity,
        limit: int,
        max_bytes: int,
        done: Callable[[tuple[StoredMessage, ...] | Health], None],
    ) -> None:
        def do() -> Callable[[], None]:
            if self.health is Health.FAILING:
                return partial(done, self.health)
            order = sorted(
                (one for one in self.kept.values() if one.message.identity == identity),
                key=lambda one: (-one.priority, one.seq),
            )
            given = [one for one in order if one.seq not in self.leased][: min(limit, self.most_leased)]
            self.leased.update(one.seq for one in given)
            self.leases.append(len(given))
            return partial(done, tuple(given))

        self._later(do)

    def settle(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            assert seq in self.leased, f"{seq} is settled without a lease"
            self.leased.discard(seq)
            del self.kept[seq]

    def release(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            assert seq in self.leased, f"{seq} is released without a lease"
            self.leased.discard(seq)

    def expire(self, wall: float) -> None:
        self.expired_at.append(wall)

    def answer(self) -> None:
        """Give the answers that wait, and those to what is asked meanwhile."""
        while self._waiting or self._answers:
            self.answer_one()

    def answer_one(self) -> None:
        """Give the next answer."""
        if not self._answers:
            self.do_one()
        self._answers.pop(0)()

    def do_one(self) -> None:
        """Do what was asked next, and keep the answer."""
        self._answers.append(self._waiting.pop(0)())

    @property
    def payloads(self) -> list[bytes]:
        return [one.message.payload for one in self.kept.values()]

    def _later(self, do: Callable[[], Callable[[], None]]) -> None:
        self._waiting.append(do)
        if self.answers_at_once:
            self.answer()
