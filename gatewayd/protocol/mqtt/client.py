"""The client role of MQTT 3.1.1, sans-IO: one connection, and the session that outlives it.

A connection may be made long before connect(), on a socket dialled ahead. Publishing is allowed from CONNACK
0 to disconnect(). Right after CONNACK 0 everything the server has not acknowledged goes out again, same id,
same order, DUP set.

Promises: never sends QoS 2; PUBACKs leave in the order the PUBLISHes came; PINGREQ goes out before the
keep-alive runs out in either direction, and a server that does not answer it in time is given up. After
disconnect() PUBACKs still settle, messages are left for the server to send again (nothing may be sent behind
DISCONNECT [MQTT-3.14.4-2]), and the end is planned.
"""

from __future__ import annotations

from typing import Final

from gatewayd.errors import LocalProtocolError
from gatewayd.protocol.mqtt.connection import NO_REQUESTS, Connection, Handler, Row, rows
from gatewayd.protocol.mqtt.events import (
    ClientEvent,
    ConnackReceived,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from gatewayd.protocol.mqtt.faults import CloseCause, ConnackCode, PeerFault
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packet_ids import ReceiptOrder
from gatewayd.protocol.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    encode,
)
from gatewayd.protocol.mqtt.session import Session
from gatewayd.protocol.mqtt.transitions import CLIENT_PACKETS, CLIENT_VERBS, Action, ClientState, Verb

__all__ = ["PING_FRACTION", "ClientConnection", "ClientSession"]

ClientSession = Session
"""The client's half of the session state (3.1.2.4)."""

PING_FRACTION: Final = 0.75
"""PINGREQ goes out after this part of the keep-alive, so that a late timer or a slow network does not make it
late.
"""

_PINGREQ: Final = encode(Pingreq())
_DISCONNECT: Final = encode(Disconnect())
# Asked with every message, and on Python 3.11 a look into an enum costs as much as three calls.
_OPEN: Final = ClientState.OPEN
_PUBLISH: Final = Verb.PUBLISH


class ClientConnection(Connection[ClientEvent]):
    """One connection to a server. `now` is monotonic seconds, here and everywhere."""

    __slots__ = ("_answer_by", "_clean_session", "_last_sent", "_ping_interval", "_state")

    def __init__(self, session: ClientSession, limits: Limits) -> None:
        super().__init__(limits, session, limits.max_packet_bytes, 0.0)
        self._clean_session = False
        self._last_sent = 0.0
        # None when the keep-alive is 0: no pings.
        self._ping_interval: float | None = None
        # When CONNACK, PINGRESP or the end of the stream must have come, whichever is awaited.
        self._answer_by: float | None = None
        self._enter(ClientState.IDLE)

    @classmethod
    def bind(cls) -> dict[ClientState, Row[ClientEvent | None]]:
        """CLIENT_PACKETS with this class's methods for its actions."""
        handlers: dict[Action, Handler[ClientEvent | None]] = {
            Action.TAKE_CONNACK: cls._take_connack,
            Action.TAKE_PUBLISH: cls._take_publish,
            Action.SETTLE: cls._settle,
            Action.TAKE_SUBACK: cls._take_suback,
            Action.TAKE_UNSUBACK: cls._take_unsuback,
            Action.TAKE_PINGRESP: cls._take_pingresp,
            Action.REFUSE_QOS2: cls._refuse_qos2,
            Action.IGNORE: cls._ignore,
        }
        return rows(ClientState, CLIENT_PACKETS, handlers)

    @property
    def state(self) -> ClientState:
        return self._state

    # Deadlines

    def deadline(self) -> float | None:
        """When handle_deadline must be called, if nothing comes before."""
        if self._state is not _OPEN:
            return self._answer_by
        ping_at = self._ping_at()
        answer_by = None if self._is_parked else self._answer_by
        if answer_by is None or ping_at is None:
            return answer_by if ping_at is None else ping_at
        return min(answer_by, ping_at)

    def handle_deadline(self, now: float) -> None:
        """Pings, or gives up what did not come in time."""
        if self._answer_by is not None and now >= self._answer_by and not self._is_parked:
            self._miss_answer(now)
        ping_at = self._ping_at()
        if ping_at is not None and now >= ping_at and not self._is_over:
            self._out.append(_PINGREQ)
            self._last_sent = now
            if self._answer_by is None:
                self._answer_by = now + self._limits.ping_timeout

    # Verbs

    def connect(self, packet: Connect, now: float) -> None:
        """Sends CONNECT. A clean session must have nothing to continue."""
        state = self._require(Verb.CONNECT)
        if packet.clean_session and self._session.in_flight:
            raise LocalProtocolError("a clean session continues nothing [MQTT-3.1.2-6]")
        self._clean_session = packet.clean_session
        if packet.keep_alive:
            self._ping_interval = packet.keep_alive * PING_FRACTION
        self._answer_by = now + self._limits.connect_timeout
        self._last_heard = now
        self._send(encode(packet), now)
        self._enter(state)

    def publish(self, topic: str, payload: bytes, qos: int, now: float, retain: bool = False) -> int:
        """Sends a message; its packet id, or 0 for QoS 0. Raises Bounded at `max_in_flight`."""
        self._require(_PUBLISH)
        packet_id = self._send_publish(topic, payload, qos, retain)
        self._last_sent = now
        return packet_id

    def subscribe(self, filters: tuple[tuple[str, int], ...], now: float) -> int:
        """Asks for topics, each with QoS 0 or 1; the request's packet id. A request ends with its
        connection.
        """
        self._require(Verb.SUBSCRIBE)
        if any(qos > 1 for _, qos in filters):
            raise LocalProtocolError("subscribe with QoS 2: expected 0 or 1, IoT Hub carries no QoS 2")
        packet = Subscribe(self._session.new_packet_id(self._our_requests), filters)
        self._send_request(packet, len(filters), now)
        return packet.packet_id

    def unsubscribe(self, filters: tuple[str, ...], now: float) -> int:
        """Gives topics up; the request's packet id."""
        self._require(Verb.UNSUBSCRIBE)
        packet = Unsubscribe(self._session.new_packet_id(self._our_requests), filters)
        self._send_request(packet, 0, now)
        return packet.packet_id

    def acknowledge(self, packet_id: int) -> None:
        """As on a server; does nothing after disconnect() either, because nothing may follow DISCONNECT."""
        if self._state is not ClientState.LEAVING:
            super().acknowledge(packet_id)

    def disconnect(self, now: float) -> None:
        """Sends DISCONNECT. Closed follows when the server ends the stream, or after `disconnect_timeout`."""
        state = self._require(Verb.DISCONNECT)
        self._send(_DISCONNECT, now)
        # What is not acknowledged by now never will be, and must not keep PUBACKs from being read.
        self._receipts = ReceiptOrder()
        self._is_parked = False
        self._answer_by = now + self._limits.disconnect_timeout
        self._enter(state)

    # Actions

    def _take_connack(self, packet: Connack) -> ConnackReceived:
        self._answer_by = None
        if packet.code is not ConnackCode.ACCEPTED:
            self._close(CloseCause.REFUSED, f"refused with CONNACK {packet.code:d}")
        elif packet.session_present and self._clean_session:
            raise PeerFault(
                "session present for a clean session",
                clause="MQTT-3.2.2-1",
                cause=CloseCause.PROTOCOL_VIOLATION,
            )
        else:
            self._enter(ClientState.OPEN)
            self._carry_session()
        return ConnackReceived(packet.code, packet.session_present)

    def _take_suback(self, packet: Suback) -> SubscribeAcknowledged:
        if self._our_requests.get(packet.packet_id, 0) != len(packet.codes):
            raise _answers_nothing(
                f"SUBACK {packet.packet_id} with {len(packet.codes)} codes", "MQTT-3.8.4-5"
            )
        del self._our_requests[packet.packet_id]
        return SubscribeAcknowledged(packet.packet_id, packet.codes)

    def _take_unsuback(self, packet: Unsuback) -> UnsubscribeAcknowledged:
        if self._our_requests.get(packet.packet_id) != 0:
            raise _answers_nothing(f"UNSUBACK {packet.packet_id}", "MQTT-3.10.4-5")
        del self._our_requests[packet.packet_id]
        return UnsubscribeAcknowledged(packet.packet_id)

    def _take_pingresp(self, _packet: Pingresp) -> None:
        """Also one that was not asked for: it says nothing but that the server lives."""
        self._answer_by = None

    def _ignore(self, _packet: Publish | Pingresp) -> None:
        """The connection is being left; see CLIENT_PACKETS."""

    # Within

    def _ping_at(self) -> float | None:
        """When silence in either direction has lasted too long. A ping under way already asks the server."""
        if self._state is not _OPEN or self._ping_interval is None:
            return None
        sent, heard = self._last_sent, self._last_heard
        quiet_since = sent if self._answer_by is not None or sent < heard else heard
        return quiet_since + self._ping_interval

    def _miss_answer(self, now: float) -> None:
        if self._state is ClientState.CONNECTING:
            self._close(CloseCause.CONNECT_TIMEOUT, f"no CONNACK within {self._limits.connect_timeout:g} s")
        elif self._state is ClientState.LEAVING:
            self._close(
                CloseCause.DISCONNECTED, "the server did not end the stream after DISCONNECT", planned=True
            )
        elif self._was_parked:
            self._was_parked = False
            self._answer_by = now + self._limits.ping_timeout
        else:
            self._close(CloseCause.KEEP_ALIVE, f"no PINGRESP within {self._limits.ping_timeout:g} s")

    def _send_request(self, packet: Subscribe | Unsubscribe, awaited_codes: int, now: float) -> None:
        self._send(encode(packet), now)
        if self._our_requests is NO_REQUESTS:
            self._our_requests = {}
        self._our_requests[packet.packet_id] = awaited_codes

    def _send(self, data: bytes, now: float) -> None:
        self._out.append(data)
        self._last_sent = now

    def _enter(self, state: ClientState) -> None:
        self._state = state
        self._row = _ROWS[state]

    def _require(self, verb: Verb) -> ClientState:
        """The state `verb` leads to from here."""
        to = CLIENT_VERBS.get((self._state, verb))
        if to is None:
            raise LocalProtocolError(f"{verb.value}() on a connection that is {self._state.value}")
        return to

    def _end_stream(self) -> None:
        if self._state is ClientState.LEAVING:
            self._close(CloseCause.DISCONNECTED, "the stream ended after DISCONNECT", planned=True)
        else:
            super()._end_stream()

    def _leave(self) -> None:
        self._answer_by = None
        self._enter(ClientState.OVER)


def _answers_nothing(what: str, clause: str) -> PeerFault:
    return PeerFault(f"{what} answers no request", clause=clause, cause=CloseCause.PROTOCOL_VIOLATION)


_ROWS: Final = ClientConnection.bind()
