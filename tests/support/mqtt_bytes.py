"""MQTT bytes made without gatewayd's codec: a tiny language for test data, and a generator for tests in Python.

The language is a list of words:

    30          one byte, in hexadecimal
    'text'      its UTF-8
    #258        two bytes, big end first, from a decimal number
    < ... >     the remaining length of what is inside, then what is inside
    [ ... ]     the length of what is inside in two bytes, then what is inside
    ( ... )*3   what is inside, three times

`10 < [ 'MQTT' ] 04 02 #60 [ 'dev' ] >` is a CONNECT. A malformed packet spells its length out in hexadecimal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = re.compile(r"'[^']*'|\)\*\d+|[<>\[\](]|#\d+|[0-9a-f]{2}(?![0-9a-f])|\S+")


def mqtt_bytes(text: str) -> bytes:
    """The bytes that `text` writes."""
    words = iter(_WORD.findall(text))
    content, end = _group(words)
    if end:
        raise ValueError(f"{end!r} without its opening in {text!r}")
    return content


def remaining_length(size: int) -> bytes:
    """2.2.3, from the algorithm the standard prints."""
    encoded = b""
    while True:
        size, digit = divmod(size, 128)
        encoded += bytes([digit + 128 if size else digit])
        if not size:
            return encoded


def packet(first_byte: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([first_byte]) + remaining_length(len(body)) + body


def u16(number: int) -> bytes:
    return bytes(divmod(number, 256))


def field(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return u16(len(raw)) + raw


def connect(
    client_id: str = "dev",
    keep_alive: int = 60,
    *,
    clean: bool = False,
    username: str | None = None,
    password: bytes | None = None,
    will: tuple[str, bytes, int, bool] | None = None,
) -> bytes:
    """`will` is topic, payload, QoS, retain."""
    flags = 2 * clean + 128 * (username is not None) + 64 * (password is not None)
    tail = field(client_id)
    if will is not None:
        topic, payload, qos, retain = will
        flags += 4 + 8 * qos + 32 * retain
        tail += field(topic) + field(payload)
    for credential in (username, password):
        if credential is not None:
            tail += field(credential)
    return packet(0x10, field("MQTT"), bytes([4, flags]), u16(keep_alive), tail)


def connack(code: int = 0, *, session_present: bool = False) -> bytes:
    return packet(0x20, bytes([1 if session_present else 0, code]))


def publish(
    topic: str, payload: bytes, qos: int = 0, packet_id: int = 0, *, dup: bool = False, retain: bool = False
) -> bytes:
    first_byte = 0x30 + 8 * dup + 2 * qos + (1 if retain else 0)
    return packet(first_byte, field(topic), u16(packet_id) if qos else b"", payload)


def puback(packet_id: int) -> bytes:
    return packet(0x40, u16(packet_id))


def pubrec(packet_id: int) -> bytes:
    return packet(0x50, u16(packet_id))


def pubrel(packet_id: int) -> bytes:
    return packet(0x62, u16(packet_id))


def pubcomp(packet_id: int) -> bytes:
    return packet(0x70, u16(packet_id))


def subscribe(packet_id: int, *filters: tuple[str, int]) -> bytes:
    return packet(0x82, u16(packet_id), *(field(text) + bytes([qos]) for text, qos in filters))


def suback(packet_id: int, *codes: int) -> bytes:
    return packet(0x90, u16(packet_id), bytes(codes))


def unsubscribe(packet_id: int, *filters: str) -> bytes:
    return packet(0xA2, u16(packet_id), *(field(text) for text in filters))


def unsuback(packet_id: int) -> bytes:
    return packet(0xB0, u16(packet_id))


PINGREQ = packet(0xC0)
PINGRESP = packet(0xD0)
DISCONNECT = packet(0xE0)


def split_packets(stream: bytes) -> list[bytes]:
    """The packets of a whole stream, each with its header. Raises ValueError when the last is cut."""
    packets = []
    while stream:
        size, place = 0, 1
        while True:
            if place >= len(stream):
                raise ValueError("the stream ends inside a header")
            digit = stream[place]
            size += digit % 128 * 128 ** (place - 1)
            place += 1
            if digit < 128:
                break
        if place + size > len(stream):
            raise ValueError("the stream ends inside a packet")
        packets.append(stream[: place + size])
        stream = stream[place + size :]
    return packets


def _group(words: Iterator[str]) -> tuple[bytes, str]:
    """What stands up to a closing word, and that word; the empty word at the end of the text."""
    content = b""
    for word in words:
        if word in (">", "]") or word.startswith(")"):
            return content, word
        if word in ("<", "[", "("):
            inside, end = _group(words)
            content += _close(word, inside, end)
        elif word.startswith("'"):
            content += word[1:-1].encode()
        elif word.startswith("#"):
            content += u16(int(word[1:]))
        else:
            content += bytes([int(word, 16)])
    return content, ""


def _close(opening: str, inside: bytes, end: str) -> bytes:
    match opening, end[:1]:
        case "<", ">":
            return remaining_length(len(inside)) + inside
        case "[", "]":
            return field(inside)
        case "(", ")":
            return inside * int(end[2:])
    raise ValueError(f"{opening!r} closed by {end!r}")
