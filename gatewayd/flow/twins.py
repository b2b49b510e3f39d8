"""Device twins: requests of devices to the hub, the hub's answers and desired changes to the devices.

A request waits in the device's line until the hub answers it; the answer goes back under the device's own `$rid`, with
status, version and body as the hub gave them. When a handover or a reconnect comes between, what has no answer is asked
again on the new connection; an answer that comes twice is swallowed. A hub that is away is answered for: at once when
it is down, after `timeout` when it is about to come, with 503, or from the last known twin where one is kept.

Behind the gateway a device does not see that the hub connection was replaced, and the hub queues no desired changes.
So after each new connection the twin of a device that listens for them is read here, and a desired version that the
device was not given is told by one notification with the whole desired section. SDKs do the same for themselves.

A patch is receipted (PUBACK) when it arrives; the answer is what its device may rely on. Payloads are in no log.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gatewayd.clock import Clock
from gatewayd.flow.twin_cache import TwinCache
from gatewayd.flow.twin_document import TwinDocument
from gatewayd.flow.twin_line import Asks, Room, TwinLine, TwinRequest
from gatewayd.flow.ways import Reach, Ways
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.protocol.iothub.operations import (
    TWIN_DESIRED_TOPIC,
    TWIN_REPLY_PREFIX,
    Operation,
    Topic,
    twin_desired_topic,
    twin_get_topic,
    twin_patch_topic,
    twin_reply_topic,
)
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel

_LOG: Final = logging.getLogger(__name__)

REPLIES_FILTER: Final = f"{TWIN_REPLY_PREFIX}#"
DESIRED_FILTER: Final = f"{TWIN_DESIRED_TOPIC}#"

MAX_REQUESTS: Final = 50
# Of all devices together; a reported patch that the hub can take has at most 64 KiB of JSON.
MAX_WAITING_BYTES: Final = 16 << 20
# Pauses before a check that failed is tried again; the hub's limit for twin reads is per second.
CHECK_PAUSES: Final = (10.0, 30.0, 90.0, 270.0)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An answer of our own, in the hub's place."""

    status: int
    result: str
    body: bytes


_TOO_MANY_BODY: Final = b'{"message":"gatewayd: too many twin requests wait"}'
_NO_HUB: Final = _Refusal(503, "no_hub", b'{"message":"gatewayd: the hub cannot be reached"}')
_TOO_MANY: Final = _Refusal(429, "too_many", _TOO_MANY_BODY)
_NO_ROOM: Final = _Refusal(503, "too_many", _TOO_MANY_BODY)


class _Desk:
    """One device: its requests, and what it knows of its desired properties."""

    __slots__ = ("check_at", "checks_failed", "deadline", "identity", "line", "said", "told")

    def __init__(self, identity: Identity, room: Room, on_due: Callable[[_Desk, float], None]) -> None:
        self.identity = identity
        self.line = TwinLine(room)
        self.told: int | None = None  # the desired version the device was given last
        self.check_at: float | None = None  # when a failed check is tried again
        self.checks_failed = 0
        self.said = False  # that it is answered from the cache, in this outage
        self.deadline = Deadline(lambda now: on_due(self, now))


class Twins:
    """The desk for twins of all devices."""

    def __init__(
        self,
        ways: Ways,
        clock: Clock,
        wheel: DeadlineWheel,
        metrics: Metrics,
        cache: TwinCache | None,
        *,
        timeout: float,
    ) -> None:
        """`timeout`, in seconds from a request to its answer, may be changed while running."""
        self.timeout = timeout
        self._ways = ways
        self._clock = clock
        self._wheel = wheel
        self._results = metrics.twin_requests
        self._cache = cache
        if cache is not None:
            cache.on_gap = self._gap
        self._desks: dict[Identity, _Desk] = {}
        self._room = Room(MAX_WAITING_BYTES)
        # Who may have had a hub connection already, so that the next one follows a gap.
        self._linked: set[Identity] = set()
        # Ids of this run are no ids of an earlier one, whose answers a session at the hub might still hold.
        began = f"{int(clock.wall()):x}"
        self._ids = (f"{began}-{number:x}" for number in itertools.count(1))

    # What the device and the hub say

    def asked(self, identity: Identity, topic: Topic, payload: bytes) -> None:
        """The device reads its twin or patches its reported properties."""
        desk = self._desk(identity)
        asks = Asks.GET if topic.operation is Operation.TWIN_GET else Asks.PATCH
        request = TwinRequest(asks, topic.request_id, payload, self._clock.monotonic() + self.timeout)
        if len(desk.line) >= MAX_REQUESTS:
            self._refuse(identity, request, _TOO_MANY)
        elif self._ways.reach(identity) is Reach.DOWN:
            self._answer_for_hub(desk, request)
        elif desk.line.put(request):
            self._pump(desk)
        else:
            self._refuse(identity, request, _NO_ROOM)
        self._put_away(desk)

    def answered(self, identity: Identity, topic: Topic, payload: bytes) -> None:
        """The hub answers a request."""
        desk = self._desks.get(identity)
        request = desk.line.answered(topic.request_id) if desk is not None else None
        if desk is None or request is None:
            return
        self._count(request, _result(topic.status))
        if request.asks is Asks.CHECK:
            self._checked(desk, request, topic.status, payload)
        else:
            given = self._reply(identity, request, topic.status, payload, topic.version)
            if topic.status < 300:
                self._learn(desk, request, topic, payload, given=given)
        self._pump(desk)
        self._arm(desk)

    def desired(self, identity: Identity, topic: Topic, payload: bytes) -> None:
        """The hub tells a change of desired properties."""
        desk = self._desk(identity)
        version = topic.version
        shown = twin_desired_topic(version) if version is not None else TWIN_DESIRED_TOPIC
        if self._ways.to_device(identity, DESIRED_FILTER, shown, payload, 0):
            desk.told = version
        elif self._ways.listens(identity, DESIRED_FILTER):
            self._check_later(desk)  # the device takes nothing at this moment
        if self._cache is not None and version is not None:
            self._cache.desired(identity, payload, version)

    # The life of the two sides

    def hub_up(self, identity: Identity) -> None:
        """A hub connection is there, the first or the next: what has no answer is asked again."""
        follows_gap = identity in self._linked
        self._linked.add(identity)
        listens = self._ways.listens(identity, DESIRED_FILTER)
        desk = self._desk(identity) if follows_gap and listens else self._desks.get(identity)
        if desk is None:
            return
        desk.line.unask()
        desk.check_at = None
        desk.checks_failed = 0
        desk.said = False
        if listens and (follows_gap or desk.told is not None):
            self._check(desk)
        self._pump(desk)
        self._arm(desk)

    def hub_writable(self, identity: Identity) -> None:
        """The hub session takes again what it could not."""
        desk = self._desks.get(identity)
        if desk is not None:
            self._pump(desk)

    def hub_down(self, identity: Identity) -> None:
        """The hub session is lost: what waits is answered for it, now."""
        if not self._ways.listens(identity, DESIRED_FILTER):
            self._linked.discard(identity)
        desk = self._desks.get(identity)
        if desk is None:
            return
        for request in desk.line.clear():
            self._answer_for_hub(desk, request)
        desk.check_at = None
        self._put_away(desk)

    def device_left(self, identity: Identity) -> None:
        """The device is gone: patches that the hub can take now still go, and no answer is waited for."""
        desk = self._desks.get(identity)
        if desk is not None:
            for request in desk.line.waiting:
                topic = twin_patch_topic(next(self._ids))
                if request.asks is Asks.PATCH and not self._ways.to_hub(identity, topic, request.payload):
                    break
            for request in desk.line.clear():
                self._count(request, "abandoned")
            desk.told = None
            desk.check_at = None
            self._put_away(desk)
        if self._ways.reach(identity) is not Reach.UP:
            self._linked.discard(identity)
        if self._cache is not None:
            self._cache.device_left(identity)

    # Requests

    def _pump(self, desk: _Desk) -> None:
        """Ask the next request, if none is under way and the hub takes it.

        The hub answers to the device's own subscription. A device that has none hears no answer, so none is waited for:
        Python's SDK reads the twin so after each reconnect, when all it subscribed to are desired changes.
        """
        while True:
            rid = next(self._ids)
            request = desk.line.ask(rid)
            if request is None:
                return
            topic = twin_patch_topic(rid) if request.asks is Asks.PATCH else twin_get_topic(rid)
            if not self._ways.to_hub(desk.identity, topic, request.payload):
                desk.line.unask()
                return
            if self._ways.listens(desk.identity, REPLIES_FILTER):
                return
            desk.line.answered(rid)
            self._count(request, "abandoned")

    def _due(self, desk: _Desk, now: float) -> None:
        for request in desk.line.expire(now):
            self._answer_for_hub(desk, request)
        if desk.check_at is not None and desk.check_at <= now:
            desk.check_at = None
            self._check(desk)
        self._pump(desk)
        self._arm(desk)

    def _answer_for_hub(self, desk: _Desk, request: TwinRequest) -> None:
        """The hub gives no answer in time."""
        identity = desk.identity
        if request.asks is Asks.CHECK:
            self._count(request, _NO_HUB.result)
            self._check_failed(desk)
        elif request.asks is Asks.GET and self._cache is not None:
            self._cache.read(identity, lambda document: self._answer_kept(identity, request, document))
        else:
            self._refuse(identity, request, _NO_HUB)

    def _answer_kept(self, identity: Identity, request: TwinRequest, document: TwinDocument | None) -> None:
        if document is None:
            self._refuse(identity, request, _NO_HUB)
            return
        desk = self._desk(identity)
        self._count(request, "cached")
        _LOG.log(
            logging.DEBUG if desk.said else logging.INFO,
            "the hub is away: the device is given its last known twin",
            extra={"device_id": str(identity), "desired_version": document.desired_version},
        )
        desk.said = True
        if self._reply(identity, request, 200, document.body):
            desk.told = document.desired_version
        if self._ways.reach(identity) is Reach.UP:
            # It came, or spoke again, while the twin was read.
            self._check(desk)
            self._pump(desk)
        self._put_away(desk)

    def _refuse(self, identity: Identity, request: TwinRequest, refusal: _Refusal) -> None:
        self._count(request, refusal.result)
        self._reply(identity, request, refusal.status, refusal.body)

    def _reply(
        self, identity: Identity, request: TwinRequest, status: int, body: bytes, version: int | None = None
    ) -> bool:
        topic = twin_reply_topic(status, request.device_rid, version)
        return self._ways.to_device(identity, REPLIES_FILTER, topic, body, 0)

    def _learn(self, desk: _Desk, request: TwinRequest, topic: Topic, payload: bytes, *, given: bool) -> None:
        """What the hub's yes to a device's request says about the twin."""
        if request.asks is Asks.PATCH:
            if self._cache is not None:
                self._cache.reported(desk.identity, request.payload, topic.version)
            return
        document = TwinDocument.parse(payload)
        if document is None:
            return
        if given:
            desk.told = document.desired_version
        if self._cache is not None:
            self._cache.whole(desk.identity, document)

    # Checks: our own reads

    def _check(self, desk: _Desk) -> None:
        """Read the twin, if the hub would answer: it answers to the device's own subscription."""
        if desk.line.holds(Asks.CHECK) or not self._ways.listens(desk.identity, REPLIES_FILTER):
            return
        deadline = self._clock.monotonic() + self.timeout
        desk.line.put(TwinRequest(Asks.CHECK, "", b"", deadline, told=desk.told))

    def _checked(self, desk: _Desk, request: TwinRequest, status: int, payload: bytes) -> None:
        document = TwinDocument.parse(payload) if status == 200 else None
        if document is None:
            self._check_failed(desk)
            return
        if self._cache is not None:
            self._cache.whole(desk.identity, document)
        version, told = document.desired_version, desk.told
        # A lower version means that the identity was made anew, unless a change came while the hub was answering.
        behind = told is None or version > told or (version < told and told == request.told)
        if not behind:
            desk.checks_failed = 0
            return
        shown = twin_desired_topic(version)
        if self._ways.to_device(desk.identity, DESIRED_FILTER, shown, document.desired, 0):
            desk.told = version
            desk.checks_failed = 0
            _LOG.info(
                "a change of desired properties had not reached the device: it is told",
                extra={"device_id": str(desk.identity), "desired_version": version},
            )
        elif self._ways.listens(desk.identity, DESIRED_FILTER):
            self._check_later(desk)

    def _check_failed(self, desk: _Desk) -> None:
        if self._ways.reach(desk.identity) is Reach.UP:  # else the next connection checks anew
            self._check_later(desk)

    def _check_later(self, desk: _Desk) -> None:
        if desk.check_at is not None:
            return
        if desk.checks_failed < len(CHECK_PAUSES):
            desk.check_at = self._clock.monotonic() + CHECK_PAUSES[desk.checks_failed]
            desk.checks_failed += 1
            self._arm(desk)
        else:
            desk.checks_failed = 0
            _LOG.warning(
                "the device may have missed a change of desired properties: its twin could not be read, or not told",
                extra={"device_id": str(desk.identity)},
            )

    def _gap(self, identity: Identity) -> None:
        """The kept twin missed a change and is forgotten: read it anew."""
        desk = self._desk(identity)
        if self._ways.reach(identity) is Reach.UP:
            self._check(desk)
            self._pump(desk)
            self._arm(desk)

    # Within

    def _count(self, request: TwinRequest, result: str) -> None:
        self._results.labels(request.asks.value, result).inc()

    def _desk(self, identity: Identity) -> _Desk:
        desk = self._desks.get(identity)
        if desk is None:
            desk = self._desks[identity] = _Desk(identity, self._room, self._due)
        return desk

    def _put_away(self, desk: _Desk) -> None:
        """Wait for what ends next, and keep no desk that knows nothing."""
        self._arm(desk)
        if desk.deadline.due is None and desk.told is None:
            self._desks.pop(desk.identity, None)

    def _arm(self, desk: _Desk) -> None:
        due = [when for when in (desk.line.deadline, desk.check_at) if when is not None]
        self._wheel.set(desk.deadline, min(due, default=None))


def _result(status: int) -> str:
    if status < 300:
        return "ok"
    return "refused" if status < 500 else "failed"
