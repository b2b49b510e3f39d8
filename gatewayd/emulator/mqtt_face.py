"""One device connection at the hub: judges CONNECT, lets `DeviceTraffic` carry it, and says in the log how it ended.

The core (`protocol.mqtt.server`) reads packets and keeps MQTT's rules; here are the hub's. MQTT 3.1.1 gives a server no
words: whatever the hub objects to after CONNACK, it closes the socket without a packet. The reason is in the log alone.

An accepted connection ends once, in `_over`. It is planned when the core read DISCONNECT before the end of the stream
and nothing went wrong before it; every other end is unplanned and has a code.
"""

from __future__ import annotations

from enum import Enum

from gatewayd.emulator.connect_check import ConnectAllowed, ConnectRefused, check_connect
from gatewayd.emulator.connect_throttle import OverRate
from gatewayd.emulator.device_traffic import DeviceTraffic
from gatewayd.emulator.event_log import HubCode, Operation
from gatewayd.emulator.faults import FaultKind
from gatewayd.emulator.hub_state import HubState
from gatewayd.emulator.late_flow import LateFlow
from gatewayd.emulator.sas_check import RENEW_TEXT, AuthCause
from gatewayd.emulator.token_end import TokenEnd
from gatewayd.emulator.topics import IdentityTopics, TopicKind
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
from gatewayd.protocol.mqtt.packets import Connect
from gatewayd.protocol.mqtt.server import ServerConnection
from gatewayd.transport.conversation import Conversation
from gatewayd.transport.deadline_wheel import Deadline

# How long a CONNECT without an answer (a fault) is left open; clients give up after 30 to 60 s.
NO_CONNACK_SECONDS = 120.0

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
        "_connect",
        "_connect_read_at",
        "_conversation",
        "_core",
        "_deadline",
        "_hub",
        "_phase",
        "_token",
        "_traffic",
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
        self._deadline = Deadline(self._due)  # of a held answer
        self._connect: Connect | None = None
        self._connect_read_at = 0.0
        self._token: TokenEnd | None = None
        self._traffic: DeviceTraffic | None = None
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
        if self._phase is _Phase.OPEN and self._token is not None:
            self._token.plan()

    def publish(self, topic_filter: str, topic: str, payload: bytes) -> bool:
        """QoS 0 to the device, if it has subscribed to `topic_filter`."""
        return (
            self._phase is _Phase.OPEN
            and self._traffic is not None
            and self._traffic.send(topic_filter, topic, payload)
        )

    def send_cloud_messages(self) -> None:
        """Deliver what waits for the device and is not under way yet."""
        if self._phase is _Phase.OPEN and self._traffic is not None:
            self._traffic.cloud.offer()
            self._conversation.flush()

    # What the device says

    def _on_event(self, event: ServerEvent) -> None:
        traffic = self._traffic
        match event:
            case PublishReceived(publish) if traffic is not None:
                traffic.publish(publish, joins=event.joins)
            case PublishAcknowledged(packet_id) if traffic is not None:
                traffic.acknowledged(packet_id)
            case SubscribeReceived(subscribe) if traffic is not None:
                traffic.subscribe(subscribe)
            case UnsubscribeReceived(unsubscribe) if traffic is not None:
                traffic.unsubscribe(unsubscribe)
            case ConnectReceived(connect):
                self._take_connect(connect)
            case _:
                raise AssertionError(
                    "the closing event comes by _on_closed, all others after CONNECT was accepted"
                )

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
        stored = hub.session(self.name)
        fresh_ids = not hub.settings.keep_packet_ids
        present = stored.open(clean=connect.clean_session, lost=lost or lies, fresh_ids=fresh_ids)
        stored.sweep(hub.now(), hub.wall())
        self._token = TokenEnd(hub, allowed.expiry, self._token_ended)
        self._traffic = DeviceTraffic(
            hub, self._core, self._conversation, IdentityTopics.of(self.name), self.end, self.number
        )
        self._phase = _Phase.OPEN
        hub.open[self.name] = self
        hub.counts.accepted(self.name, self._connect_read_at)
        self._core.accept(hub.now(), present or (lies and not connect.clean_session), stored.mqtt)
        self._log(Operation.CONNECT)
        self.plan_expiry()
        self._traffic.cloud.resumed()
        self._conversation.flush()
        hub.reached.tell(self.name)

    def _refuse(self, code: ConnackCode) -> None:
        self._phase = _Phase.OVER
        self._core.refuse(code, self._hub.now())
        self._conversation.flush()

    def _is_own_telemetry(self, topic: str) -> bool:
        return IdentityTopics.of(self.name).kind(topic) is TopicKind.TELEMETRY

    # Time

    def _due(self, now: float) -> None:
        """A held CONNECT may go on."""
        if self._phase is not _Phase.HELD or self._connect is None:
            return
        if now - self._connect_read_at >= NO_CONNACK_SECONDS:
            self.end(HubCode.UNAVAILABLE, "no_connack")
        else:
            self._judge(self._connect)

    def _token_ended(self, late: float) -> None:
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
        if self._token is not None:
            self._token.close()
        if hub.open.get(self.name) is self:
            del hub.open[self.name]
        if planned:
            hub.counts.planned_end(self.name, hub.now())
        else:
            hub.counts.unplanned_end(self.name)
        if self._traffic is not None:
            self._traffic.closed(None if planned or self._connect is None else self._connect.will)
        self._log(Operation.DISCONNECT, code, cause, text, detail, planned=planned)

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
