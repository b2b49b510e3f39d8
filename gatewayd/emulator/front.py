"""Every address the hub listens at: MQTT in TLS, and MQTT over WebSocket where it is asked for.

Both lead to the same hub, and what befalls it (absence, silence, another certificate) befalls both.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from gatewayd.emulator.listening import HANDSHAKE_SECONDS, Listening
from gatewayd.transport.stream import Stream, StreamOwner
from gatewayd.transport.stream_server import OnRefused
from gatewayd.transport.websocket_transport import WebSocketDoor


class Front:
    """One or two `Listening`s with one life."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        meet: Callable[[Stream], StreamOwner],
        admit: Callable[[str], bool],
        on_refused: OnRefused,
    ) -> None:
        self._mqtt = Listening(meet, admit, on_refused)
        self._door = WebSocketDoor(loop, meet, upgrade_timeout=HANDSHAKE_SECONDS, on_refused=on_refused)
        self._websocket = Listening(self._door, admit, on_refused)
        self._open: tuple[Listening, ...] = ()

    @property
    def address(self) -> tuple[str, int]:
        """Where MQTT is spoken; the port is the real one also when 0 was asked for."""
        return self._mqtt.address

    @property
    def websocket_address(self) -> tuple[str, int] | None:
        """Where MQTT over WebSocket is spoken; None when nowhere."""
        return self._websocket.address if self._websocket in self._open else None

    async def open(self, host: str, port: int, websocket_port: int | None, context: ssl.SSLContext) -> None:
        """Listen on a numeric address; a port of 0 takes a free one and keeps it."""
        await self._mqtt.open(host, port, context)
        self._open = (self._mqtt,)
        if websocket_port is not None:
            await self._websocket.open(host, websocket_port, context)
            self._open = (self._mqtt, self._websocket)

    async def use(self, context: ssl.SSLContext) -> None:
        """Show another certificate to whoever comes from now on."""
        for listening in self._open:
            await listening.use(context)

    async def be_silent(self, seconds: float) -> None:
        """Accept TCP and never speak TLS, for so long."""
        for listening in self._open:
            await listening.be_silent(seconds)

    async def be_away(self, seconds: float) -> None:
        """Refuse TCP, for so long."""
        for listening in self._open:
            await listening.be_away(seconds)

    async def close(self) -> None:
        for listening in self._open:
            await listening.close()
        self._door.close()
