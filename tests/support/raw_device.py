"""A device made of sockets and bytes: says exactly what a test wants said, right or wrong.

Packets are put together here by hand from the OASIS MQTT 3.1.1 text, so that a mistake in gatewayd's codec shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from dataclasses import dataclass
from typing import Protocol

WITHIN_SECONDS = 10.0

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP = 0x20, 0x30, 0x40, 0x90, 0xB0, 0xD0


class Desk(Protocol):
    """What a device must know about a hub to meet it."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def hostname(self) -> str: ...
    def client_context(self) -> ssl.SSLContext: ...
    def username(self, identity: str) -> str: ...
    def token(self, identity: str, lifetime: float = 3600.0) -> str: ...


@dataclass(frozen=True, slots=True)
class RawPacket:
    """A packet as it came: its first byte and its body."""

    first: int
    body: bytes

    @property
    def kind(self) -> int:
        return self.first & 0xF0

    @property
    def topic(self) -> str:
        return self.body[2 : 2 + struct.unpack("!H", self.body[:2])[0]].decode()

    @property
    def qos(self) -> int:
        return self.first >> 1 & 3

    @property
    def payload(self) -> bytes:
        start = 2 + struct.unpack("!H", self.body[:2])[0]
        return self.body[start + (2 if self.qos else 0) :]

    @property
    def packet_id(self) -> int:
        start = 2 + struct.unpack("!H", self.body[:2])[0] if self.kind == PUBLISH else 0
        return int(struct.unpack("!H", self.body[start : start + 2])[0])


class Gone(Exception):
    """The hub closed the connection."""


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def frame(first: int, body: bytes) -> bytes:
    length, left = b"", len(body)
    while True:
        byte, left = left & 0x7F, left >> 7
        length += bytes([byte | (0x80 if left else 0)])
        if not left:
            return bytes([first]) + length + body


def connect_bytes(
    client_id: str,
    username: str | None,
    password: str | bytes | None,
    *,
    clean: bool = False,
    keep_alive: int = 60,
    will: tuple[str, bytes] | None = None,
    level: int = 4,
) -> bytes:
    flags = (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    flags |= (0x02 if clean else 0) | (0x04 if will else 0)
    body = text("MQTT") + bytes([level, flags]) + struct.pack("!H", keep_alive) + text(client_id)
    if will:
        body += text(will[0]) + text(will[1])
    if username is not None:
        body += text(username)
    if password is not None:
        body += text(password)
    return frame(0x10, body)


def publish_bytes(
    topic: str, payload: bytes, *, qos: int = 1, packet_id: int = 1, dup: bool = False, retain: bool = False
) -> bytes:
    first = PUBLISH | (8 if dup else 0) | qos << 1 | retain
    return frame(first, text(topic) + (struct.pack("!H", packet_id) if qos else b"") + payload)


def subscribe_bytes(*filters: str, qos: int = 1, packet_id: int = 1) -> bytes:
    asked = b"".join(text(topic_filter) + bytes([qos]) for topic_filter in filters)
    return frame(0x82, struct.pack("!H", packet_id) + asked)


def unsubscribe_bytes(*filters: str, packet_id: int = 1) -> bytes:
    return frame(0xA2, struct.pack("!H", packet_id) + b"".join(map(text, filters)))


class RawDevice:
    """One TLS connection. Every read is bounded in time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, identity: str) -> None:
        self._reader = reader
        self._writer = writer
        self.identity = identity
        self.session_present = False

    @classmethod
    async def dial(cls, desk: Desk, identity: str = "") -> RawDevice:
        """TCP and TLS, nothing said."""
        reader, writer = await asyncio.open_connection(
            desk.host, desk.port, ssl=desk.client_context(), server_hostname=desk.hostname
        )
        return cls(reader, writer, identity)

    @classmethod
    async def connect(
        cls,
        desk: Desk,
        identity: str,
        *,
        token: str | bytes | None = None,
        lifetime: float = 3600.0,
        clean: bool = False,
        keep_alive: int = 60,
        will: tuple[str, bytes] | None = None,
    ) -> RawDevice:
        """Up to an accepted CONNECT; AssertionError when it is not."""
        device = await cls.dial(desk, identity)
        password = desk.token(identity, lifetime) if token is None else token
        device.send(
            connect_bytes(
                identity, desk.username(identity), password, clean=clean, keep_alive=keep_alive, will=will
            )
        )
        assert await device.connack() == 0
        return device

    @property
    def events(self) -> str:
        device, _, module = self.identity.partition("/")
        return f"devices/{device}/" + (f"modules/{module}/" if module else "") + "messages/events/"

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def read(self, within: float = WITHIN_SECONDS) -> RawPacket:
        """The next packet; Gone when the hub closed, TimeoutError when nothing comes."""
        async with asyncio.timeout(within):
            try:
                first = (await self._reader.readexactly(1))[0]
                length, shift = 0, 0
                while True:
                    byte = (await self._reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                return RawPacket(first, await self._reader.readexactly(length))
            except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as error:
                raise Gone from error

    async def connack(self, within: float = WITHIN_SECONDS) -> int:
        """The code of CONNACK; `session_present` holds its flag from then on."""
        packet = await self.read(within)
        assert packet.kind == CONNACK
        self.session_present = packet.body[0] == 1
        return packet.body[1]

    async def publish(self, payload: bytes, bag: str = "", *, packet_id: int = 1, dup: bool = False) -> None:
        """QoS 1 telemetry, until its PUBACK."""
        self.send(publish_bytes(self.events + bag, payload, packet_id=packet_id, dup=dup))
        packet = await self.read()
        assert (packet.kind, packet.packet_id) == (PUBACK, packet_id)

    async def subscribe(self, *filters: str, qos: int = 1, packet_id: int = 1) -> list[int]:
        """The codes of SUBACK."""
        self.send(subscribe_bytes(*filters, qos=qos, packet_id=packet_id))
        packet = await self.read()
        assert (packet.kind, packet.packet_id) == (SUBACK, packet_id)
        return list(packet.body[2:])

    def acknowledge(self, packet_id: int) -> None:
        self.send(frame(PUBACK, struct.pack("!H", packet_id)))

    async def ended(self, within: float = WITHIN_SECONDS) -> bytes:
        """Until the hub closes; what it still said."""
        async with asyncio.timeout(within):
            try:
                return await self._reader.read()
            except (ConnectionError, ssl.SSLError):
                return b""
            finally:
                await self.close()

    async def disconnect(self) -> None:
        """DISCONNECT, then wait for the hub to close."""
        self.send(b"\xe0\x00")
        await self.ended()

    async def close(self) -> None:
        """Close without a word."""
        self._writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()

    async def abort(self) -> None:
        """Reset the connection."""
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()
