"""What both roles of an MQTT connection share: bytes in, packets to actions by a table, bytes out, one end.

The face every protocol automaton has: receive, receive_eof, next_event, bytes_to_send, deadline,
handle_deadline. Reading is lazy: `receive` only keeps bytes, `next_event` takes one packet at a time, so that
the owner's answer to an event is on the wire before the next packet is looked at, and a verb such as close()
ends a flood in its middle. The owner's duty: after every call that feeds, and after every verb, call
next_event until it gives None, then send bytes_to_send.

Legality is data (transitions.py): what the table does not list closes the connection.

An owner that leaves `max_unacknowledged` QoS 1 publishes without acknowledge() parks the connection:
`is_parked` says so, what comes is kept unread up to `max_held_bytes`, and the owner should stop reading its
socket. A stream that has ended is no longer parked: no more can come, and a DISCONNECT among what is kept
must be seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Final, Generic, NoReturn, TypeAlias, TypeVar

from gatewayd.errors import Bounded, LocalProtocolError
from gatewayd.protocol.mqtt.events import Closed, PublishAcknowledged, PublishReceived
from gatewayd.protocol.mqtt.faults import CloseCause, PeerFault
from gatewayd.protocol.mqtt.framing import PacketReader
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packet_ids import ReceiptOrder
from gatewayd.protocol.mqtt.packets import Packet, Puback, Publish, Will, decode, encode_publish
from gatewayd.protocol.mqtt.session import Session
from gatewayd.protocol.mqtt.transitions import Action, ClientState, ServerState
from gatewayd.protocol.mqtt.wire import PacketType

Event = TypeVar("Event")
Outcome = TypeVar("Outcome")
State = TypeVar("State", ServerState, ClientState)
Handler: TypeAlias = Callable[..., Outcome]
"""Takes the connection and a packet of the type it is listed for; gives the event it makes, or None."""
Row: TypeAlias = tuple[Handler[Outcome], ...]
"""One state's handlers, indexed by packet type: the table as the hot path reads it."""


def unexpected(_connection: object, packet: Packet) -> NoReturn:
    """The handler of every packet type a state does not list."""
    raise PeerFault(
        f"{type(packet).__name__.upper()} may not come now",
        clause="MQTT-4.8.0-1",
        cause=CloseCause.PROTOCOL_VIOLATION,
    )


def rows(
    states: type[State],
    packets: Mapping[tuple[State, PacketType], Action],
    handlers: Mapping[Action, Handler[Outcome]],
) -> dict[State, Row[Outcome]]:
    """A table, bound to the methods that carry its actions out."""
    bound: dict[State, list[Handler[Outcome]]] = {state: [unexpected] * 16 for state in states}
    for (state, kind), action in packets.items():
        bound[state][kind] = handlers[action]
    return {state: tuple(filled) for state, filled in bound.items()}


NO_REQUESTS: Final[dict[int, int]] = {}
"""Shared by every connection without a request; never written to."""


class Connection(ABC, Generic[Event]):
    """One connection of either role. Not for use by itself."""

    __slots__ = (
        "_carrier",
        "_end",
        "_is_held",
        "_is_over",
        "_is_parked",
        "_last_heard",
        "_limits",
        "_our_requests",
        "_out",
        "_peer_has_ended",
        "_reader",
        "_receipts",
        "_row",
        "_session",
        "_their_requests",
        "_was_parked",
    )

    _row: Row[Event | None]

    def __init__(self, limits: Limits, session: Session, max_packet_bytes: int, now: float) -> None:
        self._limits = limits
        self._session = session
        # The number the session gave us when the connection was accepted; 0 is nobody's.
        self._carrier = 0
        self._reader = PacketReader(max_packet_bytes)
        self._receipts = ReceiptOrder()
        # SUBSCRIBE and UNSUBSCRIBE without an answer: packet id to number of filters, 0 for UNSUBSCRIBE. A client
        # has only ours, a server only theirs; the other stays the shared empty one.
        self._our_requests = NO_REQUESTS
        self._their_requests = NO_REQUESTS
        self._out: list[bytes] = []
        self._last_heard = now
        # Nothing is read until the owner decides about CONNECT (server only).
        self._is_held = False
        # The owner owes max_unacknowledged answers.
        self._is_parked = False
        # We did not listen since the peer was last heard: no verdict on its silence would be fair.
        self._was_parked = False
        self._peer_has_ended = False
        # The end is decided at once, and told when next_event comes to it.
        self._is_over = False
        self._end: Closed | None = None

    def retune(self, limits: Limits) -> None:
        """Take other bounds from here on; what was settled at CONNECT, keep-alive and packet size, stays."""
        self._limits = limits

    # The face

    def receive(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Keeps bytes from the peer.

        Any bytes are a sign of life: a large packet on a slow link may take longer than a keep-alive to come.
        """
        if self._is_over or self._peer_has_ended:
            return
        self._last_heard = now
        self._was_parked = False
        self._reader.feed(data)
        if (self._is_held or self._is_parked) and self._reader.buffered > self._limits.max_held_bytes:
            self._close(
                CloseCause.FLOOD, f"over {self._limits.max_held_bytes} bytes came while none could be read"
            )

    def receive_eof(self, now: float) -> None:
        """The stream has ended. What came before is still read, unless CONNECT is undecided."""
        self._last_heard = now
        self._peer_has_ended = True

    def next_event(self) -> Event | Closed | None:
        """The next thing the owner must know, or None until more bytes, a verb, or a deadline."""
        while not self._is_over:
            if self._peer_has_ended:
                if self._is_held:
                    self._end_stream()
                    break
            elif self._is_held:
                return None
            elif self._is_parked:
                self._was_parked = True
                return None
            try:
                header = None if self._reader.is_spent else self._reader.next_packet()
                if header is None:
                    if not self._peer_has_ended:
                        return None
                    self._end_stream()
                    break
                first_byte, body = header
                event = self._row[first_byte >> 4](self, decode(first_byte, body))
            except PeerFault as fault:
                self._fail(fault)
                break
            if event is not None:
                return event
        end, self._end = self._end, None
        return end

    def bytes_to_send(self) -> bytes:
        """What must go to the peer, once."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # What the owner may ask

    @property
    def is_parked(self) -> bool:
        """Whether bytes are kept unread until acknowledge() makes room: do not read the socket then."""
        return self._is_parked

    @property
    def is_over(self) -> bool:
        """Whether the end is decided."""
        return self._is_over

    @property
    def unacknowledged(self) -> int:
        """How many of the peer's QoS 1 publishes wait for our acknowledge()."""
        return len(self._receipts)

    @property
    def in_flight(self) -> int:
        """How many of our QoS 1 publishes wait for the peer's PUBACK."""
        return self._session.in_flight

    # Verbs of both roles

    def acknowledge(self, packet_id: int) -> None:
        """The owner has done with the peer's QoS 1 publish of this id.

        May be called in any order; PUBACKs leave in the order the publishes came. After the end it does
        nothing: there is nobody to tell, and an owner whose answer was under way could not know.
        """
        if self._is_over:
            return
        receipts = self._receipts.acknowledge(packet_id)
        if receipts:
            self._out.append(receipts)
            if self._is_parked:
                self._is_parked = len(self._receipts) >= self._limits.max_unacknowledged

    def close(self, cause: CloseCause = CloseCause.LOCAL, detail: str = "") -> None:
        """The owner ends it, now and without a word to the peer. Does nothing after the end."""
        if not self._is_over:
            self._close(cause, detail or "ended by us")

    # Actions of both roles

    def _take_publish(self, packet: Publish) -> PublishReceived:
        limit = self._limits.max_topic_bytes
        topic = packet.topic
        if len(topic) > limit or (not topic.isascii() and len(topic.encode()) > limit):
            raise PeerFault(f"a topic of over {limit} bytes", cause=CloseCause.TOO_LARGE)
        if packet.qos == 1:
            packet_id = packet.packet_id
            if packet_id in self._receipts:
                if packet.dup:
                    return PublishReceived(packet, joins=True)
                raise reused(packet_id)
            if packet_id in self._their_requests:
                raise reused(packet_id)
            if self._receipts.expect(packet_id) >= self._limits.max_unacknowledged:
                self._is_parked = True
        elif packet.qos:
            self._refuse_qos2(packet)
        return PublishReceived(packet)

    def _settle(self, packet: Puback) -> PublishAcknowledged | None:
        """A PUBACK that matches nothing settles nothing.

        No clause makes it an error, and it can be honest: some clients acknowledge on a new connection what
        came on the old one. Order is the peer's duty [MQTT-4.6.0-2]; whether we insist is a limit.
        """
        session = self._session
        if session.carrier != self._carrier:
            return None
        packet_id = packet.packet_id
        if packet_id not in session:
            return None
        if self._limits.require_puback_order and not session.is_oldest(packet_id):
            raise PeerFault(
                f"PUBACK {packet_id} is not the one due next",
                clause="MQTT-4.6.0-2",
                cause=CloseCause.PROTOCOL_VIOLATION,
            )
        session.settle(packet_id)
        return PublishAcknowledged(packet_id)

    def _refuse_qos2(self, packet: Packet) -> NoReturn:
        raise PeerFault(f"{type(packet).__name__.upper()} of the QoS 2 exchange", cause=CloseCause.QOS2)

    # For the roles

    def _send_publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> int:
        """Queues a publish; its packet id, or 0 for QoS 0."""
        session = self._session
        if session.carrier != self._carrier:
            raise LocalProtocolError("the session has moved to a newer connection")
        if qos == 0:
            self._out.append(encode_publish(Publish(topic, payload, 0, 0, False, retain)))
            return 0
        if qos != 1:
            raise LocalProtocolError(f"publish with QoS {qos}: expected 0 or 1, IoT Hub carries no QoS 2")
        if session.in_flight >= self._limits.max_in_flight:
            raise Bounded(f"{session.in_flight} publishes are in flight, the limit")
        packet_id = session.new_packet_id(self._our_requests)
        publish = Publish(topic, payload, 1, packet_id, False, retain)
        self._out.append(encode_publish(publish))
        session.remember(publish)
        return packet_id

    def _carry_session(self) -> None:
        """Takes the session over and resends what the peer has not acknowledged [MQTT-4.4.0-1]."""
        self._carrier, unacknowledged = self._session.move()
        self._out.extend(map(encode_publish, unacknowledged))

    def _fail(self, fault: PeerFault) -> None:
        """Ends the connection for what the peer did."""
        self._close(fault.cause, str(fault))

    def _close(self, cause: CloseCause, detail: str, *, planned: bool = False) -> None:
        """Decides the end. What is kept unread is dropped: a connection that is over reads nothing."""
        self._is_over = True
        self._reader.discard()
        self._end = Closed(cause, detail, planned, self._leave())

    @abstractmethod
    def _leave(self) -> Will | None:
        """Enters the role's OVER; the will that is now owed, if any."""

    def _end_stream(self) -> None:
        """The stream has ended and all that came is read."""
        inside = " inside a packet" if self._reader.buffered else ""
        self._close(CloseCause.EOF, f"the stream ended{inside} without DISCONNECT")


def reused(packet_id: int) -> PeerFault:
    """What a peer does that takes an id it is not done with."""
    return PeerFault(
        f"packet id {packet_id} is in use",
        clause="MQTT-2.3.1-2",
        cause=CloseCause.PROTOCOL_VIOLATION,
    )
