"""The order in memory, against a list that is sorted."""

from __future__ import annotations

from array import array

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gatewayd.message import Identity
from gatewayd.store import backlog
from gatewayd.store.backlog import Backlog, Entry
from tests.support.outbox_rig import A, B

IDENTITIES = st.sampled_from((A, B, Identity("dev-c")))
CHOICE = st.randoms(use_true_random=False)


class AgainstAList(RuleBasedStateMachine):
    """Every verb, upon both."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog()
        self.waiting: list[Entry] = []
        self.leased: list[Entry] = []
        self.removed: list[Entry] = []
        self.seq = 0

    def _after(self, identity: Identity) -> Entry | None:
        own = [entry for entry in self.waiting if entry.identity == identity]
        return min(own, key=lambda entry: (-entry.priority, entry.seq), default=None)

    @rule(identity=IDENTITIES, priority=st.integers(0, 2), size=st.integers(1, 9), leased=st.booleans())
    def add(self, identity: Identity, priority: int, size: int, leased: bool) -> None:
        self.seq += 1
        entry = Entry(self.seq, identity, priority, size)
        self.backlog.add(entry, leased=leased)
        (self.leased if leased else self.waiting).append(entry)

    @rule(identity=IDENTITIES)
    def lease(self, identity: Identity) -> None:
        entry = self._after(identity)
        if entry is not None:
            self.backlog.lease(entry)
            self.waiting.remove(entry)
            self.leased.append(entry)

    @precondition(lambda self: self.leased)
    @rule(choice=CHOICE)
    def settle(self, choice: object) -> None:
        entry = choice.choice(self.leased)  # type: ignore[attr-defined]  # a Random
        assert self.backlog.settle(entry.seq)
        assert not self.backlog.settle(entry.seq)
        self.leased.remove(entry)

    @precondition(lambda self: self.leased)
    @rule(choice=CHOICE)
    def release(self, choice: object) -> None:
        entry = choice.choice(self.leased)  # type: ignore[attr-defined]  # a Random
        self.backlog.release(entry.seq)
        self.leased.remove(entry)
        self.waiting.append(entry)

    @rule(count=st.integers(1, 4), up_to=st.none() | st.integers(0, 2))
    def drop(self, count: int, up_to: int | None) -> None:
        may_go = [entry for entry in self.waiting if up_to is None or entry.priority <= up_to]
        may_go.sort(key=lambda entry: (0 if up_to is None else entry.priority, entry.seq))
        found = list(self.backlog.oldest(up_to=up_to))
        assert found == [(entry.identity, entry.priority, entry.seq) for entry in may_go]
        self._take(may_go[:count])

    @precondition(lambda self: self.waiting)
    @rule(choice=CHOICE, count=st.integers(1, 4))
    def expire(self, choice: object, count: int) -> None:
        self._take(choice.sample(self.waiting, min(count, len(self.waiting))))  # type: ignore[attr-defined]  # a Random

    def _take(self, entries: list[Entry]) -> None:
        self.backlog.remove(entries)
        self.removed = entries
        self.waiting = [entry for entry in self.waiting if entry not in entries]

    @rule()
    def restore(self) -> None:
        self.backlog.restore(self.removed)
        self.waiting += self.removed
        self.removed = []

    @invariant()
    def both_agree(self) -> None:
        everything = self.waiting + self.leased
        assert self.backlog.messages == len(everything)
        assert self.backlog.size == sum(entry.size for entry in everything)
        assert self.backlog.leased == len(self.leased)
        assert self.backlog.leases() == {entry.seq for entry in self.leased}
        counts = {count.identity: count for count in self.backlog.counts()}
        assert set(counts) == {entry.identity for entry in everything}
        for identity, count in counts.items():
            own = [entry for entry in everything if entry.identity == identity]
            assert count.messages == len(own)
            assert count.size == sum(entry.size for entry in own)
            assert count.top_priority == max(entry.priority for entry in own)
        for identity in (A, B):
            entry = self._after(identity)
            assert self.backlog.next_of(identity) == (entry and (entry.priority, entry.seq))


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_lane_gives_back_the_memory_of_what_has_gone() -> None:
    whole = Backlog()
    entries = [Entry(seq, A, 0, 1) for seq in range(1, 5 * backlog.SPENT_PLACES)]
    for entry in entries:
        whole.add(entry)
    for entry in entries[:-1]:
        whole.lease(entry)
        whole.settle(entry.seq)
    lane = whole._shelves[A].lanes[0]
    assert isinstance(lane._seqs, array)
    assert len(lane._seqs) <= 2 * backlog.SPENT_PLACES


def test_nothing_is_kept_for_an_identity_that_has_nothing() -> None:
    whole = Backlog()
    whole.add(Entry(1, A, 0, 10))
    whole.lease(Entry(1, A, 0, 10))
    whole.settle(1)
    assert whole.counts() == ()
    assert whole.size == 0
