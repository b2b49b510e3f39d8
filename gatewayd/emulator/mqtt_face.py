"""One device connection at the hub: judges CONNECT, takes telemetry, delivers, and says in the log how it ended.

The core (`protocol.mqtt.server`) reads packets and keeps MQTT's rules; here are the hub's. MQTT 3.1.1 gives a server no
words: whatever the hub objects to after CONNACK, it closes the socket without a packet. The reason is in the log alone.

An accepted connection ends once, in `_over`. It is planned when the core read DISCONNECT before the end of the stream
and nothing went wrong before it; every other end is unplanned and has a code.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from gatewayd.emulator.connect_check import ConnectAllowed, ConnectRefused, check_connect
from gatewayd.emulator.connect_throttle import OverRate
from gatewayd.emulator.event_log import HubCode, Operation
from gatewayd.emulator.faults import FaultKind
from gatewayd.emulator.hub_state import MAX_MESSAGE_BYTES, HubState
from gatewayd.emulator.late_flow import LateFlow
from gatewayd.emulator.sas_check import RENEW_TEXT, AuthCause
from gatewayd.emulator.topics import MAX_SUBSCRIPTIONS, IdentityTopics, TopicKind, add_property, request_id
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
from gatewayd.protocol.mqtt.packets import SUBSCRIPTION_REFUSED, Connect, Publish, Subscribe, Unsubscribe
from gatewayd.protocol.mqtt.server import ServerConnection
from gatewayd.transport.conversation import Conversation
from gatewayd.transport.deadline_wheel import Deadline

# How long a CONNECT without an answer (a fault) is left open; clients give up after 30 to 60 s.
NO_CONNACK_SECONDS = 120.0

# The wheel keeps what is filed until its time; so nothing is filed further ahead than this, and looked at again then.
EXPIRY_LOOK_SECONDS = 60.0

TWIN_REPLIES = "$iothub/twin/res/#"

# What the core's verdict on a device is called in the hub's log; what is not here is a protocol error.
_CODES = {
    CloseCause.EOF: HubCode.CONNECTION_CLOSED,
    CloseCause.KEEP_ALIVE: HubCode.CONNECTION_CLOSED,
    CloseCause.QOS2: HubCode.EXACTLY_ONCE_NOT_SUPPORTED,
    CloseCause.TOO_LARGE: HubCode.TOO_LARGE,
}


class _Phase(Enum):
    WAITING = "waiting"  # for CONNECT
    HELD = "held"  # CONNECT is here, its answer is not yet due
    OPEN = "open"
    OVER = "over"


class MqttFace:
    """One connection, from the end of its TLS handshake on. Give `owner` to the stream."""

    __slots__ = (
        "_allowed",
        "_connect",
        "_connect_read_at",
        "_conversation",
        "_core",
        "_deadline",
        "_hub",
        "_late_receipts",
        "_outstanding",
        "_phase",
        "_receipt_deadline",
        "_topics",
        "number",
        "owner",
    )

    def __init__(self, hub: HubState, number: int) -> None:
        self.number = number
        self._hub = hub
        self._core = ServerConnection(hub.limits, hub.now())
        self._conversation: Conversation[ServerEvent, Closed] = Conversation(
            self._core, hub.wheel, hub.clock, self._on_event, self._on_closed, closed=Closed
        )
        self.owner = LateFlow(self._conversation, hub.wheel, hub.clock, self._input_delay, self._gone)
        self._phase = _Phase.WAITING
        self._deadline = Deadline(self._due)  # of a held answer, then of the token
        self._connect: Connect | None = None
        self._connect_read_at = 0.0
        self._allowed: ConnectAllowed | None = None
        self._topics: IdentityTopics | None = None
        self._outstanding: deque[int] = deque()  # ids of our QoS 1 publishes, in the order PUBACKs must have
        self._late_receipts: deque[tuple[float, int]] | None = None
        self._receipt_deadline: Deadline | None = None
        hub.all.add(self)

    @property
    def name(self) -> str:
        """The identity, or empty before CONNECT."""
        return self._connect.client_id if self._connect else ""

    # What the hub asks

    def end(self, code: HubCode, cause: str, text: str = "", detail: str = "") -> None:
        """Close the socket without a packet; the log says why."""
        if self._phase is _Phase.OPEN:
            self._over(code, cause, text=text, detail=detail)
        self._phase = _Phase.OVER
        self._core.close(CloseCause.LOCAL, cause)
        self._conversation.flush()

    def plan_expiry(self) -> None:
        """File the moment at which the token, and with it this connection, ends."""
        if self._phase is _Phase.OPEN and self._allowed is not None:
            left = self._allowed.expiry + self._hub.settings.grace_seconds - self._hub.wall()
            self._hub.wheel.set(self._deadline, self._hub.now() + min(max(0.0, left), EXPIRY_LOOK_SECONDS))

    def publish(self, topic_filter: str, topic: str, payload: bytes) -> bool:
        """QoS 0 to the device, if it has subscribed to `topic_filter`."""
        if self._phase is not _Phase.OPEN or topic_filter not in self._hub.session(self.name).subscriptions:
            return False
        self._core.publish(topic, payload, 0)
        self._conversation.flush()
        return True

    def send_cloud_messages(self) -> None:
        """Deliver what waits for the device and is not under way yet."""
        if self._phase is not _Phase.OPEN or self._topics is None:
            return
        session = self._hub.session(self.name)
        qos = session.subscriptions.get(f"{self._topics.commands}#")
        if qos is None:
            return
        for message in list(session.cloud_messages)[len(self._outstanding) :]:
            packet_id = self._core.publish(self._topics.commands + message.bag, message.payload, qos)
            if qos:
                self._outstanding.append(packet_id)
            else:
                session.cloud_messages.popleft()
        self._conversation.flush()

    # What the device says

    def _on_event(self, event: ServerEvent) -> None:
        match event:
            case PublishReceived(publish):
                self._take_publish(publish, joins=event.joins)
            case PublishAcknowledged(packet_id):
                self._take_receipt(packet_id)
            case SubscribeReceived(subscribe):
                self._subscribe(subscribe)
            case UnsubscribeReceived(unsubscribe):
                self._unsubscribe(unsubscribe)
            case ConnectReceived(connect):
                self._take_connect(connect)
            case Closed():
                raise AssertionError("the closing event comes by _on_closed")

    def _on_closed(self, closed: Closed) -> None:
        phase = self._phase
        if phase is _Phase.OPEN:
            if closed.planned:
                self._over(HubCode.NONE, closed.cause.value, planned=True)
            else:
                self._over(
                    _CODES.get(closed.cause, HubCode.PROTOCOL_ERROR),
                    self._cause(closed),
                    detail=closed.detail,
                )
        elif phase is _Phase.WAITING and closed.cause is CloseCause.EOF:
            self._hub.without_connect += 1
        elif phase is _Phase.WAITING:
            self._log(
                Operation.CONNECT, HubCode.PROTOCOL_ERROR, cause=closed.cause.value, detail=closed.detail
            )
        self._phase = _Phase.OVER
        self._hub.wheel.set(self._deadline, None)
        if self._receipt_deadline is not None:
            self._hub.wheel.set(self._receipt_deadline, None)

    def _cause(self, closed: Closed) -> str:
        if closed.cause is not CloseCause.EOF:
            return str(closed.cause.value)
        return "closed_without_disconnect" if self._conversation.error is None else "connection_lost"

    # CONNECT

    def _take_connect(self, connect: Connect) -> None:
        hub = self._hub
        self._connect = connect
        self._connect_read_at = now = hub.now()
        self._phase = _Phase.HELD
        hub.counts.connect(now)
        if hub.take_fault(FaultKind.NO_CONNACK, self.name) is not None:
            hub.wheel.set(self._deadline, now + NO_CONNACK_SECONDS)
            self._allowed = None
            self._log(Operation.CONNECT, HubCode.UNAVAILABLE, cause="no_connack")
            return
        admission = hub.throttle.admit(now)
        if admission.over:
            mode = hub.throttle.mode
            self._log(Operation.CONNECT, HubCode.THROTTLED, cause=mode, text="Request rate is too high")
            if admission.admitted:
                hub.wheel.set(self._deadline, now + admission.hold)
            elif mode is OverRate.REFUSE:
                self._refuse(ConnackCode.SERVER_UNAVAILABLE)
            else:
                self.end(HubCode.THROTTLED, mode)
            return
        self._judge(connect)

    def _judge(self, connect: Connect) -> None:
        hub = self._hub
        verdict = check_connect(
            connect.client_id,
            connect.username,
            connect.password,
            hub.registry,
            hostname=hub.settings.hostname,
            wall=hub.wall(),
            skew_seconds=hub.settings.skew_seconds,
        )
        if isinstance(verdict, ConnectRefused):
            self._log(Operation.CONNECT, verdict.code, verdict.cause, verdict.text, verdict.detail)
            self._refuse(ConnackCode.NOT_AUTHORIZED)
        elif connect.will and not self._is_own_telemetry(connect.will.topic):
            self._log(Operation.CONNECT, HubCode.ARGUMENT_INVALID, "foreign_will_topic")
            self._refuse(ConnackCode.NOT_AUTHORIZED)
        elif hub.take_fault(FaultKind.CONNACK_3, self.name) is not None:
            self._log(Operation.CONNECT, HubCode.UNAVAILABLE, "fault", "Service is unavailable")
            self._refuse(ConnackCode.SERVER_UNAVAILABLE)
        elif hub.take_fault(FaultKind.CONNACK_5, self.name) is not None:
            self._log(Operation.CONNECT, HubCode.UNAUTHORIZED, "fault", RENEW_TEXT)
            self._refuse(ConnackCode.NOT_AUTHORIZED)
        else:
            self._accept(connect, verdict)

    def _accept(self, connect: Connect, allowed: ConnectAllowed) -> None:
        hub = self._hub
        older = hub.open.get(self.name)
        if older is not None:
            older.end(
                HubCode.TAKEN_OVER,
                "taken_over",
                "A new connection of this device closed this one",
                f"connection {self.number}",
            )
        lies = hub.take_fault(FaultKind.LIE_SESSION_PRESENT, self.name) is not None
        lost = hub.take_fault(FaultKind.LOSE_SUBSCRIPTIONS, self.name) is not None
        present = hub.session(self.name).open(clean=connect.clean_session, lost=lost or lies)
        self._allowed = allowed
        self._topics = IdentityTopics.of(self.name)
        self._phase = _Phase.OPEN
        hub.open[self.name] = self
        hub.counts.accepted(self.name, self._connect_read_at)
        self._core.accept(hub.now(), present or (lies and not connect.clean_session))
        self._log(Operation.CONNECT)
        self.plan_expiry()
        self.send_cloud_messages()
        self._conversation.flush()

    def _refuse(self, code: ConnackCode) -> None:
        self._phase = _Phase.OVER
        self._core.refuse(code, self._hub.now())
        self._conversation.flush()

    def _is_own_telemetry(self, topic: str) -> bool:
        return IdentityTopics.of(self.name).kind(topic) is TopicKind.TELEMETRY

    # Packets of an open connection

    def _take_publish(self, publish: Publish, *, joins: bool) -> None:
        hub = self._hub
        assert self._topics is not None
        if hub.take_fault(FaultKind.DROP_ON_PUBLISH, self.name) is not None:
            self.end(HubCode.CONNECTION_CLOSED, "dropped", "The connection was dropped", "fault")
            return
        kind = self._topics.kind(publish.topic)
        if kind is TopicKind.FOREIGN:
            self.end(HubCode.ARGUMENT_INVALID, "foreign_topic", "The topic is not one of this device")
            return
        if kind is TopicKind.TELEMETRY:
            bag = self._topics.bag(publish.topic)
            if len(bag.encode()) + len(publish.payload) > MAX_MESSAGE_BYTES:
                self.end(HubCode.TOO_LARGE, "message_too_large", "The message is over 256 KB")
                return
            if publish.retain:
                bag = add_property(bag, "mqtt-retain=true")
            self._store(bag, publish.payload, publish.qos, dup=publish.dup)
        else:
            self._answer(kind, publish)
        if publish.qos and not joins:
            self._receipt(publish.packet_id)

    def _answer(self, kind: TopicKind, publish: Publish) -> None:
        rid = request_id(publish.topic)
        twin = self._hub.twin(self.name)
        if kind is TopicKind.TWIN_GET:
            self.publish(TWIN_REPLIES, f"$iothub/twin/res/200/?$rid={rid}", twin.read())
        elif kind is TopicKind.TWIN_PATCH:
            status = twin.report(publish.payload)
            version = f"&$version={twin.reported_version}" if status == 204 else ""
            self.publish(TWIN_REPLIES, f"$iothub/twin/res/{status}/?$rid={rid}{version}", b"")
        else:
            call = self._hub.method_calls.get(rid)
            status_text = publish.topic.removeprefix("$iothub/methods/res/").partition("/")[0]
            if call is not None and not call.done() and status_text.isdecimal():
                call.set_result((int(status_text), publish.payload))

    def _store(self, bag: str, payload: bytes, qos: int, *, dup: bool) -> None:
        hub = self._hub
        hub.ledger.add(
            self.name,
            bag,
            payload,
            qos=qos,
            dup=dup,
            connection=self.number,
            wall=hub.wall(),
            monotonic=hub.now(),
        )

    def _receipt(self, packet_id: int) -> None:
        hub = self._hub
        # The core keeps PUBACKs in order, so those behind a dropped one stay away too.
        if hub.take_fault(FaultKind.PUBACK_DROP, self.name) is None:
            delay = hub.take_fault(FaultKind.PUBACK_DELAY, self.name)
            if delay is None:
                self._core.acknowledge(packet_id)
            else:
                self._receipt_later(packet_id, delay)
        if self._core.is_parked:
            self._conversation.suspend()

    def _receipt_later(self, packet_id: int, delay: float) -> None:
        if self._late_receipts is None or self._receipt_deadline is None:
            self._late_receipts = deque()
            self._receipt_deadline = Deadline(self._receipts_due)
        self._late_receipts.append((self._hub.now() + delay, packet_id))
        self._hub.wheel.set(self._receipt_deadline, self._late_receipts[0][0])

    def _receipts_due(self, now: float) -> None:
        late = self._late_receipts
        assert late is not None
        assert self._receipt_deadline is not None
        while late and late[0][0] <= now:
            self._core.acknowledge(late.popleft()[1])
        self._hub.wheel.set(self._receipt_deadline, late[0][0] if late else None)
        if not self._core.is_parked:
            self._conversation.resume()
        self._conversation.flush()

    def _take_receipt(self, packet_id: int) -> None:
        if not self._outstanding or self._outstanding[0] != packet_id:
            self.end(
                HubCode.INVALID_PUBACK_ORDER, "puback_order", "PUBACKs must come in the order of messages"
            )
            return
        self._outstanding.popleft()
        self._hub.session(self.name).cloud_messages.popleft()

    def _subscribe(self, subscribe: Subscribe) -> None:
        assert self._topics is not None
        subscriptions = self._hub.session(self.name).subscriptions
        codes = []
        for topic_filter, qos in subscribe.filters:
            room = topic_filter in subscriptions or len(subscriptions) < MAX_SUBSCRIPTIONS
            if topic_filter in self._topics.filters and room:
                subscriptions[topic_filter] = min(qos, 1)
                codes.append(min(qos, 1))
            elif self._hub.settings.close_on_foreign_filter:
                self.end(HubCode.ARGUMENT_INVALID, "foreign_filter", "The filter is not one of the service")
                return
            else:
                self._log(Operation.OPERATION, HubCode.ARGUMENT_INVALID, "foreign_filter")
                codes.append(SUBSCRIPTION_REFUSED)
        self._core.grant(subscribe.packet_id, tuple(codes))
        self.send_cloud_messages()

    def _unsubscribe(self, unsubscribe: Unsubscribe) -> None:
        for topic_filter in unsubscribe.filters:
            self._hub.session(self.name).subscriptions.pop(topic_filter, None)
        self._core.confirm_unsubscribe(unsubscribe.packet_id)

    # Time

    def _due(self, now: float) -> None:
        """A held CONNECT may go on, or a token and its grace have ended."""
        if self._phase is _Phase.HELD and self._connect is not None:
            if now - self._connect_read_at >= NO_CONNACK_SECONDS:
                self.end(HubCode.UNAVAILABLE, "no_connack")
            else:
                self._judge(self._connect)
            return
        if self._phase is not _Phase.OPEN or self._allowed is None:
            return
        late = self._hub.wall() - self._allowed.expiry - self._hub.settings.grace_seconds
        if late < 0:
            self.plan_expiry()
            return
        self._log(
            Operation.AUTHORIZATION,
            HubCode.UNAUTHORIZED,
            AuthCause.EXPIRED,
            RENEW_TEXT,
            "on an open connection",
        )
        self.end(
            HubCode.CONNECTION_CLOSED,
            "token_expired",
            "Device connection was closed",
            f"{late * 1000:.1f} ms late",
        )

    # The end

    def _over(
        self, code: HubCode, cause: str, *, planned: bool = False, text: str = "", detail: str = ""
    ) -> None:
        hub = self._hub
        self._phase = _Phase.OVER
        hub.wheel.set(self._deadline, None)
        if hub.open.get(self.name) is self:
            del hub.open[self.name]
        if planned:
            hub.counts.planned_end(self.name, hub.now())
        else:
            hub.counts.unplanned_end(self.name)
            self._deliver_will()
        self._log(Operation.DISCONNECT, code, cause, text, detail, planned=planned)

    def _deliver_will(self) -> None:
        will = self._connect.will if self._connect else None
        if will is not None and self._topics is not None:
            bag = add_property(self._topics.bag(will.topic), "iothub-MessageType=Will")
            self._store(bag, will.payload, will.qos, dup=False)

    def _gone(self) -> None:
        self._hub.forget(self)

    def _input_delay(self) -> float:
        """How late what comes in is to be processed now."""
        faults = self._hub.faults
        now = self._hub.now()
        delay = faults.find(FaultKind.INPUT_DELAY, self.name, now)
        if delay is None and self._phase is _Phase.OPEN:
            delay = faults.find(FaultKind.OLD_FLOW_DELAY, self.name, now)
        return 0.0 if delay is None else delay.value

    def _log(
        self,
        operation: Operation,
        code: HubCode = HubCode.NONE,
        cause: str = "",
        text: str = "",
        detail: str = "",
        *,
        planned: bool | None = None,
    ) -> None:
        self._hub.log(
            operation,
            code,
            cause=cause,
            identity=self.name,
            text=text,
            detail=detail,
            planned=planned,
            connection=self.number,
        )
