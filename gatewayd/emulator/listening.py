"""The hub's listening socket and the three things it can do: serve TLS, accept and stay silent, or be away.

Silence and absence are faults with an end: after their time the hub serves again on the same address by itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from gatewayd.transport.stream_server import OnRefused, OwnerFactory, StreamServer, listening_socket
from gatewayd.transport.tls_transport import serve_streams

BACKLOG = 1024
HANDSHAKE_SECONDS = 30.0
LONGEST_FAULT_SECONDS = 3600.0


class _Silence(asyncio.Protocol):
    """Reads and never answers."""

    def __init__(self, held: set[asyncio.BaseTransport]) -> None:
        self._held = held
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._held.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._held.discard(self._transport)


class Listening:
    """One address. Open connections are none of its business and outlive every change."""

    def __init__(
        self, owner_factory: OwnerFactory, admit: Callable[[str], bool], on_refused: OnRefused
    ) -> None:
        self._owner_factory = owner_factory
        self._admit = admit
        self._on_refused = on_refused
        self._context: ssl.SSLContext | None = None
        self._host = ""
        self._port = 0
        self._server: StreamServer | None = None
        self._silent: asyncio.Server | None = None
        self._held: set[asyncio.BaseTransport] = set()
        self._comeback: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        return self._host, self._port

    async def open(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listen on a numeric address; port 0 takes a free one and keeps it."""
        self._host, self._port, self._context = host, port, context
        await self._serve()

    async def use(self, context: ssl.SSLContext) -> None:
        """Show another certificate to whoever comes from now on; tickets of the old context are worth nothing."""
        self._context = context
        if self._server is not None:
            await self._stop()
            await self._serve()

    async def be_silent(self, seconds: float) -> None:
        """Accept TCP and never speak TLS, for so long."""
        await self._change(seconds)
        loop = asyncio.get_running_loop()
        sock = listening_socket(self._host, self._port, BACKLOG)
        self._silent = await loop.create_server(lambda: _Silence(self._held), sock=sock)

    async def be_away(self, seconds: float) -> None:
        """Refuse TCP, for so long."""
        await self._change(seconds)

    async def close(self) -> None:
        self._cancel_comeback()
        await self._stop()

    async def _change(self, seconds: float) -> None:
        if not 0 < seconds <= LONGEST_FAULT_SECONDS:
            raise ValueError(f"seconds={seconds}: allowed above 0, up to {LONGEST_FAULT_SECONDS}")
        self._cancel_comeback()
        await self._stop()
        loop = asyncio.get_running_loop()
        self._comeback = loop.create_task(self._come_back(seconds), name="hub serves again")

    async def _come_back(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._comeback = None
        await self._stop()
        await self._serve()

    def _cancel_comeback(self) -> None:
        if self._comeback is not None:
            self._comeback.cancel()
            self._comeback = None

    async def _serve(self) -> None:
        assert self._context is not None
        self._server = await serve_streams(
            asyncio.get_running_loop(),
            self._host,
            self._port,
            self._context,
            self._owner_factory,
            handshake_timeout=HANDSHAKE_SECONDS,
            backlog=BACKLOG,
            admit=self._admit,
            on_refused=self._on_refused,
        )
        self._port = self._server.port

    async def _stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
            await server.wait_closed()
        if self._silent is not None:
            silent, self._silent = self._silent, None
            silent.close()
            for transport in tuple(self._held):
                transport.close()
            await silent.wait_closed()
