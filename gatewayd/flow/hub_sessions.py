"""Keeps the hub sessions: does what the conductor says, tells it what happened, and joins each session to its lane.

The conductor (`flow.renewal`) decides who may connect when; this shell makes the sessions, arms one deadline for the
conductor, counts and logs. A device that arrives is wanted at the hub from then on; one that left stays wanted for
`linger`, and for as long as messages of it have not reached the hub.

Every session's outcome ends in one call of the conductor and one turn of its commands. Nothing here blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from gatewayd.clock import Clock
from gatewayd.flow.dispatch import Dispatch
from gatewayd.flow.hub_tokens import HubTokens
from gatewayd.flow.renewal import Close, CloseReason, Command, Open, Renew, Renewal
from gatewayd.flow.session_notes import SessionError, SessionNotes
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.protocol.iothub.refusals import Inference
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel
from gatewayd.upstream.hub_message import HubMessage
from gatewayd.upstream.mqtt_link import Carrier
from gatewayd.upstream.mqtt_session import MqttHubSession
from gatewayd.upstream.outcome import Failure, HandoverReport, SignedToken
from gatewayd.upstream.session import State

_LOG: Final = logging.getLogger(__name__)

TRANSPORT: Final = "mqtt"
_CLOSE_REASONS: Final = {
    CloseReason.UNWANTED: "linger",
    CloseReason.EXPIRING: "expiring",
    CloseReason.STUCK: "stuck",
}
# The hub's throttle and overload, for which the whole gateway slows down.
_THROTTLES: Final = frozenset({429001, 429002, 429003, 503001, 503003, 503005})


class HubTraffic(Protocol):
    """Who takes what the hub says; `flow.way_back.WayBack` is the one."""

    def hub_up(self, identity: Identity, hub: MqttHubSession, /) -> None:
        """A connection is up: the first, or another than before."""

    def hub_down(self, identity: Identity) -> None:
        """There is no connection, or an attempt at one has failed."""

    def hub_forgotten(self, identity: Identity) -> None:
        """Nobody needs the session any more."""

    def hub_writable(self, identity: Identity) -> None: ...

    def received(self, identity: Identity, message: HubMessage) -> None: ...

    def subscribed(self, identity: Identity) -> None: ...


class HubSessions:
    """All hub sessions. It is the `SessionOwner` of each."""

    def __init__(
        self,
        conductor: Renewal[Identity],
        dispatch: Dispatch,
        tokens: HubTokens,
        carrier: Carrier,
        clock: Clock,
        wheel: DeadlineWheel,
        metrics: Metrics,
        *,
        linger: float,
    ) -> None:
        """`linger`, in seconds, may be changed while running."""
        self.conductor = conductor
        self.linger = linger
        self.notes = SessionNotes()
        self._dispatch = dispatch
        self._tokens = tokens
        self._carrier = carrier
        self._clock = clock
        self._wheel = wheel
        self._metrics = metrics
        self.on_unparked: Callable[[], None] | None = None  # hears that a parked identity is up again
        self.way_back: HubTraffic | None = None
        self._parked: set[Identity] = set()
        self._sessions: dict[Identity, MqttHubSession] = {}
        self._lingering: dict[Identity, Deadline] = {}
        self._down_since: dict[Identity, float] = {}
        self._renewal_failing_since: dict[Identity, float] = {}  # while the old connection goes on
        self._accepted = 0  # connections, of all identities
        self._turned_away: dict[Identity, int] = {}  # what `_accepted` was when the hub last throttled it
        self._turned_away_last: Identity | None = None
        self._ended_by: Inference | None = None  # what the newest end was counted under
        self._deadline = Deadline(self._due)
        self._in_turn = False
        self._stopping = False
        self._renewed = metrics.token_renewals.labels(TRANSPORT, "ok")
        self._failed = metrics.token_renewals.labels(TRANSPORT, "failed")

    # What devices and the daemon ask

    def device_arrived(self, identity: Identity) -> None:
        """A device is present: keep it at the hub."""
        lingering = self._lingering.pop(identity, None)
        if lingering is not None:
            self._wheel.set(lingering, None)
        if self._stopping:
            return
        now = self._clock.monotonic()
        self.conductor.want(identity, now, has_secondary=self._tokens.has_secondary(identity))
        self.turn()

    def backlog_found(self, identity: Identity) -> None:
        """There are stored messages of this device: keep it at the hub until they are there, device or not."""
        if self._dispatch.lane(identity).device is None:
            self.device_arrived(identity)
            self.device_left(identity)

    def device_left(self, identity: Identity) -> None:
        """The device is gone; its hub session stays for `linger`, and until all its messages are at the hub."""
        if self.conductor.session(identity) is None or identity in self._lingering:
            return
        deadline = self._lingering[identity] = Deadline(lambda _now: self._lingered(identity))
        self._wheel.set(deadline, self._clock.monotonic() + self.linger)

    def turn(self) -> None:
        """Carry out the conductor's commands and arm its deadline. Call after telling the conductor anything."""
        if self._in_turn:
            return
        self._in_turn = True
        try:
            while (command := self.conductor.next_command(self._clock.monotonic())) is not None:
                try:
                    self._carry_out(command)
                except Exception:  # noqa: BLE001 - one identity's fault ends no turn: its own limits rebuild it
                    _LOG.exception(
                        "a command failed: this is a fault of gatewayd",
                        extra={"device_id": str(command.identity)},
                    )
        finally:
            self._in_turn = False
        self._wheel.set(self._deadline, self.conductor.deadline())

    def _carry_out(self, command: Command[Identity]) -> None:
        match command:
            case Open(identity, permit, secondary):
                self._metrics.connect_wait.observe(permit.waited)
                session = self._session(identity)
                session.secondary = secondary
                session.open()
            case Renew(identity, permit, secondary, not_before):
                self._metrics.connect_wait.observe(permit.waited)
                session = self._session(identity)
                session.secondary = secondary
                session.renew(not_before)
            case Close(identity, reason):
                if reason is not CloseReason.UNWANTED:
                    self._say_close(identity, reason)
                self._session(identity).close("shutdown" if self._stopping else _CLOSE_REASONS[reason])

    def stop(self) -> int:
        """Close every session in order, DISCONNECT first; how many there are. `open_sessions` falls to 0."""
        self._stopping = True
        for identity in list(self._lingering):
            self._wheel.set(self._lingering.pop(identity), None)
        now = self._clock.monotonic()
        sessions = len(self._sessions)
        # Also those that only wait for a permit: none may be opened any more.
        for identity in [session.identity for session in self.conductor.sessions()]:
            self._unwant(identity, now)
        self.turn()
        return sessions

    @property
    def open_sessions(self) -> int:
        """Sessions that exist, whatever their state."""
        return len(self._sessions)

    def opens_soon(self, identity: Identity) -> bool:
        """Whether an identity without a connection is about to have one."""
        return self.conductor.state(identity) in (State.QUEUED, State.OPENING)

    def unsettled(self) -> Iterable[Identity]:
        """Identities with messages that have not reached the hub."""
        return (lane.identity for lane in self._dispatch if not lane.in_flight.is_settled)

    # What sessions say

    def sign(self, session: MqttHubSession) -> SignedToken:
        return self._tokens.sign(session.identity, secondary=session.secondary)

    def connecting(self, session: MqttHubSession) -> None:
        self.conductor.connecting(session.identity, self._clock.monotonic())

    def opened(self, session: MqttHubSession, token: SignedToken) -> None:
        identity, now = session.identity, self._clock.monotonic()
        self._let_in(identity)
        self.conductor.opened(identity, token.signed, token.expires, now)
        self._say_up(identity, now)
        self._dispatch.hub_opened(self._dispatch.lane(identity))
        if self.way_back is not None:
            self.way_back.hub_up(session.identity, session)
        self.turn()

    def open_failed(self, session: MqttHubSession, failure: Failure) -> None:
        self._note(session.identity, failure)
        self.conductor.open_failed(session.identity, failure.ask, self._clock.monotonic())
        self._dispatch.hub_went_down(self._dispatch.lane(session.identity))
        self._say_down(session.identity, failure, "no connection to the hub")
        if self.way_back is not None:
            self.way_back.hub_down(session.identity)
        self.turn()

    def renewed(self, session: MqttHubSession, token: SignedToken, report: HandoverReport) -> None:
        now = self._clock.monotonic()
        self._let_in(session.identity)
        lateness = self.conductor.renewed(session.identity, token.signed, token.expires, now)
        self._renewed.inc()
        self.notes.renewal_done(now)
        self.notes.well(session.identity)
        self._metrics.token_renewal_lateness.observe(lateness)
        self._metrics.token_renewal_gap.observe(report.gap)
        self._metrics.token_renewal_drain.observe(report.drain)
        _LOG.debug(
            "renewed",
            extra={
                "device_id": str(session.identity),
                "gap_ms": round(report.gap * 1000, 3),
                "drain_ms": round(report.drain * 1000, 3),
                "lateness_ms": round(lateness * 1000, 1),
                "drain_cut": report.drain_cut,
                "old_forced": report.old_forced,
            },
        )
        since = self._renewal_failing_since.pop(session.identity, None)
        if since is not None:
            _LOG.info(
                "renewed after %.1f s of failures", now - since, extra={"device_id": str(session.identity)}
            )
        if self.way_back is not None:
            self.way_back.hub_up(session.identity, session)
        self.turn()

    def renewal_failed(self, session: MqttHubSession, failure: Failure) -> None:
        self._renewal_failed()
        self._note(session.identity, failure)
        self.conductor.renewal_failed(session.identity, failure.ask, self._clock.monotonic())
        repeats = session.identity in self._renewal_failing_since
        _LOG.log(
            logging.DEBUG if repeats else logging.WARNING,
            "a renewal failed, the old connection goes on: %s",
            failure.words,
            extra={"device_id": str(session.identity)},
        )
        self._renewal_failing_since.setdefault(session.identity, self._clock.monotonic())
        self._dispatch.pump(self._dispatch.lane(session.identity))
        self.turn()

    def lost(self, session: MqttHubSession, failure: Failure) -> None:
        identity = session.identity
        if self.conductor.state(identity) in (State.RENEWING, State.RENEWAL_QUEUED):
            self._renewal_failed()
        self._note(identity, failure)
        self.conductor.lost(identity, failure.ask, self._clock.monotonic())
        self._dispatch.hub_went_down(self._dispatch.lane(identity))
        self._say_down(identity, failure, "the hub session is down")
        if self.way_back is not None:
            self.way_back.hub_down(session.identity)
        self.turn()

    def closed(self, session: MqttHubSession) -> None:
        identity = session.identity
        self.conductor.closed(identity, self._clock.monotonic())
        if self.way_back is not None:
            self.way_back.hub_down(session.identity)
        if self.conductor.session(identity) is None:
            self._forget(identity)
        else:
            self._dispatch.hub_went_down(self._dispatch.lane(identity))
        self.turn()

    def ended(self, session: MqttHubSession, planned: bool, reason: str, inference: Inference | None) -> None:
        self._metrics.disconnects.labels("hub", "true" if planned else "false", reason).inc()
        if inference is not None:
            self._ended_by = inference
            self._count(session.identity, inference)

    def acknowledged(self, session: MqttHubSession, handle: int) -> None:
        self._dispatch.acknowledged(self._dispatch.lane(session.identity), handle)

    def writable(self, session: MqttHubSession) -> None:
        self._dispatch.pump(self._dispatch.lane(session.identity))
        if self.way_back is not None:
            self.way_back.hub_writable(session.identity)

    def received(self, session: MqttHubSession, message: HubMessage) -> None:
        if self.way_back is not None:
            self.way_back.received(session.identity, message)

    def subscribed(self, session: MqttHubSession) -> None:
        if self.way_back is not None:
            self.way_back.subscribed(session.identity)

    # Inside

    def _session(self, identity: Identity) -> MqttHubSession:
        session = self._sessions.get(identity)
        if session is None:
            session = self._sessions[identity] = MqttHubSession(identity, self._carrier, self)
            self._dispatch.lane(identity).hub = session
        return session

    def _due(self, now: float) -> None:
        self.conductor.handle_deadline(now)
        self.turn()

    def _lingered(self, identity: Identity) -> None:
        lane = self._dispatch.lane(identity)
        if lane.owes_the_hub:
            self._wheel.set(self._lingering[identity], self._clock.monotonic() + max(1.0, self.linger))
            return
        del self._lingering[identity]
        self._unwant(identity, self._clock.monotonic())
        self.turn()

    def _unwant(self, identity: Identity, now: float) -> None:
        """Nobody needs the session any more. One that has nothing to close is forgotten at once."""
        self.conductor.unwant(identity, now)
        if self.conductor.session(identity) is None:
            self._forget(identity)

    def _forget(self, identity: Identity) -> None:
        self._sessions.pop(identity, None)
        if self.way_back is not None:
            self.way_back.hub_forgotten(identity)
        self._down_since.pop(identity, None)
        self._renewal_failing_since.pop(identity, None)
        self._parked.discard(identity)
        self._turned_away.pop(identity, None)
        self.notes.well(identity)
        lane = self._dispatch.lane(identity)
        self._dispatch.hub_forgot(lane)
        if lane.device is None:
            self._dispatch.forget(identity)

    def _note(self, identity: Identity, failure: Failure) -> None:
        """Count what the hub refused, once, and slow down when it throttles."""
        inference = failure.inference
        if inference is None:
            self.notes.error(identity, SessionError(self._clock.wall(), None, failure.words))
            return
        if inference is self._ended_by:  # `ended` has counted it
            return
        if inference.refusal.code in _THROTTLES and self._is_throttle(identity):
            self.conductor.throttled(self._clock.monotonic())
        self._count(identity, inference)

    def _renewal_failed(self) -> None:
        self._failed.inc()
        self.notes.renewal_failed(self._clock.monotonic())

    def _let_in(self, identity: Identity) -> None:
        self._accepted += 1
        self._turned_away.pop(identity, None)

    def _is_throttle(self, identity: Identity) -> bool:
        """Whether the hub that turned this identity away throttles the gateway. It does not when it has let others in
        since it last did so, or when nobody else was turned away: then that identity's own backoff is answer enough."""
        before = self._turned_away.get(identity)
        alone, self._turned_away_last = self._turned_away_last == identity, identity
        self._turned_away[identity] = self._accepted
        return before is None or (before == self._accepted and not alone)

    def _count(self, identity: Identity, inference: Inference) -> None:
        refusal = inference.refusal
        self._metrics.hub_errors.labels(str(refusal.code), refusal.cause).inc()
        self.notes.error(identity, SessionError(self._clock.wall(), refusal, str(inference)))

    def _say_down(self, identity: Identity, failure: Failure, what: str) -> None:
        extra: dict[str, object] = {"device_id": str(identity)}
        text = failure.words
        if failure.inference is not None:
            extra["hub_code"] = failure.inference.refusal.code
            extra["planned"] = failure.inference.refusal.planned
            text = f"{text}. {failure.inference.refusal.remedy}"
        if self.conductor.state(identity) in (State.PARKED, State.STOPPED):
            self._parked.add(identity)
        level = logging.DEBUG if identity in self._down_since else logging.WARNING
        _LOG.log(level, "%s: %s", what, text, extra=extra)
        self._down_since.setdefault(identity, self._clock.monotonic())
        self._renewal_failing_since.pop(identity, None)

    def _say_up(self, identity: Identity, now: float) -> None:
        self.notes.well(identity)
        since = self._down_since.pop(identity, None)
        if since is None:
            _LOG.debug("at the hub", extra={"device_id": str(identity)})
            return
        _LOG.info("at the hub again after %.1f s", now - since, extra={"device_id": str(identity)})
        if identity in self._parked:
            self._parked.discard(identity)
            if self.on_unparked is not None:
                self.on_unparked()

    def _say_close(self, identity: Identity, reason: CloseReason) -> None:
        _LOG.warning("a hub session is closed by us: %s", reason.value, extra={"device_id": str(identity)})
        self._down_since.setdefault(identity, self._clock.monotonic())
        self._renewal_failing_since.pop(identity, None)
