"""WebSockets for tests: ours on both ends, and one end written by hand (RFC 6455, 5.2) so that nothing is shared."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from gatewayd.transport.stream import Stream, StreamOwner
from gatewayd.transport.stream_server import StreamServer
from gatewayd.transport.websocket_stream import WebSocketStream
from gatewayd.transport.websocket_transport import WebSocketDoor, open_websocket
from tests.support.stream_owners import PATIENCE, dialled, serving
from tests.support.tls_material import HUB

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PATH = "/$iothub/websocket"


@contextlib.asynccontextmanager
async def websockets_served(
    context: ssl.SSLContext, owner_factory: Callable[[Stream], StreamOwner], **options: Any
) -> AsyncIterator[StreamServer]:
    """Our side as a server. Options named as those of the door go to it, others to the stream server."""
    for_door = {key: options.pop(key) for key in ("upgrade_timeout", "refused") if key in options}
    door = WebSocketDoor(
        asyncio.get_running_loop(),
        owner_factory,
        upgrade_timeout=for_door.get("upgrade_timeout", PATIENCE),
        on_refused=for_door.get("refused", lambda peer, error: None),
    )
    async with serving(context, door, **options) as server:
        yield server


async def websocket_dialled(
    port: int, context: ssl.SSLContext, owner: StreamOwner, **options: Any
) -> WebSocketStream:
    """Our side as a client of a port of 127.0.0.1."""
    upgrade_timeout = options.pop("upgrade_timeout", PATIENCE)
    target = options.pop("target", PATH)
    return await open_websocket(
        lambda stream: dialled(port, context, stream, **options),
        HUB,
        owner,
        upgrade_timeout=upgrade_timeout,
        target=target,
    )


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0
) -> bytes:
    """One frame."""
    first = (0x80 if fin else 0) | reserved | opcode
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, size | (0x80 if masked else 0))
    elif size < 65536:
        head = struct.pack("!BBH", first, 126 | (0x80 if masked else 0), size)
    else:
        head = struct.pack("!BBQ", first, 127 | (0x80 if masked else 0), size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def close_frame(code: int = 1000, *, masked: bool = True) -> bytes:
    return frame(CLOSE, struct.pack("!H", code), masked=masked)


class HandWebSocket:
    """The other end of a WebSocket, on the standard library's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool) -> None:
        self.reader = reader
        self.writer = writer
        self.client = client

    @classmethod
    async def connect(
        cls, port: int, context: ssl.SSLContext, *, request: str | None = None, behind: bytes = b""
    ) -> Self:
        """As a client, up to the head of the answer, which is in `answer`. `behind` goes out with the request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HUB)
        it = cls(reader, writer, client=True)
        key = base64.b64encode(os.urandom(16)).decode()
        text = request or (
            f"GET {PATH} HTTP/1.1\r\nHost: {HUB}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        writer.write(text.encode() + behind)
        async with asyncio.timeout(PATIENCE):
            it.answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        return it

    answer = ""

    @property
    def status(self) -> int:
        return int(self.answer.split(" ")[1])

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        self.writer.write(frame(opcode, payload, fin=fin, masked=self.client))

    async def receive(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            key = await self.reader.readexactly(4) if second & 0x80 else bytes(4)
            payload = await self.reader.readexactly(size)
        assert bool(second & 0x80) != self.client, "a client masks, a server does not (RFC 6455, 5.1)"
        return first & 0x0F, bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))

    async def close_code(self) -> int:
        """The code of the next frame, which is a Close frame."""
        opcode, payload = await self.receive()
        assert opcode == CLOSE, (opcode, payload)
        return int.from_bytes(payload[:2], "big")

    async def ended(self) -> bytes:
        """What still comes until the other end is over."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def leave(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
