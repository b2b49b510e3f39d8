"""The status server: small, beside the work, on a port or on a socket in the file system.

Scrapers must never slow the renewals down. So connections are bounded (one too many gets 503 at once), each is cut when
it is older than any scrape needs, and nothing here starts a thread. What is answered is made in status_answers.py.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from gatewayd.daemon.config_values import Endpoint, UnixSocket

# A Prometheus pair, an agent, a probe and a few people; more is a fault somewhere.
MAX_CONNECTIONS = 32

# Connections the kernel keeps until they are accepted or refused here; a full queue would cost a scraper a second.
BACKLOG = 128

# Prometheus' own scrape timeout is 10 s by default; a connection this old is stuck or not a scraper.
CONNECTION_SECONDS = 30.0
SWEEPS = 6  # looks at the connections in that time

# How long a connection that is refused may take to read that.
REFUSAL_SECONDS = 1.0

# How long between two requests on one connection. Prometheus scrapes every 15 s or more: it may dial again.
IDLE_SECONDS = 5.0

# How long answers that are being written may take when the server closes.
CLOSE_SECONDS = 0.25

# Read and write for the owner and the group: whoever may connect may read all that is told.
SOCKET_MODE = 0o660

_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class StatusServer:
    """The server. `start` binds, `close` ends every connection."""

    def __init__(
        self,
        answer: Answer,
        *,
        max_connections: int = MAX_CONNECTIONS,
        connection_seconds: float = CONNECTION_SECONDS,
    ) -> None:
        self._answer = answer
        self._connection_seconds = connection_seconds
        self._max_connections = max_connections
        self._open: dict[_Conversation, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._http: web.Server | None = None
        self._socket_file: tuple[Path, int] | None = None
        self._refusals = 0
        self.refused = 0

    async def start(self, address: Endpoint | UnixSocket) -> Endpoint | UnixSocket:
        """Listen; the address in use, with the port the system chose when 0 was asked for. OSError when it cannot."""
        self._http = web.Server(self._answer)
        loop = asyncio.get_running_loop()
        if isinstance(address, UnixSocket):
            listening = _bound(address.path)
            self._socket_file = (address.path, address.path.stat().st_ino)
            self._server = await loop.create_unix_server(self._protocol, sock=listening, backlog=BACKLOG)
            return address
        self._server = await loop.create_server(self._protocol, address.host, address.port, backlog=BACKLOG)
        host, port = self._server.sockets[0].getsockname()[:2]
        return Endpoint(host, port)

    @property
    def open_connections(self) -> int:
        """Connections that are being served."""
        return len(self._open)

    async def close(self) -> None:
        """Stop listening and end what is open."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._server is not None:
            self._server.close()
        if self._socket_file is not None:
            path, inode = self._socket_file
            if path.exists() and path.stat().st_ino == inode:  # another run may have put its own there
                path.unlink()
        if self._http is not None:
            await self._http.shutdown(timeout=CLOSE_SECONDS)
        if self._server is not None:
            await self._server.wait_closed()

    def _protocol(self) -> asyncio.Protocol:
        """For each connection that was accepted: a conversation, or the refusal of one too many."""
        loop = asyncio.get_running_loop()
        if len(self._open) >= self._max_connections:
            self.refused += 1
            if self._refusals >= self._max_connections:
                return _Refusal(loop, None)
            self._refusals += 1
            return _Refusal(loop, self._refusal_ended)
        assert self._http is not None
        conversation = _Conversation(self._http, loop, self._gone)
        self._open[conversation] = loop.time()
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._connection_seconds / SWEEPS, self._sweep)
        return conversation

    def _gone(self, conversation: _Conversation) -> None:
        self._open.pop(conversation, None)

    def _refusal_ended(self) -> None:
        self._refusals -= 1

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for conversation, since in self._open.items():
            if loop.time() - since >= self._connection_seconds and conversation.transport is not None:
                conversation.transport.abort()
        self._sweeper = (
            loop.call_later(self._connection_seconds / SWEEPS, self._sweep) if self._open else None
        )


class _Conversation(web.RequestHandler):
    """aiohttp's side of one connection, which says when it is over."""

    def __init__(
        self, server: web.Server, loop: asyncio.AbstractEventLoop, gone: Callable[[_Conversation], None]
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=IDLE_SECONDS,
            tcp_keepalive=False,
            access_log=None,  # type: ignore[arg-type]  # None is documented as "no access log"; the type lags
            lingering_time=0.0,
        )
        self._when_gone = gone

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._when_gone(self)


class _Refusal(asyncio.Protocol):
    """Says 503 whatever was asked. Reads on for a moment: a close over unread bytes would reset the answer away."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[], None] | None) -> None:
        """`ended` None: there are too many refusals as well, so nothing is said."""
        self._loop = loop
        self._ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._ended is None:
            transport.abort()
            return
        transport.write(_REFUSAL)
        transport.write_eof()
        self._timer = self._loop.call_later(REFUSAL_SECONDS, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._ended is not None:
            self._timer.cancel()
            self._ended()


def _bound(path: Path) -> socket.socket:
    """A socket bound to a path nobody serves. Its mode is right before anybody can connect: nobody listens yet."""
    _clear(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        bound.bind(str(path))
        path.chmod(SOCKET_MODE)
    except OSError:
        bound.close()
        raise
    return bound


def _clear(path: Path) -> None:
    """Remove what a run that was killed left behind; OSError when the path is in use, or is no socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, f"{os.strerror(errno.EEXIST)} and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as caller:
        # A full queue (EAGAIN) is somebody, too.
        if caller.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    path.unlink()
