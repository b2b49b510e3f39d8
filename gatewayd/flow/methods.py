"""Direct methods: calls from the hub to the device, replies from the device to the hub.

A call goes to a device that is present and subscribed, at once or not at all: to others the hub itself answers 404103,
because their subscription is withdrawn, and what comes in that race is dropped. A reply goes to the hub while somebody
there waits for it. During a handover it waits here, bounded. When the hub connection is lost, the calls that came over
it are lost with it: the next connection may give their request ids to other calls, and a reply must not answer a call
that it does not belong to.

Every call is counted once, by its end; every reply that is dropped, with its reason. A device that leaves keeps its
calls: an SDK answers after its reconnect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gatewayd.clock import Clock
from gatewayd.flow.method_calls import MethodCalls, Repeated, TooMany
from gatewayd.flow.ways import Reach, Ways
from gatewayd.message import DropReason, Identity
from gatewayd.metrics import Metrics
from gatewayd.protocol.iothub.operations import METHODS_PREFIX, Topic, method_call_topic, method_reply_topic
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel

METHODS_FILTER: Final = f"{METHODS_PREFIX}#"

# responseTimeoutInSeconds of a method call is at most 300 ("Understand and invoke direct methods", Microsoft): nobody
# at the hub waits longer.
CALL_SECONDS: Final = 300.0
MAX_CALLS: Final = 64
# Replies that wait for a handover, of all devices together. A reply has at most 128 KiB.
MAX_WAITING_BYTES: Final = 16 << 20

_TOO_MANY_STATUS: Final = 429
_TOO_MANY_BODY: Final = b'{"message":"gatewayd: too many calls wait for this device"}'


class HubPublish(Protocol):
    """What of a hub message is needed here."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def qos(self) -> int: ...
    @property
    def dup(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Reply:
    topic: str
    payload: bytes
    deadline: float

    def __repr__(self) -> str:
        return f"_Reply({len(self.payload)} bytes)"


class _Desk:
    """One device: its open calls, and its replies that wait for the hub."""

    __slots__ = ("calls", "deadline", "waiting")

    def __init__(self, on_due: Callable[[_Desk, float], None]) -> None:
        self.calls = MethodCalls(max_calls=MAX_CALLS)
        self.waiting: deque[_Reply] = deque()
        self.deadline = Deadline(lambda now: on_due(self, now))


class Methods:
    """The desk for direct methods of all devices."""

    def __init__(self, ways: Ways, clock: Clock, wheel: DeadlineWheel, metrics: Metrics) -> None:
        self._ways = ways
        self._clock = clock
        self._wheel = wheel
        self._desks: dict[Identity, _Desk] = {}
        self._waiting_bytes = 0
        self._results = metrics.method_calls
        self._late = metrics.messages_dropped.labels(DropReason.METHOD_REPLY_LATE.value)
        self._no_hub = metrics.messages_dropped.labels(DropReason.METHOD_REPLY_NO_HUB.value)

    # What the hub and the device say

    def called(self, identity: Identity, topic: Topic, publish: HubPublish) -> None:
        """The hub calls a method of the device."""
        desk = self._desk(identity)
        try:
            call = desk.calls.open(topic.request_id, self._clock.monotonic() + CALL_SECONDS, dup=publish.dup)
        except Repeated:
            return
        except TooMany:
            self._count("too_many")
            self._ways.to_hub(
                identity, method_reply_topic(_TOO_MANY_STATUS, topic.request_id), _TOO_MANY_BODY
            )
            return
        shown = publish.topic
        if call.device_rid != call.hub_rid:
            shown = method_call_topic(topic.name, call.device_rid)
        if not self._ways.to_device(identity, METHODS_FILTER, shown, publish.payload, publish.qos):
            desk.calls.take(call.device_rid)
            self._count("no_device")
        self._arm(desk)

    def replied(self, identity: Identity, topic: Topic, payload: bytes) -> None:
        """The device answers a call."""
        desk = self._desks.get(identity)
        call = desk.calls.take(topic.request_id) if desk is not None else None
        if desk is None or call is None:
            self._late.inc()
            return
        if call.lost:
            self._no_hub.inc()
        else:
            reply = _Reply(method_reply_topic(topic.status, call.hub_rid), payload, call.deadline)
            self._reply(identity, desk, reply)
        self._arm(desk)

    # The life of the two sides

    def hub_up(self, identity: Identity) -> None:
        """A hub connection is there, the first or the next of a handover."""
        self._flush(identity)

    def hub_writable(self, identity: Identity) -> None:
        """The hub session takes again what it could not."""
        self._flush(identity)

    def hub_down(self, identity: Identity) -> None:
        """The hub session is lost: nobody waits there any more."""
        desk = self._desks.get(identity)
        if desk is None:
            return
        for _ in range(desk.calls.lose()):
            self._count("no_hub")
        while desk.waiting:
            self._next_waiting(desk)
            self._drop_without_hub()
        self._arm(desk)
        if not desk.calls:
            del self._desks[identity]

    def device_left(self, identity: Identity) -> None:
        """Its calls stay open: it may answer them when it is back. Their deadlines bound them."""

    # Within

    def _reply(self, identity: Identity, desk: _Desk, reply: _Reply) -> None:
        if not desk.waiting and self._ways.to_hub(identity, reply.topic, reply.payload):
            self._count("replied")
        else:
            self._wait(identity, desk, reply)

    def _wait(self, identity: Identity, desk: _Desk, reply: _Reply, *, first: bool = False) -> None:
        if (
            self._ways.reach(identity) is Reach.DOWN
            or len(desk.waiting) >= MAX_CALLS
            or self._waiting_bytes + len(reply.payload) > MAX_WAITING_BYTES
        ):
            self._drop_without_hub()
            return
        self._waiting_bytes += len(reply.payload)
        if first:
            desk.waiting.appendleft(reply)
        else:
            desk.waiting.append(reply)

    def _flush(self, identity: Identity) -> None:
        desk = self._desks.get(identity)
        if desk is None:
            return
        while desk.waiting:
            # Taken out first: what the hub session does with it may end the session, and that clears the queue.
            reply = self._next_waiting(desk)
            if not self._ways.to_hub(identity, reply.topic, reply.payload):
                self._wait(identity, desk, reply, first=True)
                break
            self._count("replied")
        self._arm(desk)

    def _due(self, desk: _Desk, now: float) -> None:
        for _ in range(desk.calls.expire(now)):
            self._count("expired")
        for _ in range(len(desk.waiting)):
            reply = self._next_waiting(desk)
            if reply.deadline > now:
                desk.waiting.append(reply)
                self._waiting_bytes += len(reply.payload)
            else:
                self._late.inc()
                self._count("expired")
        self._arm(desk)

    def _next_waiting(self, desk: _Desk) -> _Reply:
        reply = desk.waiting.popleft()
        self._waiting_bytes -= len(reply.payload)
        return reply

    def _drop_without_hub(self) -> None:
        self._no_hub.inc()
        self._count("no_hub")

    def _count(self, result: str) -> None:
        self._results.labels(result).inc()

    def _desk(self, identity: Identity) -> _Desk:
        desk = self._desks.get(identity)
        if desk is None:
            desk = self._desks[identity] = _Desk(self._due)
        return desk

    def _arm(self, desk: _Desk) -> None:
        ends = [reply.deadline for reply in desk.waiting]
        if desk.calls.deadline is not None:
            ends.append(desk.calls.deadline)
        self._wheel.set(desk.deadline, min(ends, default=None))
