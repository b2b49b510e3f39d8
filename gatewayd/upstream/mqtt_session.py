"""One identity's presence at the hub over MQTT: its connection, and the handover to the next one.

The `Handover` automaton decides; this shell dials, signs, writes and closes as it is told, and reports what happened.
First opens and reconnects are handovers without an old connection.

Promises: the owner hears of every attempt's end exactly once (`opened`, `open_failed`, `renewed`, `renewal_failed`,
`lost` or `closed`); `connecting` just before CONNECT is written; `acknowledged` for each publish the hub took, in the
order of sending; `ended` for each accepted connection that is over, with the refusal inferred when the hub ended it.
Unacknowledged publishes outlive a connection and are sent again by the next one, same order, DUP set.

What the hub sends goes to the owner (`received`), who acknowledges it when the device has it; what it does not
acknowledge the hub keeps. Subscriptions are what the owner wants (`want_subscriptions`), made so on every connection.

When to open, renew or close is `flow.renewal`'s decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Protocol

from gatewayd.errors import DialFailed, GatewaydError, LocalProtocolError
from gatewayd.message import Identity, Telemetry
from gatewayd.protocol.iothub.operations import subscriptions
from gatewayd.protocol.iothub.refusals import Ask, Inference, classify_connack
from gatewayd.protocol.mqtt.client import ClientSession
from gatewayd.protocol.mqtt.events import (
    ClientEvent,
    Closed,
    ConnackReceived,
    PublishAcknowledged,
    PublishReceived,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from gatewayd.protocol.mqtt.faults import ConnackCode
from gatewayd.transport.deadline_wheel import Deadline
from gatewayd.upstream.handover import Command, Handover, Stage
from gatewayd.upstream.hub_ends import HubEnds
from gatewayd.upstream.hub_message import HubMessage
from gatewayd.upstream.hub_subscriptions import HubSubscriptions
from gatewayd.upstream.mqtt_link import Carrier, MqttLink
from gatewayd.upstream.outcome import Failure, HandoverReport, SignedToken

_LOG: Final = logging.getLogger(__name__)

# What took too long when a stage's deadline ends an attempt.
_IN_WORDS: Final = {
    Stage.DIALING: "the dial",
    Stage.DIALING_ALONE: "the dial",
    Stage.SIGNING: "signing",
    Stage.SIGNING_ALONE: "signing",
    Stage.CROSSING: "the hub's answer to CONNECT",
    Stage.CONNECTING: "the hub's answer to CONNECT",
}


class SessionOwner(Protocol):
    """Whoever keeps the hub sessions. Called from the event loop; may call any method of the session."""

    def sign(self, session: MqttHubSession) -> SignedToken:
        """A fresh token for this session. Raises GatewaydError when there can be none now."""

    def connecting(self, session: MqttHubSession) -> None:
        """CONNECT is about to be written."""

    def opened(self, session: MqttHubSession, token: SignedToken) -> None: ...

    def open_failed(self, session: MqttHubSession, failure: Failure) -> None: ...

    def renewed(self, session: MqttHubSession, token: SignedToken, report: HandoverReport) -> None: ...

    def renewal_failed(self, session: MqttHubSession, failure: Failure) -> None:
        """The old connection works as before."""

    def lost(self, session: MqttHubSession, failure: Failure) -> None:
        """There is no connection any more."""

    def closed(self, session: MqttHubSession) -> None:
        """`close` is carried out."""

    def ended(self, session: MqttHubSession, planned: bool, reason: str, inference: Inference | None) -> None:
        """An accepted connection is over; others may live on."""

    def acknowledged(self, session: MqttHubSession, handle: int) -> None:
        """The hub took what `publish` returned `handle` for."""

    def writable(self, session: MqttHubSession) -> None:
        """`can_publish` may have become True."""

    def received(self, session: MqttHubSession, message: HubMessage) -> None:
        """The hub sent something. QoS 1 is owed `acknowledge`, once, in any order."""

    def subscribed(self, session: MqttHubSession) -> None:
        """`subscriptions_confirmed` has become True."""


class MqttHubSession:
    """One identity at the hub. `secondary` tells the owner which key to sign with."""

    __slots__ = (
        "_attempt",
        "_carrier",
        "_close_by",
        "_closing",
        "_deadline",
        "_dialing",
        "_ends",
        "_failure",
        "_held",
        "_in_turn",
        "_leaving",
        "_link",
        "_memory",
        "_next",
        "_opening",
        "_owner",
        "_subscriptions",
        "identity",
        "secondary",
    )

    def __init__(self, identity: Identity, carrier: Carrier, owner: SessionOwner) -> None:
        self.identity = identity
        self.secondary = False
        self._carrier = carrier
        self._owner = owner
        self._memory = ClientSession()
        self._link: MqttLink | None = None  # the connection that carries the session
        self._next: MqttLink | None = None  # the one being made
        self._leaving: MqttLink | None = None  # the one a handover has replaced
        self._attempt: Handover | None = None
        self._opening = False  # the attempt began without a connection
        self._dialing: asyncio.Task[None] | None = None
        self._deadline: Deadline | None = None  # while an attempt runs
        self._failure: Failure | None = None  # of the attempt that runs
        self._held = False
        self._closing: str | None = None  # why, while a close is under way
        self._in_turn = False
        self._close_by = 0.0  # while a close waits for CONNACK: when it does so no longer
        self._ends = HubEnds(carrier.clock_trusted)
        self._subscriptions = HubSubscriptions(subscriptions(identity))

    # What the owner asks

    def open(self) -> None:
        """Connect. The answer is `opened` or `open_failed`."""
        if self._link is not None:
            raise LocalProtocolError(f"{self.identity}: open while connected")
        self._begin(opening=True)

    def renew(self, not_before: float = 0.0) -> None:
        """Hand over to a connection with a new token. The answer is `renewed`, `renewal_failed` or `lost`.

        The old connection goes on until `not_before` (monotonic seconds), however soon the new one is ready.
        """
        self._begin(opening=False, not_before=not_before)

    def close(self, reason: str) -> None:
        """End whatever runs, DISCONNECT first where that is possible. The answer is `closed`, perhaps at once.

        A CONNECT on its way is waited for, at most as long as the hub may take to close an old connection: the hub
        would see a connection cut that it has just accepted.
        """
        self._closing = reason
        self._held = True
        if self._attempt is None:
            self._close_link()
            return
        now = self._carrier.clock.monotonic()
        if self._next is not None and self._next.connect_sent:
            self._close_by = now + self._carrier.settings.timeouts.close
        else:
            self._attempt.abandon(now)
        self._advance()

    def _close_link(self) -> None:
        """The rest of `close`, once no attempt runs. A connection that is being left already only has to end."""
        link = self._link
        if link is None:
            self._closed()
        else:
            link.disconnect(self._closing or link.reason)

    @property
    def in_flight(self) -> int:
        """Publishes the hub has not acknowledged."""
        return self._memory.in_flight

    @property
    def can_publish(self) -> bool:
        """True when a message may be handed over now."""
        link = self._link
        return (
            link is not None
            and not self._held
            and self._memory.in_flight < self._carrier.settings.window
            and link.can_publish
        )

    @property
    def opens_soon(self) -> bool:
        """True while publishing is only held up: by a handover, a full window or a slow connection."""
        return self._link is not None or self._attempt is not None

    def publish(self, message: Telemetry) -> int:
        """Send; the packet id by which `acknowledged` will name it, 0 for QoS 0. Only while `can_publish`."""
        link = self._link
        if link is None or not self.can_publish:
            raise LocalProtocolError(f"{self.identity}: publish while the session cannot")
        handle = link.publish(message)
        if self._attempt is not None:
            self._note_in_flight(self._attempt)
        return handle

    def say(self, topic: str, payload: bytes) -> bool:
        """Send with QoS 0, beside the window; False when that cannot be done now."""
        link = self._link
        if link is None or not self.can_say:
            return False
        link.say(topic, payload)
        return True

    @property
    def can_say(self) -> bool:
        """Connected, not held by a handover, and the hub takes our bytes."""
        return self._link is not None and not self._held and self._link.can_publish

    def acknowledge(self, message: HubMessage) -> bool:
        """The hub may forget a message; False when the connection it came on can say so no more: it comes again."""
        link = message.link
        if not message.qos:
            return True  # the hub has forgotten it already
        return isinstance(link, MqttLink) and link is self._link and link.acknowledge(message.packet_id)

    def want_subscriptions(self, wanted: Mapping[str, int]) -> None:
        """Have these filters (to their QoS) at the hub, and no others: now if connected, and on every connection."""
        self._subscriptions.want(wanted)
        self._tell_subscriptions()

    @property
    def subscriptions_confirmed(self) -> bool:
        """Whether the hub has answered all that is wanted."""
        return self._link is not None and self._link.is_open and self._subscriptions.confirmed

    @property
    def subscriptions_refused(self) -> frozenset[str]:
        """The filters that the hub has refused on this connection."""
        return self._subscriptions.refused

    def _tell_subscriptions(self) -> None:
        """What cannot be said on this connection is said on the next."""
        if self._link is not None and self._link.is_open:
            self._subscriptions.tell(self._link)

    # The attempt

    def _begin(self, *, opening: bool, not_before: float = 0.0) -> None:
        if self._attempt is not None and self._attempt.connected:
            # Only the end of the connection it replaced is still to come, which its stream bounds by itself.
            self._attempt_over()
            self._leaving = None
        if self._attempt is not None or self._closing is not None:
            raise LocalProtocolError(f"{self.identity}: an attempt begins while another one runs")
        carrier = self._carrier
        self._opening = opening
        self._failure = None
        self._attempt = Handover(
            carrier.settings.mode,
            carrier.settings.timeouts,
            carrier.clock.monotonic(),
            old_alive=self._link is not None,
            in_flight=self._memory.in_flight,
            not_before=not_before,
        )
        self._deadline = Deadline(self._due)
        self._advance()

    def _due(self, now: float) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        if self._closing is not None and now >= self._close_by:
            attempt.abandon(now)
        attempt.handle_deadline(now)
        if attempt.failed_in in _IN_WORDS:
            self._failure = Failure(Ask.WAIT, f"{_IN_WORDS[attempt.failed_in]} took too long")
        self._advance()

    def _advance(self) -> None:
        """Carry out commands until there are none; then wait for the deadline, or conclude.

        A fault on the way ends the new connection, and its end ends the attempt.
        """
        attempt = self._attempt
        if attempt is None or self._in_turn:
            return
        self._in_turn = True
        try:
            while (command := attempt.next_command()) is not None:
                self._carry_out(command, attempt)
        except Exception as error:
            if self._next is not None:
                self._next.conversation.abort(error)
            raise
        finally:
            self._in_turn = False
        if attempt.finished:
            self._conclude(attempt)
        elif self._deadline is not None:
            when = attempt.deadline()
            if self._closing is not None and when is not None:
                when = min(when, self._close_by)
            self._carrier.wheel.set(self._deadline, when)

    def _carry_out(self, command: Command, attempt: Handover) -> None:
        match command:
            case Command.DIAL:
                link = self._next = MqttLink(self, self._carrier, self._memory)
                self._dialing = self._carrier.spawn(self._dial(link), f"dial {self.identity}")
            case Command.SIGN:
                self._sign(attempt)
            case Command.HOLD:
                self._held = True
            case Command.SEND_DISCONNECT:
                assert self._link is not None, "DISCONNECT goes to an old connection"
                self._link.disconnect("renewal")
            case Command.SEND_CONNECT:
                self._connect_new()
            case Command.RESUME:
                self._resume(attempt)
            case Command.ABORT_NEW:
                self._abort_new()
            case Command.ABORT_OLD:
                old = self._leaving or self._link
                # When we close anyway, DISCONNECT is out: a reset might reach the hub before it.
                if old is not None and self._closing is None:
                    old.conversation.abort()

    async def _dial(self, link: MqttLink) -> None:
        """The root of a dial's task: whatever goes wrong ends this attempt and nothing else."""
        failure: Failure | None = None
        try:
            await self._carrier.dialer.dial(link.conversation)
        except DialFailed as error:
            failure = Failure(Ask.WAIT, str(error))
        except Exception as error:  # noqa: BLE001 - the root of a task: logged, and told as this attempt's failure
            _LOG.exception(
                "a dial failed: this is a fault of gatewayd", extra={"device_id": str(self.identity)}
            )
            failure = Failure(Ask.WAIT, type(error).__name__)
        try:
            self._dial_ended(link, failure)
        except Exception:  # noqa: BLE001 - as above; what broke has ended the new connection
            _LOG.exception(
                "an attempt broke: this is a fault of gatewayd", extra={"device_id": str(self.identity)}
            )

    def _dial_ended(self, link: MqttLink, failure: Failure | None) -> None:
        if self._next is not link or self._attempt is None:
            link.conversation.abort()
            return
        self._dialing = None
        now = self._carrier.clock.monotonic()
        if failure is None:
            self._attempt.dialed(now)
        else:
            self._failure = failure
            self._next = None
            self._attempt.dial_failed(now)
        self._advance()

    def _sign(self, attempt: Handover) -> None:
        link = self._next
        assert link is not None, "a token is signed for a connection that was dialled"
        try:
            link.token = self._owner.sign(self)
        except GatewaydError as error:
            self._failure = Failure(Ask.WAIT, str(error))
            attempt.sign_failed(self._carrier.clock.monotonic())
        else:
            attempt.signed(self._carrier.clock.monotonic())

    def _connect_new(self) -> None:
        link = self._next
        assert link is not None, "CONNECT goes to a new connection"
        self._owner.connecting(self)
        link.connect(self.identity)

    def _resume(self, attempt: Handover) -> None:
        self._held = self._closing is not None
        if attempt.connected:
            self._swap(attempt)
        if self._closing is None:
            self._owner.writable(self)

    def _swap(self, attempt: Handover) -> None:
        link = self._next
        assert link is not None, "the new connection was accepted"
        assert link.token is not None, "and with a token"
        self._leaving, self._link, self._next = self._link, link, None
        if self._closing is not None:
            return
        self._subscriptions.connected(link.session_present)
        if self._opening:
            self._owner.opened(self, link.token)
        else:
            report = HandoverReport(
                attempt.gap or 0.0,
                attempt.drain or 0.0,
                attempt.drain_cut,
                attempt.old_forced,
                attempt.old_lost,
            )
            self._owner.renewed(self, link.token, report)
        self._tell_subscriptions()

    def _abort_new(self) -> None:
        link, self._next = self._next, None
        if self._dialing is not None:
            self._dialing.cancel()
            self._dialing = None
        if link is not None:
            link.conversation.abort()

    def _conclude(self, attempt: Handover) -> None:
        self._attempt_over()
        self._next = None
        if self._closing is not None:
            self._close_link()
            return
        if attempt.stage is Stage.DONE:
            return
        failure, self._failure = self._failure, None
        assert failure is not None, "whatever ends an attempt badly says why"
        if attempt.stage is Stage.FAILED:
            self._owner.renewal_failed(self, failure)
            return
        self._held = False
        old, self._link = self._link, None
        if old is not None:
            self._leaving = old
        if self._opening:
            self._owner.open_failed(self, failure)
        else:
            self._owner.lost(self, failure)

    def _attempt_over(self) -> None:
        self._attempt = None
        if self._deadline is not None:
            self._carrier.wheel.set(self._deadline, None)
            self._deadline = None

    # What a connection says

    def link_event(self, link: MqttLink, event: ClientEvent) -> None:
        if isinstance(event, PublishAcknowledged):
            # The handover hears of an idle moment before the owner fills it again.
            if self._attempt is not None:
                self._note_in_flight(self._attempt)
            self._owner.acknowledged(self, event.packet_id)
        elif isinstance(event, ConnackReceived) and link is self._next and self._attempt is not None:
            now = self._carrier.clock.monotonic()
            if event.code is ConnackCode.ACCEPTED:
                link.accepted_at = now
                link.session_present = event.session_present
            else:
                self._failure = Failure.of(
                    classify_connack(
                        event.code, clock_trusted=self._carrier.clock_trusted(), token_fresh=True
                    )
                )
            self._attempt.connack(int(event.code), now)
            self._advance()
        elif link is self._link:
            self._current_link_event(link, event)

    def _current_link_event(self, link: MqttLink, event: ClientEvent) -> None:
        match event:
            case PublishReceived(publish, joins):
                if not joins:
                    message = HubMessage(
                        publish.topic, publish.payload, publish.qos, publish.dup, publish.packet_id, link
                    )
                    self._owner.received(self, message)
                return
            case SubscribeAcknowledged(packet_id, codes):
                refused = self._subscriptions.granted(packet_id, codes)
                if refused:
                    _LOG.warning(
                        "the hub refuses a subscription",
                        extra={"device_id": str(self.identity), "topic_filter": ", ".join(sorted(refused))},
                    )
            case UnsubscribeAcknowledged(packet_id):
                self._subscriptions.confirmed_give_up(packet_id)
            case _:
                return
        if self._subscriptions.confirmed:
            self._owner.subscribed(self)

    def link_closed(self, link: MqttLink, closed: Closed) -> None:
        now = self._carrier.clock.monotonic()
        connack = None if self._failure is None else self._failure.inference
        inference = self._ends.infer(link, closed, now, connack=connack)
        if link.accepted_at is not None:
            planned = closed.planned and inference is None
            self._owner.ended(self, planned, link.reason if planned else "closed", inference)
        if link is self._next:
            self._next_closed(link, closed, inference, now)
        elif link is self._leaving:
            self._leaving = None
            if self._attempt is not None and not self._opening:
                self._attempt.old_closed(now)
                self._advance()
        elif link is self._link:
            self._link_closed(inference, closed, now)

    def _next_closed(self, link: MqttLink, closed: Closed, inference: Inference | None, now: float) -> None:
        self._next = None
        attempt = self._attempt
        if attempt is None:
            return
        if inference is None:
            words = str(link.conversation.error or closed.detail)
            self._failure = self._failure or Failure(Ask.WAIT, words)
        else:
            self._failure = self._failure or Failure.of(inference)
        if self._dialing is not None:
            # It ended in the instant in which it was made: the dial has not returned yet, and is not waited for.
            self._dialing = None
            attempt.dial_failed(now)
        else:
            attempt.new_closed(now)
        self._advance()

    def _link_closed(self, inference: Inference | None, closed: Closed, now: float) -> None:
        attempt = self._attempt
        failure = Failure(Ask.WAIT, closed.detail) if inference is None else Failure.of(inference)
        if attempt is not None and attempt.connected:
            # The new connection ended while the old one was still being waited for.
            self._link = None
            self._failure = failure
            attempt.new_closed(now)
            self._advance()
        elif attempt is not None:
            self._link = None
            attempt.old_closed(now)
            self._advance()
        else:
            self._link = None
            self._held = False
            if self._closing is not None:
                self._closed()
            else:
                self._owner.lost(self, failure)

    def link_writable(self) -> None:
        if self.can_publish:
            self._owner.writable(self)

    def _note_in_flight(self, attempt: Handover) -> None:
        attempt.in_flight(self._memory.in_flight, self._carrier.clock.monotonic())
        self._advance()

    def _closed(self) -> None:
        self._closing = None
        self._held = False
        self._owner.closed(self)
