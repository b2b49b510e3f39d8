"""The two ways a TLS stream begins: we connect to somebody, or somebody connects to us."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from gatewayd.errors import DialFailed, HandshakeFailed
from gatewayd.transport.addresses import SocketAddress
from gatewayd.transport.connect_proxy import Tunnel, open_tunnel
from gatewayd.transport.stream import StreamOwner
from gatewayd.transport.stream_server import OnRefused, OwnerFactory, StreamServer, listening_socket
from gatewayd.transport.tls_engine import TlsEngine
from gatewayd.transport.tls_stream import StreamLimits, TlsStream, socket_problem

__all__ = [
    "SocketAddress",
    "StreamLimits",
    "StreamOwner",
    "StreamServer",
    "TlsStream",
    "open_stream",
    "serve_streams",
]

# More than this between accept and the end of the handshake is no fleet that comes back, it is somebody who holds
# connections open; and a loop turn that meets all of them at once still ends in about a quarter of a second.
MAX_HANDSHAKES = 256

DEFAULT_LIMITS = StreamLimits()


async def open_stream(
    loop: asyncio.AbstractEventLoop,
    address: SocketAddress,
    context: ssl.SSLContext,
    server_hostname: str,
    owner: StreamOwner,
    *,
    connect_timeout: float,
    handshake_timeout: float,
    session: ssl.SSLSession | None = None,
    on_resumable: Callable[[TlsStream], None] | None = None,
    limits: StreamLimits = DEFAULT_LIMITS,
    tunnel: Tunnel | None = None,
) -> TlsStream:
    """Connect to `address` and speak TLS with `server_hostname`: for SNI and for the check of the certificate.

    With a `tunnel`, `address` is an HTTP proxy and the TLS is with whom the tunnel leads to. The proxy may take
    `connect_timeout` again for its answer, and refuses with stage "proxy".

    `owner` hears `stream_ready`, and perhaps data, before this returns. Raises DialFailed with stage "connect" or
    "handshake"; then the owner heard nothing. Cancelled, it leaves no socket behind: an owner that was told
    `stream_ready` is told `stream_closed`.

    `session` is the `session` of an earlier stream of the same context, taken in its `on_resumable` or later.
    """
    sock = await _connect(loop, address, connect_timeout)
    if tunnel is not None:
        try:
            await open_tunnel(loop, sock, tunnel, within=connect_timeout)
        except BaseException:
            sock.close()
            raise
    opened: asyncio.Future[TlsStream] = loop.create_future()

    def on_ready(stream: TlsStream) -> StreamOwner:
        if opened.done():
            stream.abort()
        else:
            opened.set_result(stream)
        return owner

    def on_failed(stream: TlsStream, error: HandshakeFailed) -> None:
        if not opened.done():
            failed = DialFailed("handshake", str(error))
            failed.__cause__ = error
            opened.set_exception(failed)

    stream = TlsStream(
        loop,
        TlsEngine(context, server_hostname, session),
        server_hostname,
        (address.host, address.port),
        handshake_timeout=handshake_timeout,
        limits=limits,
        on_ready=on_ready,
        on_failed=on_failed,
        on_resumable=on_resumable,
    )
    try:
        await loop.create_connection(lambda: stream, sock=sock)
        return await opened
    except asyncio.CancelledError:
        opened.cancel()
        stream.abort()
        raise
    except OSError as error:
        opened.cancel()
        stream.abort()
        raise DialFailed("connect", f"{address}: {socket_problem(error)}") from error


async def serve_streams(
    loop: asyncio.AbstractEventLoop,
    host: str,
    port: int,
    context: ssl.SSLContext,
    owner_factory: OwnerFactory,
    *,
    handshake_timeout: float,
    backlog: int = 1024,
    sock: socket.socket | None = None,
    max_handshakes: int = MAX_HANDSHAKES,
    limits: StreamLimits = DEFAULT_LIMITS,
    admit: Callable[[str], bool] = lambda host: True,
    on_refused: OnRefused = lambda peer, error: None,
) -> StreamServer:
    """Listen on a numeric address (or on `sock`, bound and listening) and speak TLS with whoever connects.

    `owner_factory(stream)` is asked when a handshake is done; `stream_ready` follows at once. `admit(host)` may turn a
    connection away before any TLS; `on_refused` hears of failed handshakes. Raises OSError when the address is taken.
    """
    if sock is None:
        sock = listening_socket(host, port, backlog)
    else:
        sock.setblocking(False)
    return StreamServer(
        loop,
        sock,
        context,
        owner_factory,
        handshake_timeout=handshake_timeout,
        max_handshakes=max_handshakes,
        limits=limits,
        admit=admit,
        on_refused=on_refused,
    )


async def _connect(
    loop: asyncio.AbstractEventLoop, address: SocketAddress, connect_timeout: float
) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(connect_timeout):
            await loop.sock_connect(sock, address.sockaddr)
    except TimeoutError as error:
        sock.close()
        # The kernel's own ETIMEDOUT is a TimeoutError too and means the same.
        raise DialFailed("connect", f"{address} does not answer; waited {connect_timeout:g} s") from error
    except OSError as error:
        sock.close()
        raise DialFailed("connect", f"{address}: {socket_problem(error)}") from error
    except BaseException:
        sock.close()
        raise
    return sock
