"""What the hub does not take goes to disk, and from there to the hub when it takes messages again.

*Spill*: a message that waited `spill_after` for the hub, or whose hub session is down, is appended to the outbox with
everything of its device that came before it. Once it is on disk its receipt is due. With the hub reachable nothing
touches the disk.

*Drain*: stored messages are leased a few at a time, handed to the hub session and settled when the hub acknowledges
them. What is stored of a device comes before anything new of it. All devices take turns, higher priorities first, at
the pace that the hub's send throttle leaves.

Promises (*custody*, *bounded*): no receipt before the outbox has said that the message is on disk; no message leaves
the outbox before the hub has it, or a written rule drops it; what is leased stays near `LEASED_BYTES`. When the outbox
cannot take a message, the device keeps it: it gets no receipt, and the next look tries again.

Not here: how messages are stored (store/), and when a hub session is opened for them (hub_sessions).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from gatewayd.clock import Clock
from gatewayd.flow.backlog import Lease
from gatewayd.flow.in_flight import Held, Stage
from gatewayd.flow.lane import HubLink, Lane
from gatewayd.flow.send_pace import SendPace
from gatewayd.flow.storing_rules import StoringRules
from gatewayd.message import DropReason, Identity
from gatewayd.metrics import Metrics
from gatewayd.store.messages import Health, NewMessage, StoredMessage
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel

# A look at who has waited too long, as a share of `spill_after`: a message is stored at most this much later.
LOOK_SHARE: Final = 0.1
# What is read from disk at once for one device: a window of messages, and no more than one large one.
LEASE_MESSAGES: Final = 16
LEASE_LOW: Final = 4
LEASE_BYTES: Final = 64 << 10
# What all devices together may have read from disk and not seen acknowledged. A device that has nothing leased gets one
# message all the same: those whose hub sessions stand still must not stop the others.
LEASED_BYTES: Final = 8 << 20
# One append is one part of a transaction: small enough that a full disk or a bound refuses little at a time.
APPEND_MESSAGES: Final = 256
APPEND_BYTES: Final = 1 << 20
# How often stored messages are looked through for those whose time is over.
EXPIRE_SECONDS: Final = 30.0


class Lanes(Protocol):
    """What custody needs of those who move messages; `dispatch.Dispatch` is the one."""

    def __iter__(self) -> Iterator[Lane]: ...

    def lane(self, identity: Identity) -> Lane: ...

    def find(self, identity: Identity) -> Lane | None: ...

    def pump(self, lane: Lane) -> None: ...

    def hand_over(self, lane: Lane, hub: HubLink, message: StoredMessage) -> None: ...

    def stored(self, lane: Lane, held: Held) -> Stage: ...

    def in_custody(self, lane: Lane) -> None: ...


class MessageStore(Protocol):
    """What custody needs of the outbox; `store.store_thread.Store` is the one. Callbacks come on the loop."""

    @property
    def health(self) -> Health: ...

    def append(
        self, messages: Sequence[NewMessage], done: Callable[[tuple[int, ...] | Health], None]
    ) -> None: ...

    def lease(
        self,
        identity: Identity,
        limit: int,
        max_bytes: int,
        done: Callable[[tuple[StoredMessage, ...] | Health], None],
    ) -> None: ...

    def settle(self, seqs: Sequence[int]) -> None: ...

    def release(self, seqs: Sequence[int]) -> None: ...

    def expire(self, wall: float) -> None: ...


@dataclass(frozen=True, slots=True)
class CustodyPolicy:
    """What the operator decides. Seconds; replaced whole on a reload."""

    spill_after: float = 5.0
    sends_per_second: int = 100
    store_qos0: bool = False
    rules: StoringRules = field(default_factory=StoringRules)


class Custody:
    """The outbox, as the lanes see it."""

    def __init__(
        self,
        dispatch: Lanes,
        store: MessageStore,
        policy: CustodyPolicy,
        *,
        clock: Clock,
        clock_trusted: Callable[[], bool],
        wheel: DeadlineWheel,
        soon: Callable[[Callable[[], None]], object],
        metrics: Metrics,
    ) -> None:
        """`soon` calls a function in a moment; what is to be spilled until then goes together."""
        self._dispatch = dispatch
        self._store = store
        self._policy = policy
        self._clock = clock
        self._clock_trusted = clock_trusted
        self._wheel = wheel
        self._soon = soon
        self._metrics = metrics
        self._pace = SendPace(policy.sends_per_second, clock.monotonic())
        self._waiting: set[Lane] = set()  # hold something that may have to be stored
        self._look = Deadline(self._looked)
        self._look_is_set = False
        self._spilling: dict[Lane, None] = {}  # in a moment
        self._order: list[tuple[int, int, Lane]] = []  # who drains next: a heap of (-priority, turn, lane)
        self._turns = itertools.count()
        self._next_send = Deadline(self._drain)
        self._leased_bytes = 0
        self._expire_at = 0.0
        self._in_drain = False
        self._stops = False
        self._stored = metrics.messages.labels("device_to_cloud", "stored")

    # What the daemon asks

    @property
    def policy(self) -> CustodyPolicy:
        return self._policy

    def retune(self, policy: CustodyPolicy) -> None:
        """Put another policy in force; what is stored already keeps its priority and its time to live."""
        self._policy = policy
        self._pace.retune(policy.sends_per_second)
        now = self._clock.monotonic()
        if self._look_is_set:
            self._wheel.set(self._look, now + policy.spill_after * LOOK_SHARE)
        self._drain(now)

    def restore(self, identity: Identity, messages: int, top_priority: int) -> None:
        """What an earlier run left of a device."""
        self._dispatch.lane(identity).backlog.restore(messages, top_priority)

    def dropped(self, identity: Identity, messages: int, _size: int, reason: DropReason) -> None:
        """The outbox dropped stored messages of a device by a written rule."""
        self._metrics.messages_dropped.labels(reason.value).inc(messages)
        lane = self._dispatch.find(identity)
        if lane is not None:  # else of a device that nobody knows any more
            lane.backlog.dropped(messages)
            self._dispatch.pump(lane)

    def tick(self) -> None:
        """About once a second: drop what is too old. With a clock known wrong nothing is too old."""
        now = self._clock.monotonic()
        if now >= self._expire_at and self._clock_trusted():
            self._expire_at = now + EXPIRE_SECONDS
            self._store.expire(self._clock.wall())

    def spill_all(self) -> None:
        """Store whatever is held: the daemon stops."""
        self._stops = True
        for lane in self._dispatch:
            if not lane.in_flight.is_settled:
                self._spilling[lane] = None
        self._spill()

    def store_is_well(self) -> None:
        """The outbox works again: those who got nothing from it ask anew."""
        for lane in tuple(self._dispatch):  # a turn may end in a lane that is forgotten
            self.turn(lane)

    # Spill

    def priority(self, topic: str) -> int:
        """The priority a message would be stored with."""
        return self._policy.rules.of(topic).priority

    def watch(self, lane: Lane) -> None:
        """`lane` holds something that is not in custody."""
        if lane.hub_is_down:
            self._spill_soon(lane)
        self._look_at(lane)

    def _look_at(self, lane: Lane) -> None:
        self._waiting.add(lane)
        if not self._look_is_set:
            self._look_is_set = True
            self._wheel.set(self._look, self._clock.monotonic() + self._policy.spill_after * LOOK_SHARE)

    def hub_went_down(self, lane: Lane) -> None:
        """There is no hub session, and none is about to be: what waits for it waits no longer.

        What the outbox leased and the session never had goes back. What it had it will send again.
        """
        self._give_back(lane.backlog.give_back_ready())
        if not lane.in_flight.is_settled:
            self._look_at(lane)
            self._spill_soon(lane)

    def _spill_soon(self, lane: Lane) -> None:
        # A store that refuses is tried by the next look, once for all.
        if self._store.health is Health.OK:
            if not self._spilling:
                self._soon(self._spill)
            self._spilling[lane] = None

    def _looked(self, now: float) -> None:
        """Spill those who have waited too long, forget those who wait no more."""
        if self._store.health is Health.CLOSED:
            return  # the daemon is at its end: what is left is the devices'
        late = now - self._policy.spill_after
        healthy = self._store.health is Health.OK
        for lane in tuple(self._waiting):
            since = lane.in_flight.waits_since()
            if since is None:
                if lane.in_flight.is_settled:
                    self._waiting.discard(lane)
            elif (since <= late or lane.hub_is_down) and (healthy or not self._spilling):
                self._spilling[lane] = None
        self._spill()
        self._look_is_set = bool(self._waiting)
        if self._look_is_set:
            self._wheel.set(self._look, now + self._policy.spill_after * LOOK_SHARE)

    def _spill(self) -> None:
        batch: list[tuple[Lane, Held]] = []
        size = 0
        lanes, self._spilling = self._spilling, {}
        for lane in lanes:
            share = lane.in_flight.to_store(
                qos0=self._policy.store_qos0, max_messages=APPEND_MESSAGES, max_bytes=APPEND_BYTES
            )
            adding = sum(held.message.size for held in share)
            # What one append takes of a lane is refused or stored as one.
            if batch and (len(batch) + len(share) > APPEND_MESSAGES or size + adding > APPEND_BYTES):
                self._append(batch)
                batch, size = [], 0
            batch += [(lane, held) for held in share]
            size += adding
        if batch:
            self._append(batch)

    def _append(self, batch: list[tuple[Lane, Held]]) -> None:
        wall, now, of = self._clock.wall(), self._clock.monotonic(), self._policy.rules.of
        trusted = self._clock_trusted()
        messages, leased = [], []
        for _, held in batch:
            storing = of(held.message.topic)
            received = wall - (now - held.received_at)
            # By a clock that is known wrong no end can be told: once it is right all would be over.
            expires = None if storing.ttl is None or not trusted else received + storing.ttl
            is_leased = held.stage is Stage.SENT
            leased.append(is_leased)
            messages.append(NewMessage(held.message, storing.priority, received, expires, is_leased))

        def done(answer: tuple[int, ...] | Health) -> None:
            if isinstance(answer, Health):
                for lane, held in batch:
                    lane.in_flight.not_stored(held)
                for lane in dict.fromkeys(lane for lane, _ in batch):
                    if not lane.in_flight.is_settled:
                        self._look_at(lane)
                    self._dispatch.pump(lane)
                return
            self._stored.inc(len(batch))
            for (lane, held), message, seq, was_leased in zip(batch, messages, answer, leased, strict=True):
                self._is_stored(lane, held, message.priority, seq, was_leased)
            for lane in dict.fromkeys(lane for lane, _ in batch):
                self._dispatch.in_custody(lane)
                self.turn(lane)
                if (self._stops or lane.hub_is_down) and lane.in_flight.waits_since() is not None:
                    self._spill_soon(lane)  # what came meanwhile

        self._store.append(messages, done)

    def _is_stored(self, lane: Lane, held: Held, priority: int, seq: int, was_leased: bool) -> None:
        size = held.message.size
        was = self._dispatch.stored(lane, held)
        if was is Stage.AT_HUB:
            self._store.settle((seq,))
        elif was is Stage.SENT:
            self._leased_bytes += size
            lane.backlog.under_way(held.handle, Lease(seq, size, priority))
        else:
            if was_leased:  # its hub session was forgotten meanwhile
                self._store.release((seq,))
                lane.backlog.came_back(priority)
            else:
                lane.backlog.add(priority)

    # Drain

    def turn(self, lane: Lane) -> None:
        """Something changed for `lane`: messages were stored or leased, or its hub session takes messages."""
        backlog, hub = lane.backlog, lane.hub
        if backlog.queued or hub is None or not backlog.waits:
            return
        if backlog.ready and hub.can_publish:
            backlog.queued = True
            heapq.heappush(self._order, (-backlog.top_priority, next(self._turns), lane))
            self._drain(self._clock.monotonic())
        elif not backlog.ready and not lane.hub_is_down:
            self._refill(lane)

    def sent_live(self) -> None:
        """A device's own message went to the hub: it counts against the throttle while the outbox drains."""
        if self._order:
            self._pace.sent(self._clock.monotonic())

    def acknowledged(self, lane: Lane, handle: int) -> bool:
        """The hub took what it was sent under `handle`; False when that is no stored message."""
        lease = lane.backlog.acknowledged(handle)
        if lease is None:
            return False
        self._store.settle((lease.seq,))
        self._leased_bytes -= lease.size
        return True

    def gone(self, message: StoredMessage) -> None:
        """A stored message with QoS 0 was handed over, which is all that can be done for it."""
        self._store.settle((message.seq,))
        self._leased_bytes -= message.message.size

    def hub_forgot(self, lane: Lane) -> None:
        """The hub session is gone with its memory: what it had of the outbox is stored again."""
        self._give_back(lane.backlog.give_back())

    def _give_back(self, leases: tuple[Lease, ...]) -> None:
        if leases:
            self._store.release(tuple(lease.seq for lease in leases))
            self._leased_bytes -= sum(lease.size for lease in leases)

    def _refill(self, lane: Lane) -> None:
        backlog = lane.backlog
        if backlog.asking or not backlog.stored:
            return
        limit = LEASE_MESSAGES
        if self._leased_bytes >= LEASED_BYTES:
            if backlog.has_leases:
                return  # the next acknowledgement asks again
            limit = 1
        backlog.asking = True

        def done(messages: tuple[StoredMessage, ...] | Health) -> None:
            if isinstance(messages, Health):
                backlog.not_leased()  # what is stored still comes first: asked again when the outbox is well
                return
            self._leased_bytes += sum(one.message.size for one in messages)
            self._give_back(backlog.leased(messages))
            if lane.hub is None or lane.hub_is_down:
                self._give_back(backlog.give_back_ready())
            self._dispatch.pump(lane)

        self._store.lease(lane.identity, limit, LEASE_BYTES, done)

    def _drain(self, now: float) -> None:
        """Hand over as many stored messages as the pace allows, one device after another."""
        if self._in_drain:  # publishing may end in a turn of another lane
            return
        self._in_drain = True
        try:
            while self._order:
                lane = self._order[0][2]
                hub, backlog = lane.hub, lane.backlog
                message = backlog.next()
                if hub is None or message is None or not hub.can_publish:
                    heapq.heappop(self._order)
                    backlog.queued = False
                elif not self._pace.take(now):
                    self._wheel.set(self._next_send, self._pace.next(now))
                    return
                else:
                    heapq.heapreplace(self._order, (-backlog.top_priority, next(self._turns), lane))
                    self._dispatch.hand_over(lane, hub, message)
                    if not backlog.waits:
                        self._dispatch.pump(lane)
                if backlog.ready <= LEASE_LOW and not lane.hub_is_down:
                    self._refill(lane)
        finally:
            self._in_drain = False
