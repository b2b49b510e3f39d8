"""A listening socket whose connections become TLS streams.

Accepting is paced. At most `max_handshakes` connections are between accept and the end of their handshake; the rest
wait in the kernel's backlog, where waiting costs nothing and nobody is told no. At most `ACCEPT_BURST` are taken per
turn, so that a fleet that comes back all at once (an RSA handshake costs some 1 ms of CPU) leaves the loop free for
those already connected. A handshake that does not finish in time is reset and gives its place away.

A handshake that fails makes no owner; `on_refused` hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable

from gatewayd.errors import GatewaydError, HandshakeFailed
from gatewayd.transport.addresses import SocketAddress
from gatewayd.transport.stream import StreamOwner
from gatewayd.transport.tls_engine import TlsEngine
from gatewayd.transport.tls_stream import StreamLimits, TlsStream

ACCEPT_BURST = 8

# Out of file descriptors or memory: accepting again at once would spin. asyncio's servers wait as long
# (asyncio.constants.ACCEPT_RETRY_DELAY).
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ACCEPT_RETRY_SECONDS = 1.0

OwnerFactory = Callable[[TlsStream], StreamOwner]
# Where a refused connection came from, and why it was refused.
OnRefused = Callable[[tuple[str, int], GatewaydError | OSError], None]


class StreamServer:
    """Accepts until closed. Streams that are open belong to their owners and outlive the server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        context: ssl.SSLContext,
        owner_factory: OwnerFactory,
        *,
        handshake_timeout: float,
        max_handshakes: int,
        limits: StreamLimits,
        admit: Callable[[str], bool],
        on_refused: OnRefused,
    ) -> None:
        """`sock` is listening and does not block. `admit` is asked with the peer's host before any TLS is done."""
        self._loop = loop
        self._sock = sock
        self._context = context
        self._owner_factory = owner_factory
        self.handshake_timeout = handshake_timeout  # may be changed; handshakes in progress keep theirs
        self._max_handshakes = max_handshakes
        self._limits = limits
        self._admit = admit
        self._on_refused = on_refused
        self._arrived: deque[socket.socket] = deque()  # accepted in this turn
        self._handshaking: set[TlsStream] = set()
        self._closed = False
        self._room = asyncio.Event()
        self._room.set()
        self._address = SocketAddress(sock.family, sock.getsockname())
        self._accepting = loop.create_task(self._accept_forever(), name=f"accept {self._address}")
        self._accepting.add_done_callback(self._accept_ended)

    @property
    def address(self) -> SocketAddress:
        """Where it listens; the port is the real one also when 0 was asked for."""
        return self._address

    @property
    def port(self) -> int:
        return self._address.port

    @property
    def handshaking(self) -> int:
        """Connections between accept and the end of their handshake."""
        return len(self._handshaking)

    def close(self) -> None:
        """Accept nothing more and give up the handshakes in progress, which is no refusal."""
        self._closed = True
        self._accepting.cancel()
        for stream in tuple(self._handshaking):
            stream.abort()

    async def wait_closed(self) -> None:
        """Until nothing of the server runs any more and its address is free; call after `close`."""
        await asyncio.wait((self._accepting,))

    async def _accept_forever(self) -> None:
        while True:
            await self._room.wait()
            try:
                first, _ = await self._loop.sock_accept(self._sock)
            except OSError as error:
                await self._accept_failed(error)
                continue
            self._arrived.append(first)
            places = min(ACCEPT_BURST, self._max_handshakes - len(self._handshaking))
            # BlockingIOError: nobody else waits. Anything worse comes again above.
            with contextlib.suppress(OSError):
                while len(self._arrived) < places:
                    self._arrived.append(self._sock.accept()[0])
            begun = await asyncio.gather(
                *(self._begin() for _ in range(len(self._arrived))), return_exceptions=True
            )
            for fault in begun:
                if isinstance(fault, Exception):
                    # One connection's fault, ours or its own, must not end the listener.
                    self._loop.call_exception_handler({"message": "accepting failed", "exception": fault})

    async def _accept_failed(self, error: OSError) -> None:
        """One peer that left before it was accepted is nothing; want of descriptors or memory needs a rest."""
        self._on_refused(("", 0), error)
        if error.errno in _EXHAUSTED:
            await asyncio.sleep(ACCEPT_RETRY_SECONDS)

    def _accept_ended(self, accepting: asyncio.Task[None]) -> None:
        # Only now: while the loop still watches the descriptor its number must not be given to anybody else.
        self._sock.close()
        while self._arrived:  # accepted, and cancelled before it could begin
            self._arrived.popleft().close()

    async def _begin(self) -> None:
        sock = self._arrived.popleft()
        try:
            sock.setblocking(False)
            await self._shake_hands(sock)
        except BaseException:
            sock.close()
            raise

    async def _shake_hands(self, sock: socket.socket) -> None:
        try:
            host, port = sock.getpeername()[:2]
        except OSError:  # it left already
            sock.close()
            return
        if not self._admit(host):
            sock.close()
            return
        stream = TlsStream(
            self._loop,
            TlsEngine(self._context, None),
            host,
            (host, port),
            handshake_timeout=self.handshake_timeout,
            limits=self._limits,
            on_ready=self._ready,
            on_failed=self._failed,
        )
        self._handshaking.add(stream)
        if len(self._handshaking) >= self._max_handshakes:
            self._room.clear()
        try:
            await self._loop.connect_accepted_socket(lambda: stream, sock)
        except BaseException:
            stream.abort()
            raise

    def _ready(self, stream: TlsStream) -> StreamOwner:
        self._give_place(stream)
        return self._owner_factory(stream)

    def _failed(self, stream: TlsStream, error: HandshakeFailed) -> None:
        self._give_place(stream)
        if not self._closed:
            self._on_refused(stream.peer_address, error)

    def _give_place(self, stream: TlsStream) -> None:
        self._handshaking.discard(stream)
        self._room.set()


def listening_socket(host: str, port: int, backlog: int) -> socket.socket:
    """A TCP socket that listens on the numeric address `host`; "::" takes IPv4 too. Raises OSError, ValueError."""
    address = SocketAddress.numeric(host, port)
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind(address.sockaddr)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock
