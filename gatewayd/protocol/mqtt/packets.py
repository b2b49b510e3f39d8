"""Every packet of MQTT 3.1.1 as a value, and its bytes: `encode(packet)` and `decode(first_byte, body)`.

A packet that exists is valid: its constructor holds the rules of the OASIS text and raises `InvalidPacket`.
`decode` finds the fields, builds the value, and turns what the constructor says into a `PeerFault`. So each
rule stands once and holds both ways. No `repr` shows a payload or a password.

Does not know what may come when (server.py, client.py), nor where a packet begins and ends in a stream
(framing.py). Wills and passwords are carried as they are; whether they are welcome is for the owner of the
connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias, assert_never

from gatewayd.protocol.mqtt.faults import ConnackCode as ConnackCode  # noqa: PLC0414 - part of this face
from gatewayd.protocol.mqtt.faults import InvalidPacket, PeerFault
from gatewayd.protocol.mqtt.wire import (
    LEGAL_FIRST_BYTES,
    MAX_PACKET_ID,
    MAX_STRING_BYTES,
    check_text,
    check_topic_filter,
    check_topic_name,
    encode_binary,
    encode_remaining_length,
    encode_string,
    encode_u16,
    read_binary,
    read_string,
    read_u8,
    read_u16,
)

PROTOCOL_NAME: Final = "MQTT"
PROTOCOL_LEVEL: Final = 4
SUBSCRIPTION_REFUSED: Final = 0x80
"""The SUBACK code of a filter the server does not grant (3.9.3)."""

_MAX_QOS: Final = 2
_MAX_KEEP_ALIVE: Final = 65_535


@dataclass(frozen=True, slots=True)
class Will:
    """What the server publishes for a client that ends without DISCONNECT (3.1.2.5)."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    retain: bool = False

    def __post_init__(self) -> None:
        check_topic_name(self.topic, "will topic")
        if len(self.payload) > MAX_STRING_BYTES:
            raise InvalidPacket("will payload is over 65,535 bytes", clause="3.1.3.3")
        if not 0 <= self.qos <= _MAX_QOS:
            raise InvalidPacket(f"will QoS is {self.qos}", clause="MQTT-3.1.2-14")


@dataclass(frozen=True, slots=True)
class Connect:
    """A client's first packet (3.1). Protocol name and level are always MQTT and 4."""

    client_id: str
    keep_alive: int = 60
    clean_session: bool = False
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    will: Will | None = None

    def __post_init__(self) -> None:
        check_text(self.client_id, "client id")
        if not 0 <= self.keep_alive <= _MAX_KEEP_ALIVE:
            raise InvalidPacket(f"keep-alive is {self.keep_alive}, 0 to 65535 fit", clause="3.1.2.10")
        if self.username is not None:
            check_text(self.username, "user name")
        elif self.password is not None:
            raise InvalidPacket("a password without a user name", clause="MQTT-3.1.2-22")
        if self.password is not None and len(self.password) > MAX_STRING_BYTES:
            raise InvalidPacket("password is over 65,535 bytes", clause="3.1.3.5")
        if not self.client_id and not self.clean_session:
            raise InvalidPacket(
                "an empty client id without CleanSession",
                clause="MQTT-3.1.3-8",
                answer=ConnackCode.IDENTIFIER_REJECTED,
            )


@dataclass(frozen=True, slots=True)
class Connack:
    """The server's answer to CONNECT (3.2)."""

    session_present: bool
    code: ConnackCode

    def __post_init__(self) -> None:
        if self.session_present and self.code is not ConnackCode.ACCEPTED:
            raise InvalidPacket(f"session present with code {self.code:d}", clause="MQTT-3.2.2-4")


@dataclass(frozen=True, slots=True)
class Publish:
    """An application message (3.3). `packet_id` is 0 exactly when `qos` is 0."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    packet_id: int = 0
    dup: bool = False
    retain: bool = False

    def __post_init__(self) -> None:
        topic = self.topic
        # The common topic passes in three tests; what does not is asked in full, for the right words.
        if (
            not topic
            or not topic.isascii()
            or "+" in topic
            or "#" in topic
            or "\0" in topic
            or len(topic) > 65_535
        ):
            check_topic_name(topic)
        if self.qos == 0:
            if self.packet_id:
                raise InvalidPacket("QoS 0 with a packet id", clause="MQTT-2.3.1-5")
            if self.dup:
                raise InvalidPacket("QoS 0 with DUP", clause="MQTT-3.3.1-2")
        elif not 0 <= self.qos <= _MAX_QOS:
            raise InvalidPacket(f"QoS is {self.qos}", clause="MQTT-3.3.1-4")
        elif not 0 < self.packet_id <= MAX_PACKET_ID:
            raise InvalidPacket(f"packet id is {self.packet_id}", clause="MQTT-2.3.1-1")


@dataclass(frozen=True, slots=True)
class _Identified:
    """Packets that carry nothing but an id."""

    packet_id: int

    def __post_init__(self) -> None:
        if not 0 < self.packet_id <= MAX_PACKET_ID:
            _check_packet_id(self.packet_id)


@dataclass(frozen=True, slots=True)
class Puback(_Identified):
    """The receipt of a QoS 1 PUBLISH (3.4)."""


@dataclass(frozen=True, slots=True)
class Pubrec(_Identified):
    """QoS 2, part 1 (3.5)."""


@dataclass(frozen=True, slots=True)
class Pubrel(_Identified):
    """QoS 2, part 2 (3.6)."""


@dataclass(frozen=True, slots=True)
class Pubcomp(_Identified):
    """QoS 2, part 3 (3.7)."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Asks for topics, each with the highest QoS wanted (3.8)."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        _check_packet_id(self.packet_id)
        if not self.filters:
            raise InvalidPacket("SUBSCRIBE without a filter", clause="MQTT-3.8.3-3")
        for topic_filter, qos in self.filters:
            check_topic_filter(topic_filter)
            if not 0 <= qos <= _MAX_QOS:
                raise InvalidPacket(f"requested QoS byte is {qos}", clause="MQTT-3.8.3-4")


@dataclass(frozen=True, slots=True)
class Suback:
    """One code per filter of the SUBSCRIBE, in its order (3.9): the QoS granted, or 0x80."""

    packet_id: int
    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_packet_id(self.packet_id)
        if not self.codes:
            raise InvalidPacket("SUBACK without a code", clause="MQTT-3.9.3-1")
        for code in self.codes:
            if not (0 <= code <= _MAX_QOS or code == SUBSCRIPTION_REFUSED):
                raise InvalidPacket(f"SUBACK code is {code}", clause="MQTT-3.9.3-2")


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Gives topics up (3.10)."""

    packet_id: int
    filters: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_packet_id(self.packet_id)
        if not self.filters:
            raise InvalidPacket("UNSUBSCRIBE without a filter", clause="MQTT-3.10.3-2")
        for topic_filter in self.filters:
            check_topic_filter(topic_filter)


@dataclass(frozen=True, slots=True)
class Unsuback(_Identified):
    """The answer to UNSUBSCRIBE (3.11)."""


@dataclass(frozen=True, slots=True)
class Pingreq:
    """The client lives (3.12)."""


@dataclass(frozen=True, slots=True)
class Pingresp:
    """The server lives (3.13)."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client leaves as planned (3.14)."""


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
)


def encode(packet: Packet) -> bytes:
    """The bytes of `packet`. Raises InvalidPacket only when it is too long for the wire."""
    match packet:
        case Publish():
            return encode_publish(packet)
        case Puback(packet_id):
            return encode_puback(packet_id)
        case Connect():
            return _frame(0x10, _connect_body(packet))
        case Connack(session_present, code):
            return bytes((0x20, 2, session_present, code))
        case Pubrec(packet_id):
            return b"\x50\x02" + encode_u16(packet_id)
        case Pubrel(packet_id):
            return b"\x62\x02" + encode_u16(packet_id)
        case Pubcomp(packet_id):
            return b"\x70\x02" + encode_u16(packet_id)
        case Subscribe(packet_id, filters):
            wanted = b"".join(encode_string(text) + bytes((qos,)) for text, qos in filters)
            return _frame(0x82, encode_u16(packet_id) + wanted)
        case Suback(packet_id, codes):
            return _frame(0x90, encode_u16(packet_id) + bytes(codes))
        case Unsubscribe(packet_id, given_up):
            return _frame(0xA2, encode_u16(packet_id) + b"".join(map(encode_string, given_up)))
        case Unsuback(packet_id):
            return b"\xb0\x02" + encode_u16(packet_id)
        case Pingreq():
            return b"\xc0\x00"
        case Pingresp():
            return b"\xd0\x00"
        case Disconnect():
            return b"\xe0\x00"
        case _:
            assert_never(packet)


def encode_publish(packet: Publish) -> bytes:
    """`encode` for the hot path: one join, one copy of the payload."""
    topic = packet.topic.encode()
    first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
    if packet.qos:
        length = len(topic) + 4 + len(packet.payload)
        packet_id = packet.packet_id.to_bytes(2, "big")
    else:
        length = len(topic) + 2 + len(packet.payload)
        packet_id = b""
    head = bytes((first, length)) if length < 0x80 else bytes((first,)) + encode_remaining_length(length)
    return b"".join((head, len(topic).to_bytes(2, "big"), topic, packet_id, packet.payload))


def encode_puback(packet_id: int) -> bytes:
    """`encode` for the hot path."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def decode(first_byte: int, body: bytes) -> Packet:
    """The packet of this first byte and this body (all that follows the remaining length). Raises
    PeerFault.
    """
    try:
        if first_byte not in LEGAL_FIRST_BYTES:
            raise illegal_first_byte(first_byte)
        return _DECODERS[first_byte >> 4](first_byte, body)
    except InvalidPacket as error:
        raise PeerFault(error.problem, clause=error.clause, answer=error.answer) from None


def illegal_first_byte(first_byte: int) -> InvalidPacket:
    """Says which rule a first byte outside LEGAL_FIRST_BYTES breaks."""
    kind, flags = first_byte >> 4, first_byte & 0x0F
    if kind in (0, 15):
        return InvalidPacket(f"packet type {kind} is reserved", clause="2.2.1")
    if kind != 3:
        return InvalidPacket(f"packet type {kind} with flags {flags:04b}", clause="MQTT-2.2.2-2")
    if flags & 0b0110 == 0b0110:
        return InvalidPacket("QoS is 3", clause="MQTT-3.3.1-4")
    return InvalidPacket("QoS 0 with DUP", clause="MQTT-3.3.1-2")


def _check_packet_id(packet_id: int) -> None:
    if not 0 < packet_id <= MAX_PACKET_ID:
        raise InvalidPacket(f"packet id is {packet_id}", clause="MQTT-2.3.1-1")


def _frame(first_byte: int, body: bytes) -> bytes:
    return b"".join((bytes((first_byte,)), encode_remaining_length(len(body)), body))


def _connect_body(packet: Connect) -> bytes:
    flags = packet.clean_session << 1
    fields = [encode_string(packet.client_id)]
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos << 3 | packet.will.retain << 5
        fields += (encode_string(packet.will.topic), encode_binary(packet.will.payload))
    if packet.username is not None:
        flags |= 0x80
        fields.append(encode_string(packet.username))
    if packet.password is not None:
        flags |= 0x40
        fields.append(encode_binary(packet.password))
    head = encode_string(PROTOCOL_NAME) + bytes((PROTOCOL_LEVEL, flags)) + encode_u16(packet.keep_alive)
    return head + b"".join(fields)


def _decode_publish(first_byte: int, body: bytes) -> Publish:
    size = len(body)
    if size < 2:
        raise InvalidPacket("the packet ends inside its topic", clause="2.2.3")
    end = (body[0] << 8 | body[1]) + 2
    if end > size:
        raise InvalidPacket("the packet ends inside its topic", clause="2.2.3")
    try:
        topic = str(body[2:end], "utf-8")
    except UnicodeDecodeError:
        raise InvalidPacket("topic is not UTF-8", clause="MQTT-1.5.3-1") from None
    qos = first_byte >> 1 & 3
    if qos == 0:
        return Publish(topic, body[end:], 0, 0, False, first_byte & 1 == 1)
    start = end + 2
    if start > size:
        raise InvalidPacket("the packet ends inside its packet id", clause="2.2.3")
    packet_id = body[end] << 8 | body[end + 1]
    return Publish(topic, body[start:], qos, packet_id, first_byte & 8 == 8, first_byte & 1 == 1)


def _decode_connect(_first_byte: int, body: bytes) -> Connect:
    name, at = read_string(body, 0, "protocol name")
    if name != PROTOCOL_NAME:
        raise InvalidPacket("protocol name is not MQTT", clause="MQTT-3.1.2-1")
    level, at = read_u8(body, at, "protocol level")
    if level != PROTOCOL_LEVEL:
        # Asked before anything else is read: other levels lay out the rest in their own way.
        raise InvalidPacket(
            f"protocol level is {level}, not 4",
            clause="MQTT-3.1.2-2",
            answer=ConnackCode.UNACCEPTABLE_PROTOCOL_VERSION,
        )
    flags, at = read_u8(body, at, "connect flags")
    if flags & 0x01:
        raise InvalidPacket("the reserved connect flag is set", clause="MQTT-3.1.2-3")
    has_will = flags & 0x04
    if not has_will and flags & 0x18:
        raise InvalidPacket("will QoS without a will", clause="MQTT-3.1.2-13")
    if not has_will and flags & 0x20:
        raise InvalidPacket("will retain without a will", clause="MQTT-3.1.2-15")
    keep_alive, at = read_u16(body, at, "keep-alive")
    client_id, at = read_string(body, at, "client id")
    will = None
    if has_will:
        topic, at = read_string(body, at, "will topic")
        payload, at = read_binary(body, at, "will payload")
        will = Will(topic, payload, flags >> 3 & 3, flags & 0x20 != 0)
    username: str | None = None
    password: bytes | None = None
    if flags & 0x80:
        username, at = read_string(body, at, "user name")
    if flags & 0x40:
        password, at = read_binary(body, at, "password")
    _check_end(body, at)
    return Connect(client_id, keep_alive, flags & 0x02 != 0, username, password, will)


def _decode_connack(_first_byte: int, body: bytes) -> Connack:
    if len(body) != 2:
        raise InvalidPacket(f"CONNACK of {len(body)} bytes, not 2", clause="3.2.1")
    if body[0] > 1:
        raise InvalidPacket("reserved CONNACK flags are set", clause="3.2.2.1")
    try:
        code = ConnackCode(body[1])
    except ValueError:
        raise InvalidPacket(f"CONNACK code {body[1]} is reserved", clause="3.2.2.3") from None
    return Connack(body[0] == 1, code)


def _decode_subscribe(_first_byte: int, body: bytes) -> Subscribe:
    packet_id, at = read_u16(body, 0, "packet id")
    filters: list[tuple[str, int]] = []
    while at < len(body):
        topic_filter, at = read_string(body, at, "topic filter")
        qos, at = read_u8(body, at, "requested QoS")
        filters.append((topic_filter, qos))
    return Subscribe(packet_id, tuple(filters))


def _decode_suback(_first_byte: int, body: bytes) -> Suback:
    packet_id, at = read_u16(body, 0, "packet id")
    return Suback(packet_id, tuple(body[at:]))


def _decode_unsubscribe(_first_byte: int, body: bytes) -> Unsubscribe:
    packet_id, at = read_u16(body, 0, "packet id")
    filters: list[str] = []
    while at < len(body):
        topic_filter, at = read_string(body, at, "topic filter")
        filters.append(topic_filter)
    return Unsubscribe(packet_id, tuple(filters))


def _decode_puback(_first_byte: int, body: bytes) -> Puback:
    """As _decode_identified, for the hot path."""
    if len(body) != 2:
        raise InvalidPacket(f"PUBACK of {len(body)} bytes behind its header, not 2", clause="3.4.1")
    return Puback(body[0] << 8 | body[1])


def _decode_identified(first_byte: int, body: bytes) -> Packet:
    packet_id, at = read_u16(body, 0, "packet id")
    _check_end(body, at)
    return _IDENTIFIED[first_byte >> 4](packet_id)


def _decode_empty(first_byte: int, body: bytes) -> Packet:
    _check_end(body, 0)
    return _EMPTY[first_byte >> 4]


def _check_end(body: bytes, at: int) -> None:
    if at != len(body):
        raise InvalidPacket(f"{len(body) - at} bytes behind the last field", clause="2.2.3")


_IDENTIFIED: Final[dict[int, Callable[[int], Packet]]] = {
    5: Pubrec,
    6: Pubrel,
    7: Pubcomp,
    11: Unsuback,
}
_EMPTY: Final[dict[int, Packet]] = {12: Pingreq(), 13: Pingresp(), 14: Disconnect()}
_DECODERS: Final[dict[int, Callable[[int, bytes], Packet]]] = {
    1: _decode_connect,
    2: _decode_connack,
    3: _decode_publish,
    4: _decode_puback,
    8: _decode_subscribe,
    9: _decode_suback,
    10: _decode_unsubscribe,
    **dict.fromkeys(_IDENTIFIED, _decode_identified),
    **dict.fromkeys(_EMPTY, _decode_empty),
}
