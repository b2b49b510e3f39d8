"""One device's MQTT session with us: from its CONNECT to its end.

    CONNECTING --CONNECT--> decided: OPEN, or HELD (asked again later), or REFUSING (the answer is paced)
    HELD ------------------> OPEN, REFUSING, or CONNACK 3 when the hold is over
    OPEN ------------------> OVER

The session carries what it is told between `protocol.mqtt` and two owners: the *front desk* (the listener) decides who
comes in, and the *traffic* (whoever carries messages to the hub) takes what the device says and answers it.

Promises: the traffic hears `device_arrived` once, then what the device says in order, then `device_left` once; a
takeover is `device_left` of the older before `device_arrived` of the newer. A PUBLISH that is too large or not on the
device's own topics never reaches the traffic: it ends the session, and no other session notices.

Not here: who may connect (admission.py), what becomes of a message, how long receipts take.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol

from gatewayd.clock import Clock
from gatewayd.downstream.admission import Admitted, Decision, HeldBecause, Hold, Refused
from gatewayd.errors import Bounded, LocalProtocolError
from gatewayd.message import Identity
from gatewayd.protocol.iothub.operations import (
    Operation,
    Topic,
    TopicFault,
    events_prefix,
    parse_from_device,
    subscriptions,
)
from gatewayd.protocol.mqtt.events import (
    Closed,
    ConnectReceived,
    PublishAcknowledged,
    PublishReceived,
    ServerEvent,
    SubscribeReceived,
    UnsubscribeReceived,
)
from gatewayd.protocol.mqtt.faults import CloseCause, ConnackCode
from gatewayd.protocol.mqtt.limits import MAX_MESSAGE_BYTES, Limits
from gatewayd.protocol.mqtt.packets import SUBSCRIPTION_REFUSED, Connect, Publish, Subscribe, Will
from gatewayd.protocol.mqtt.server import ServerConnection
from gatewayd.protocol.mqtt.session import Session
from gatewayd.transport.conversation import Conversation
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel
from gatewayd.transport.stream import Stream

# A client id is a stranger's text of up to 64 KiB; real ones have at most 128 + 1 + 128 characters.
_SHOWN_ID_LENGTH: Final = 257


class DeviceEnd(enum.Enum):
    """Why a device's session ended: the `reason` of gatewayd_disconnects_total{side="device"}."""

    DISCONNECT = "disconnect"
    CLOSED = "closed"
    TAKEOVER = "takeover"
    KEEP_ALIVE = "keep_alive"
    MALFORMED = "malformed"
    PROTOCOL_VIOLATION = "protocol_violation"
    TOO_LARGE = "too_large"
    FLOOD = "flood"
    QOS2 = "qos2"
    FOREIGN_TOPIC = "foreign_topic"
    TOO_SLOW = "too_slow"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105  # a reason, not a password
    CONNECT_TIMEOUT = "connect_timeout"
    REFUSED = "refused"
    SHUTDOWN = "shutdown"
    OURS = "ours"


_ENDS: Final = {
    CloseCause.DISCONNECTED: DeviceEnd.DISCONNECT,
    CloseCause.EOF: DeviceEnd.CLOSED,
    CloseCause.MALFORMED: DeviceEnd.MALFORMED,
    CloseCause.PROTOCOL_VIOLATION: DeviceEnd.PROTOCOL_VIOLATION,
    CloseCause.TOO_LARGE: DeviceEnd.TOO_LARGE,
    CloseCause.FLOOD: DeviceEnd.FLOOD,
    CloseCause.QOS2: DeviceEnd.QOS2,
    CloseCause.CONNECT_TIMEOUT: DeviceEnd.CONNECT_TIMEOUT,
    CloseCause.KEEP_ALIVE: DeviceEnd.KEEP_ALIVE,
    CloseCause.REFUSED: DeviceEnd.REFUSED,
    CloseCause.TAKEN_OVER: DeviceEnd.TAKEOVER,
    CloseCause.LOCAL: DeviceEnd.OURS,
}


class Phase(enum.Enum):
    """Where a session stands."""

    CONNECTING = "connecting"
    HELD = "held"
    REFUSING = "refusing"
    OPEN = "open"
    OVER = "over"


class DeviceTraffic(Protocol):
    """Whoever carries what devices say. Called from the event loop, one call at a time per session."""

    def session_present(self, identity: Identity, clean_session: bool) -> bool:
        """Whether subscriptions of an earlier connection are kept; a clean session is to forget them."""

    def memory(self, identity: Identity) -> Session:
        """What the device has not acknowledged of earlier connections: it gets that again after CONNACK. Asked for
        after `session_present`; empty for a clean session.
        """

    def device_arrived(self, session: DeviceSession) -> None:
        """The device has CONNACK 0."""

    def telemetry(self, session: DeviceSession, packet_id: int, publish: Publish) -> None:
        """A PUBLISH on the device's telemetry topic, within the hub's size. Answer QoS 1 by `session.receipt`."""

    def asked(self, session: DeviceSession, publish: Publish, topic: Topic) -> None:
        """A twin request or a method reply, its topic taken apart. Answer QoS 1 by `session.receipt`."""

    def subscribe(self, session: DeviceSession, packet_id: int, filters: tuple[tuple[str, int], ...]) -> None:
        """The device asks for documented filters of its own, with QoS 0 or 1. Answer by `session.grant`, one code for
        each.
        """

    def unsubscribe(self, session: DeviceSession, packet_id: int, filters: tuple[str, ...]) -> None:
        """The device gives filters up. Answer by `session.confirm_unsubscribe`."""

    def delivered(self, session: DeviceSession, packet_id: int) -> None:
        """The device has acknowledged what `session.publish` sent under this id, now or on an earlier connection."""

    def writable(self, session: DeviceSession) -> None:
        """The device takes bytes again after it was congested."""

    def device_left(self, session: DeviceSession, planned: bool, end: DeviceEnd) -> None:
        """The session is over. `session.owed_will` is what is now to be said for the device."""


class FrontDesk(Protocol):
    """The listener, as a session sees it."""

    clock: Clock
    wheel: DeadlineWheel
    traffic: DeviceTraffic

    @property
    def hold_seconds(self) -> float:
        """How long a CONNECT may wait for its answer."""

    def decide(self, connect: Connect, now: float, patience: float, counted: bool) -> Decision:
        """Who comes in; see Admission.decide."""

    def held(self, session: DeviceSession, because: HeldBecause) -> None:
        """A session begins to wait."""

    def refused(self, session: DeviceSession, refused: Refused) -> float:
        """A credential is wrong; the seconds until the device may be told."""

    def let_in(self, session: DeviceSession, admitted: Admitted) -> None:
        """A device is about to get CONNACK 0: end its older session."""

    def filter_refused(self, session: DeviceSession, topic_filter: str) -> None:
        """A device asked for a topic filter that is not one of its own at IoT Hub."""

    def left(self, session: DeviceSession, end: DeviceEnd, closed: Closed) -> None:
        """The session is over, whatever it was before."""


class DeviceSession:
    """The shell around one `ServerConnection`."""

    __slots__ = (
        "_address_due",
        "_asked_filters",
        "_automaton",
        "_connect",
        "_conversation",
        "_counted",
        "_deadline",
        "_desk",
        "_end",
        "_events_prefix",
        "_hold_until",
        "_wait_told",
        "admitted",
        "asked",
        "client_id",
        "owed_will",
        "peer_host",
        "phase",
    )

    def __init__(self, desk: FrontDesk, stream: Stream, limits: Limits, address_wait: float | None) -> None:
        """`address_wait`: seconds until this address has a place under its connect limit, None for never."""
        now = desk.clock.monotonic()
        self._desk = desk
        self._automaton = ServerConnection(limits, now)
        self._conversation = Conversation[ServerEvent, Closed](
            self._automaton,
            desk.wheel,
            desk.clock,
            self._on_event,
            self._on_closed,
            closed=Closed,
            on_writable=self._on_writable,
        )
        self._address_due = float("inf") if address_wait is None else now + address_wait
        self._connect: Connect | None = None  # while it waits for its answer
        self._deadline: Deadline | None = None  # while a wait is timed
        self._hold_until = 0.0
        self._wait_told = False
        self._counted = False
        self._end: DeviceEnd | None = None  # why we ended it, when we did
        self._events_prefix = ""
        # SUBSCRIBEs without an answer that hold filters not the device's own: which of them may be granted.
        self._asked_filters: dict[int, tuple[bool, ...]] | None = None
        self.phase = Phase.CONNECTING
        self.peer_host = stream.peer_address[0]
        self.client_id = ""
        self.asked = False  # a CONNECT came
        self.admitted: Admitted | None = None  # from CONNACK 0 on, and kept after the end
        self.owed_will: Will | None = None

    @property
    def identity(self) -> Identity:
        """Who the device is. Only after it was let in."""
        if self.admitted is None:
            raise LocalProtocolError("a session has an identity once it was let in")
        return self.admitted.identity

    @property
    def conversation(self) -> Conversation[ServerEvent, Closed]:
        """The stream's owner."""
        return self._conversation

    @property
    def congested(self) -> bool:
        """Whether the device takes our bytes more slowly than we send."""
        return self._conversation.congested

    # What the traffic does

    def receipt(self, packet_id: int) -> None:
        """Send PUBACK, in the order of the device's messages. After the end it does nothing."""
        self._automaton.acknowledge(packet_id)
        self._conversation.flush()

    def publish(self, topic: str, payload: bytes, qos: int) -> int:
        """Send a message to the device; its packet id, 0 for QoS 0. Raises Bounded when too many are under way."""
        packet_id = self._automaton.publish(topic, payload, qos)
        self._conversation.flush()
        return packet_id

    def grant(self, packet_id: int, codes: tuple[int, ...]) -> None:
        """Send SUBACK: a code for each filter that `DeviceTraffic.subscribe` was given. After the end nothing."""
        if self._asked_filters and (may_be_granted := self._asked_filters.pop(packet_id, None)):
            ours = iter(codes)
            codes = tuple(next(ours) if own else SUBSCRIPTION_REFUSED for own in may_be_granted)
        self._automaton.grant(packet_id, codes)
        self._conversation.flush()

    def confirm_unsubscribe(self, packet_id: int) -> None:
        """Send UNSUBACK. After the end it does nothing."""
        self._automaton.confirm_unsubscribe(packet_id)
        self._conversation.flush()

    def pause_reading(self) -> None:
        """Read nothing from the device. Its silence is then our doing: the keep-alive verdict is suspended."""
        if self.phase is Phase.OPEN:
            self._automaton.suspend_keep_alive()
            self._conversation.suspend()

    def resume_reading(self) -> None:
        """Read again; the device has a whole keep-alive from now."""
        if self.phase is Phase.OPEN:
            self._automaton.resume_keep_alive(self._desk.clock.monotonic())
            self._conversation.resume()

    def retune(self, limits: Limits) -> None:
        """Take new bounds; deadlines that run and the keep-alive that was granted stay."""
        self._automaton.retune(limits)

    def close(self, end: DeviceEnd, detail: str = "") -> None:
        """End the session, whatever its phase. MQTT 3.1.1 has no word for it: the device sees the stream end."""
        if self.phase is not Phase.OVER:
            self._end_now(end, detail)
            self._conversation.flush()

    def reconsider(self) -> None:
        """Something changed for those who wait: ask again."""
        if self.phase is Phase.HELD:
            self._go_on()

    def give_up_hold(self) -> None:
        """Answer 3 to a CONNECT that waits, now."""
        if self.phase in {Phase.HELD, Phase.REFUSING}:
            self._answer(ConnackCode.SERVER_UNAVAILABLE)
            self._conversation.flush()

    # What the device does

    def _on_event(self, event: ServerEvent) -> None:
        if isinstance(event, PublishReceived):  # nearly all are: before the patterns, which cost more
            if not event.joins:
                self._published(event.publish)
            return
        match event:
            case PublishAcknowledged(packet_id):
                self._desk.traffic.delivered(self, packet_id)
            case SubscribeReceived(subscribe):
                self._subscribed(subscribe)
            case UnsubscribeReceived(unsubscribe):
                self._desk.traffic.unsubscribe(self, unsubscribe.packet_id, unsubscribe.filters)
            case ConnectReceived(connect):
                self.client_id = connect.client_id[:_SHOWN_ID_LENGTH]
                self._connect = connect
                self.asked = True
                self._hold_until = self._desk.clock.monotonic() + self._desk.hold_seconds
                self._decide()
            case Closed():
                raise LocalProtocolError("a conversation gives its closing event to on_closed")

    def _published(self, publish: Publish) -> None:
        topic, prefix = publish.topic, self._events_prefix
        if topic.startswith(prefix):
            # IoT Hub counts the body and the properties against its 256 KiB.
            size = len(publish.payload) + len(topic) - len(prefix)
            if size > MAX_MESSAGE_BYTES:
                self._end_now(DeviceEnd.TOO_LARGE, f"a message of {size} bytes, at most {MAX_MESSAGE_BYTES}")
                return
        else:
            parsed = parse_from_device(self.identity, topic)
            if isinstance(parsed, TopicFault):
                self._end_now(DeviceEnd.FOREIGN_TOPIC, parsed.value)
                return
            if parsed.operation is not Operation.TELEMETRY:
                self._desk.traffic.asked(self, publish, parsed)
                return
        self._desk.traffic.telemetry(self, publish.packet_id, publish)

    def _subscribed(self, subscribe: Subscribe) -> None:
        documented = subscriptions(self.identity)
        own = tuple((name, min(qos, 1)) for name, qos in subscribe.filters if name in documented)
        if len(own) < len(subscribe.filters):
            for name, _ in subscribe.filters:
                if name not in documented:
                    self._desk.filter_refused(self, name[:_SHOWN_ID_LENGTH])
            if not own:
                self._automaton.grant(subscribe.packet_id, (SUBSCRIPTION_REFUSED,) * len(subscribe.filters))
                return
            if self._asked_filters is None:
                self._asked_filters = {}
            self._asked_filters[subscribe.packet_id] = tuple(
                name in documented for name, _ in subscribe.filters
            )
        self._desk.traffic.subscribe(self, subscribe.packet_id, own)

    def _on_writable(self) -> None:
        if self.phase is Phase.OPEN:
            self._desk.traffic.writable(self)

    def _on_closed(self, closed: Closed) -> None:
        was_open = self.phase is Phase.OPEN
        self.phase = Phase.OVER
        self._connect = None
        self._wait_until(None)
        end = self._end or _ENDS[closed.cause]
        if end is DeviceEnd.CLOSED and isinstance(self._conversation.error, Bounded):
            end = DeviceEnd.TOO_SLOW
        if was_open and closed.will is not None and self._may_say(closed.will):
            self.owed_will = closed.will
        self._desk.left(self, end, closed)
        if was_open:
            self._desk.traffic.device_left(self, closed.planned, end)

    def _may_say(self, will: Will) -> bool:
        """IoT Hub takes a will on the device's own telemetry topic and nowhere else."""
        topic = parse_from_device(self.identity, will.topic)
        return isinstance(topic, Topic) and topic.operation is Operation.TELEMETRY

    def _end_now(self, end: DeviceEnd, detail: str) -> None:
        """Decide the end; the turn under way or the next flush tells it."""
        self._end = end
        cause = CloseCause.TAKEN_OVER if end is DeviceEnd.TAKEOVER else CloseCause.LOCAL
        self._automaton.close(cause, detail or end.value)

    # Coming in

    def _decide(self) -> None:
        connect = self._connect
        if connect is None:
            raise LocalProtocolError(f"nothing to decide in phase {self.phase.value}")
        now = self._desk.clock.monotonic()
        patience = self._hold_until - now
        decision: Decision
        if now < self._address_due:
            wait = self._address_due - now
            decision = Hold(HeldBecause.ADDRESS_CONNECTS, wait if wait <= patience else None)
        else:
            decision = self._desk.decide(connect, now, max(0.0, patience), self._counted)
        match decision:
            case Admitted():
                self._let_in(connect, decision, now)
            case Refused():
                self.phase = Phase.REFUSING
                self._wait_until(now + self._desk.refused(self, decision))
            case Hold(because, seconds):
                self._hold(because, seconds, now, patience)

    def _let_in(self, connect: Connect, admitted: Admitted, now: float) -> None:
        self._wait_until(None)
        self._connect = None
        self.admitted = admitted
        self._events_prefix = f"{events_prefix(admitted.identity)}/"
        self._desk.let_in(self, admitted)
        traffic = self._desk.traffic
        kept = traffic.session_present(admitted.identity, connect.clean_session)
        self._automaton.accept(now, kept and not connect.clean_session, traffic.memory(admitted.identity))
        self.phase = Phase.OPEN
        traffic.device_arrived(self)

    def _hold(self, because: HeldBecause, seconds: float | None, now: float, patience: float) -> None:
        if patience <= 0:
            self._answer(ConnackCode.SERVER_UNAVAILABLE)
            return
        self.phase = Phase.HELD
        if not self._wait_told:
            self._wait_told = True
            self._desk.held(self, because)
        if seconds is None:
            self._wait_until(self._hold_until)
            return
        if because is HeldBecause.DEVICE_CONNECTS:
            self._counted = True
        self._wait_until(now + seconds)

    def _answer(self, code: ConnackCode) -> None:
        self._wait_until(None)
        self._automaton.refuse(code, self._desk.clock.monotonic())

    def _wait_until(self, when: float | None) -> None:
        if self._deadline is None:
            if when is None:
                return
            self._deadline = Deadline(self._waited)
        self._desk.wheel.set(self._deadline, when)
        if when is None:
            self._deadline = None

    def _waited(self, _now: float) -> None:
        self._go_on()

    def _go_on(self) -> None:
        """A wait is over. Whoever fails here leaves no session behind that waits for ever."""
        try:
            if self.phase is Phase.HELD:
                self._decide()
            elif self.phase is Phase.REFUSING:
                self._answer(ConnackCode.NOT_AUTHORIZED)
            self._conversation.flush()
        except Exception as error:
            self._conversation.abort(error)
            raise
