"""The server role of MQTT 3.1.1, sans-IO: one connection of one client.

Promises: CONNECT comes first and once; nothing behind it is read before accept(), however long the owner
thinks; PUBACKs leave in the order the PUBLISHes came; a QoS 2 SUBSCRIBE is granted 1 and a QoS 2 PUBLISH ends
the connection with QOS2, as IoT Hub does; a client silent for one and a half times its keep-alive is ended,
unless we were not reading it.

DISCONNECT is the end at once [MQTT-3.14.4-3], and it is planned. A client must send nothing behind it
[MQTT-3.14.4-2]; what it sends all the same is never read, because a verdict on it would depend on how TCP cut
the stream.

Does not know who may connect, what topics mean, or what a session was before: that is the owner's.
"""

from __future__ import annotations

from typing import Final

from gatewayd.errors import LocalProtocolError
from gatewayd.protocol.mqtt.connection import NO_REQUESTS, Connection, Handler, Row, reused, rows
from gatewayd.protocol.mqtt.events import (
    ConnectReceived,
    ServerEvent,
    SubscribeReceived,
    UnsubscribeReceived,
)
from gatewayd.protocol.mqtt.faults import CloseCause, ConnackCode, PeerFault
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import (
    SUBSCRIPTION_REFUSED,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    encode,
)
from gatewayd.protocol.mqtt.session import Session
from gatewayd.protocol.mqtt.transitions import SERVER_PACKETS, SERVER_VERBS, Action, ServerState, Verb

KEEP_ALIVE_TOLERANCE: Final = 1.5
"""Silence for longer than this many keep-alives ends the connection [MQTT-3.1.2-24]."""

_PINGRESP: Final = encode(Pingresp())
# Asked with every message, and on Python 3.11 a look into an enum costs as much as three calls.
_OPEN: Final = ServerState.OPEN


class ServerConnection(Connection[ServerEvent]):
    """One client's connection. `now` is monotonic seconds, here and everywhere."""

    __slots__ = ("_connect", "_connect_by", "_patience", "_state", "_suspended", "_will")

    def __init__(self, limits: Limits, now: float) -> None:
        super().__init__(limits, Session(), limits.max_connect_bytes, now)
        # While it is held. Its password must not outlive the decision; of what it said only the will does.
        self._connect: Connect | None = None
        self._will: Will | None = None
        self._connect_by = now + limits.connect_timeout
        self._patience = limits.max_keep_alive
        self._suspended = False
        self._enter(ServerState.AWAITING_CONNECT)

    @classmethod
    def bind(cls) -> dict[ServerState, Row[ServerEvent | None]]:
        """SERVER_PACKETS with this class's methods for its actions."""
        handlers: dict[Action, Handler[ServerEvent | None]] = {
            Action.HOLD_CONNECT: cls._hold_connect,
            Action.TAKE_PUBLISH: cls._take_publish,
            Action.SETTLE: cls._settle,
            Action.TAKE_SUBSCRIBE: cls._take_subscribe,
            Action.TAKE_UNSUBSCRIBE: cls._take_unsubscribe,
            Action.ANSWER_PING: cls._answer_ping,
            Action.END_AS_PLANNED: cls._end_as_planned,
            Action.REFUSE_QOS2: cls._refuse_qos2,
        }
        return rows(ServerState, SERVER_PACKETS, handlers)

    @property
    def state(self) -> ServerState:
        return self._state

    # Deadlines

    def deadline(self) -> float | None:
        """When handle_deadline must be called, if nothing comes before."""
        if self._state is _OPEN:
            if self._suspended or self._is_parked:
                return None
            return self._last_heard + self._patience
        return self._connect_by if self._state is ServerState.AWAITING_CONNECT else None

    def handle_deadline(self, now: float) -> None:
        """Judges the client's silence, if it is time to."""
        deadline = self.deadline()
        if deadline is None or now < deadline:
            return
        if self._state is ServerState.AWAITING_CONNECT:
            self._close(CloseCause.CONNECT_TIMEOUT, f"no CONNECT within {self._limits.connect_timeout:g} s")
        elif self._was_parked:
            self.resume_keep_alive(now)
        else:
            self._close(CloseCause.KEEP_ALIVE, f"silent for {now - self._last_heard:.1f} s")

    def suspend_keep_alive(self) -> None:
        """The owner stops reading: the client's silence is our own doing."""
        self._suspended = True

    def resume_keep_alive(self, now: float) -> None:
        """The owner reads again; the client has a whole period from here."""
        self._suspended = False
        self._was_parked = False
        self._last_heard = now

    # Verbs

    def accept(self, now: float, session_present: bool, session: Session | None = None) -> None:
        """Lets the client in: CONNACK 0, `session`'s unacknowledged publishes, then what was pipelined."""
        state, connect = self._require(Verb.ACCEPT), self._connect
        assert connect is not None, "HELD is entered by CONNECT only"
        if connect.clean_session and (session_present or (session is not None and session.in_flight)):
            raise LocalProtocolError("a clean session continues nothing [MQTT-3.1.2-6, MQTT-3.2.2-1]")
        if session is not None:
            self._session = session
        self._out.append(encode(Connack(session_present, ConnackCode.ACCEPTED)))
        self._carry_session()
        if connect.keep_alive:
            self._patience = min(connect.keep_alive * KEEP_ALIVE_TOLERANCE, self._limits.max_keep_alive)
        self._reader.max_packet_bytes = self._limits.max_packet_bytes
        self._last_heard = now
        self._will = connect.will
        self._connect = None
        self._enter(state)

    def refuse(self, code: ConnackCode, now: float) -> None:
        """Turns the client away [MQTT-3.2.2-5]. What was pipelined is not read [MQTT-3.1.4-5]."""
        self._require(Verb.REFUSE)
        if code is ConnackCode.ACCEPTED:
            raise LocalProtocolError("refuse() with code 0: expected 1 to 5")
        self._last_heard = now
        self._turn_away(code, f"refused with CONNACK {code:d}")

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> int:
        """Sends a message; its packet id, or 0 for QoS 0. Raises Bounded at `max_in_flight`."""
        self._require(Verb.PUBLISH)
        return self._send_publish(topic, payload, qos, retain)

    def publish_again(self, packet_id: int) -> None:
        """Sends an unacknowledged message once more: same id, DUP set.

        4.4 asks for it at a reconnect only and allows it at any time. IoT Hub's lock on a cloud message ends while its
        connection lives.
        """
        self._require(Verb.PUBLISH)
        self._out.append(encode(self._session.repeated(packet_id)))

    def grant(self, packet_id: int, codes: tuple[int, ...]) -> None:
        """Answers a SUBSCRIBE with one code per filter; 2 becomes 1. Does nothing after the end."""
        if self._is_over:
            return
        if self._their_requests.get(packet_id, 0) != len(codes) or not codes:
            raise LocalProtocolError(f"grant({packet_id}) with {len(codes)} codes answers no SUBSCRIBE")
        granted = tuple(code if code == SUBSCRIPTION_REFUSED else min(code, 1) for code in codes)
        self._out.append(encode(Suback(packet_id, granted)))
        del self._their_requests[packet_id]

    def confirm_unsubscribe(self, packet_id: int) -> None:
        """Answers an UNSUBSCRIBE. Does nothing after the end."""
        if self._is_over:
            return
        if self._their_requests.get(packet_id) != 0:
            raise LocalProtocolError(f"confirm_unsubscribe({packet_id}) answers no UNSUBSCRIBE")
        self._out.append(encode(Unsuback(packet_id)))
        del self._their_requests[packet_id]

    # Actions

    def _hold_connect(self, packet: Connect) -> ConnectReceived:
        self._connect = packet
        self._is_held = True
        self._enter(ServerState.HELD)
        return ConnectReceived(packet)

    def _take_subscribe(self, packet: Subscribe) -> SubscribeReceived:
        self._open_request(packet.packet_id, len(packet.filters), len(packet.filters))
        return SubscribeReceived(packet)

    def _take_unsubscribe(self, packet: Unsubscribe) -> UnsubscribeReceived:
        self._open_request(packet.packet_id, len(packet.filters), 0)
        return UnsubscribeReceived(packet)

    def _answer_ping(self, _packet: Pingreq) -> None:
        self._out.append(_PINGRESP)

    def _end_as_planned(self, _packet: Disconnect) -> None:
        self._will = None  # [MQTT-3.14.4-3]
        self._close(CloseCause.DISCONNECTED, "the client sent DISCONNECT", planned=True)

    # Within

    def _open_request(self, packet_id: int, filters: int, awaited_codes: int) -> None:
        if filters > self._limits.max_filters:
            raise PeerFault(
                f"{filters} filters, at most {self._limits.max_filters}", cause=CloseCause.TOO_LARGE
            )
        if packet_id in self._their_requests or packet_id in self._receipts:
            raise reused(packet_id)
        if len(self._their_requests) >= self._limits.max_requests:
            raise PeerFault(f"over {self._limits.max_requests} requests wait", cause=CloseCause.FLOOD)
        if self._their_requests is NO_REQUESTS:
            self._their_requests = {}
        self._their_requests[packet_id] = awaited_codes

    def _enter(self, state: ServerState) -> None:
        self._state = state
        self._row = _ROWS[state]
        self._is_held = state is ServerState.HELD

    def _require(self, verb: Verb) -> ServerState:
        """The state `verb` leads to from here."""
        to = SERVER_VERBS.get((self._state, verb))
        if to is None:
            raise LocalProtocolError(f"{verb.value}() on a connection that is {self._state.value}")
        return to

    def _fail(self, fault: PeerFault) -> None:
        if fault.answer is not None and self._state is ServerState.AWAITING_CONNECT:
            self._turn_away(fault.answer, str(fault))
        else:
            super()._fail(fault)

    def _turn_away(self, code: ConnackCode, detail: str) -> None:
        self._out.append(encode(Connack(False, code)))
        self._close(CloseCause.REFUSED, detail)

    def _leave(self) -> Will | None:
        """A client that was let in and did not say DISCONNECT has its will done [MQTT-3.1.2-8]."""
        will = self._will
        self._connect = self._will = None
        self._enter(ServerState.OVER)
        return will


_ROWS: Final = ServerConnection.bind()
