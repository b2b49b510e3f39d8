"""The shapes MQTT 3.1.1 packets are made of: types, remaining length, two-byte integers, strings.

Promises strict UTF-8 both ways [MQTT-1.5.3-1]: no surrogates, no U+0000, nothing stripped. Everything that
reads takes a body and a position and raises `InvalidPacket` when the body is too short, so that no caller
indexes past the end. Knows no packet.
"""

from __future__ import annotations

import enum
from typing import Final

from gatewayd.protocol.mqtt.faults import InvalidPacket

MAX_STRING_BYTES: Final = 65_535
"""Strings and binary fields carry a two-byte length (1.5.3)."""
MAX_REMAINING_LENGTH: Final = 268_435_455
"""Four bytes of seven bits (2.2.3)."""
MAX_PACKET_ID: Final = 65_535


class PacketType(enum.IntEnum):
    """The high four bits of the first byte (table 2.1)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


def _legal_first_bytes() -> frozenset[int]:
    """Type and flags together. Flags are fixed for every type but PUBLISH (2.2.2)."""
    flagged = {PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE}
    legal = {
        kind << 4 | (0b0010 if kind in flagged else 0) for kind in PacketType if kind != PacketType.PUBLISH
    }
    for qos in (0, 1, 2):  # 3 is forbidden [MQTT-3.3.1-4]
        for dup in (0, 1) if qos else (0,):  # DUP with QoS 0 is forbidden [MQTT-3.3.1-2]
            for retain in (0, 1):
                legal.add(PacketType.PUBLISH << 4 | dup << 3 | qos << 1 | retain)
    return frozenset(legal)


LEGAL_FIRST_BYTES: Final = _legal_first_bytes()


def encode_remaining_length(length: int) -> bytes:
    """Seven bits a byte, lowest first, the high bit says that more follow (2.2.3)."""
    if length < 0x80:
        return bytes((length,))
    if length < 0x4000:
        return bytes((length & 0x7F | 0x80, length >> 7))
    if length > MAX_REMAINING_LENGTH:
        raise InvalidPacket(f"a packet of {length} bytes, at most {MAX_REMAINING_LENGTH} fit", clause="2.2.3")
    encoded = bytearray()
    while length >= 0x80:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


def encode_u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def encode_string(text: str) -> bytes:
    """`text` as MQTT carries it; the packet's constructor has checked it."""
    return encode_binary(text.encode())


def encode_binary(content: bytes) -> bytes:
    return len(content).to_bytes(2, "big") + content


def check_text(text: str, what: str) -> None:
    """Raises unless `text` may stand in a packet (1.5.3)."""
    if "\0" in text:
        raise InvalidPacket(f"{what} holds U+0000", clause="MQTT-1.5.3-2")
    if text.isascii():
        size = len(text)
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise InvalidPacket(f"{what} holds a surrogate", clause="MQTT-1.5.3-1") from None
    if size > MAX_STRING_BYTES:
        raise InvalidPacket(f"{what} of {size} bytes, at most {MAX_STRING_BYTES} fit", clause="1.5.3")


def check_topic_name(topic: str, what: str = "topic") -> None:
    """Raises unless `topic` may be published to (4.7)."""
    if not topic:
        raise InvalidPacket(f"{what} is empty", clause="MQTT-4.7.3-1")
    if "+" in topic or "#" in topic:
        raise InvalidPacket(f"{what} holds a wildcard", clause="MQTT-3.3.2-2")
    check_text(topic, what)


def check_topic_filter(topic_filter: str) -> None:
    """Raises unless `topic_filter` may be subscribed to (4.7.1)."""
    if not topic_filter:
        raise InvalidPacket("topic filter is empty", clause="MQTT-4.7.3-1")
    check_text(topic_filter, "topic filter")
    if "#" not in topic_filter and "+" not in topic_filter:
        return
    levels = topic_filter.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise InvalidPacket("'#' must be the whole last level of a filter", clause="MQTT-4.7.1-2")
    if any("+" in level and level != "+" for level in levels):
        raise InvalidPacket("'+' must be a whole level of a filter", clause="MQTT-4.7.1-3")


def read_u8(body: bytes, at: int, what: str) -> tuple[int, int]:
    """The byte at `at`, and the position behind it."""
    if at >= len(body):
        raise InvalidPacket(f"the packet ends before its {what}", clause="2.2.3")
    return body[at], at + 1


def read_u16(body: bytes, at: int, what: str) -> tuple[int, int]:
    """The two-byte integer at `at`, and the position behind it."""
    if at + 2 > len(body):
        raise InvalidPacket(f"the packet ends inside its {what}", clause="2.2.3")
    return body[at] << 8 | body[at + 1], at + 2


def read_binary(body: bytes, at: int, what: str) -> tuple[bytes, int]:
    """The length-prefixed field at `at`, and the position behind it."""
    size, start = read_u16(body, at, what)
    end = start + size
    if end > len(body):
        raise InvalidPacket(f"the packet ends inside its {what}", clause="2.2.3")
    return body[start:end], end


def read_string(body: bytes, at: int, what: str) -> tuple[str, int]:
    """As `read_binary`, decoded. What a field may hold beyond UTF-8 is its packet's to check."""
    content, end = read_binary(body, at, what)
    try:
        return str(content, "utf-8"), end
    except UnicodeDecodeError:
        raise InvalidPacket(f"{what} is not UTF-8", clause="MQTT-1.5.3-1") from None
