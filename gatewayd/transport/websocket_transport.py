"""The two ways a WebSocket begins: we ask for one on a stream of ours, or somebody asks on a stream we serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gatewayd.errors import DialFailed, HandshakeFailed
from gatewayd.transport.stream import Stream, StreamOwner
from gatewayd.transport.tls_stream import StreamLimits
from gatewayd.transport.websocket_stream import WebSocketStream
from gatewayd.transport.websocket_upgrade import PATH, ClientUpgrade, ServerUpgrade

# How long a peer's Close frame is waited for; as long as a stream below waits for a FIN.
LINGER_SECONDS = StreamLimits().linger


async def open_websocket(
    connect: Callable[[StreamOwner], Awaitable[object]],
    host: str,
    owner: StreamOwner,
    *,
    upgrade_timeout: float,
    target: str = PATH,
) -> WebSocketStream:
    """Open a stream with `connect`, which is given its owner, and ask `host` (the Host header) on it for a WebSocket.

    `owner` hears `stream_ready`, and perhaps data, before this returns. Raises DialFailed with stage "upgrade", and
    what `connect` raises; then the owner heard nothing. Cancelled, it leaves no connection behind.
    """
    loop = asyncio.get_running_loop()
    upgraded: asyncio.Future[None] = loop.create_future()

    def on_ready(stream: WebSocketStream) -> StreamOwner:
        if upgraded.done():
            stream.abort()
        else:
            upgraded.set_result(None)
        return owner

    def on_failed(stream: WebSocketStream, error: HandshakeFailed) -> None:
        if not upgraded.done():
            failed = DialFailed("upgrade", str(error))
            failed.__cause__ = error
            upgraded.set_exception(failed)

    stream = WebSocketStream(
        loop,
        ClientUpgrade(host, target),
        upgrade_timeout=upgrade_timeout,
        linger=LINGER_SECONDS,
        on_ready=on_ready,
        on_failed=on_failed,
    )
    try:
        await connect(stream)
        await upgraded
    except BaseException:
        if not upgraded.cancel() and not upgraded.cancelled():
            upgraded.exception()  # told already, or overtaken by a cancellation
        stream.abort()
        raise
    return stream


class WebSocketDoor:
    """An owner factory for `serve_streams`: each stream is upgraded, then handed on to an owner of the next kind.

    Who is in the doorway is counted, so that whoever admits can bound it; nobody stays there longer than
    `upgrade_timeout`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner_factory: Callable[[Stream], StreamOwner],
        *,
        upgrade_timeout: float,
        on_refused: Callable[[tuple[str, int], HandshakeFailed], None] = lambda peer, error: None,
        path: str = PATH,
    ) -> None:
        self._loop = loop
        self._owner_factory = owner_factory
        self.upgrade_timeout = upgrade_timeout  # may be changed; upgrades in progress keep theirs
        self._on_refused = on_refused
        self._path = path
        self._inside: set[WebSocketStream] = set()
        self._closed = False

    def __len__(self) -> int:
        """How many connections are between the end of their TLS handshake and the end of their upgrade."""
        return len(self._inside)

    def __call__(self, stream: Stream) -> StreamOwner:
        upgrading = WebSocketStream(
            self._loop,
            ServerUpgrade(self._path),
            upgrade_timeout=self.upgrade_timeout,
            linger=LINGER_SECONDS,
            on_ready=self._through,
            on_failed=self._refused,
        )
        self._inside.add(upgrading)
        return upgrading

    def close(self) -> None:
        """Give up who is in the doorway, which is no refusal."""
        self._closed = True
        for stream in tuple(self._inside):
            stream.abort()

    def _through(self, stream: WebSocketStream) -> StreamOwner:
        self._inside.discard(stream)
        return self._owner_factory(stream)

    def _refused(self, stream: WebSocketStream, error: HandshakeFailed) -> None:
        self._inside.discard(stream)
        if not self._closed:
            self._on_refused(stream.peer_address, error)
