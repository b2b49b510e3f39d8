"""A stream owner that writes down what it is told, bounded waits for it, and both kinds of servers to talk to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from gatewayd.transport.addresses import SocketAddress
from gatewayd.transport.stream import Stream, StreamOwner
from gatewayd.transport.stream_server import StreamServer
from gatewayd.transport.tls_stream import TlsStream
from gatewayd.transport.tls_transport import open_stream, serve_streams
from tests.support.tls_material import HUB, Tls

# Far more than any of these tests needs, far less than a person waits.
PATIENCE = 5.0

T = TypeVar("T")


class Recorder:
    """Keeps every call in order in `calls`; `reactions` may answer a call by name with what to do in it."""

    def __init__(self, **reactions: Callable[[Recorder], object]) -> None:
        self.calls: list[str] = []
        self.data = bytearray()
        self.error: Exception | None = None
        self.reactions = reactions
        self.stream: Stream | None = None
        self._news = asyncio.Event()

    @property
    def s(self) -> Stream:
        """The stream, which must be there."""
        assert self.stream is not None
        return self.stream

    @property
    def tls(self) -> TlsStream:
        """The same, for what only TLS itself has."""
        assert isinstance(self.stream, TlsStream)
        return self.stream

    @property
    def is_closed(self) -> bool:
        return "closed" in self.calls

    def stream_ready(self, stream: Stream) -> None:
        self.stream = stream
        self._told("ready")

    def stream_data(self, data: bytes) -> None:
        self.data += data
        self._told("data")

    def stream_eof(self) -> None:
        self._told("eof")

    def stream_writable(self) -> None:
        self._told("writable")

    def stream_closed(self, error: Exception | None) -> None:
        self.error = error
        self._told("closed")

    async def until(self, condition: Callable[[Recorder], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    async def until_told(self, call: str) -> None:
        await self.until(lambda recorder: call in recorder.calls)

    async def until_over(self) -> None:
        """Until the peer's end: a peer that closes with something of ours unread ends by RST instead of FIN."""
        await self.until(lambda recorder: "eof" in recorder.calls or recorder.is_closed)

    def _told(self, call: str) -> None:
        self.calls.append(call)
        self._news.set()
        reaction = self.reactions.get(call)
        if reaction is not None:
            reaction(self)


@contextlib.asynccontextmanager
async def serving(
    context: ssl.SSLContext,
    owner_factory: Callable[[TlsStream], StreamOwner],
    **options: Any,
) -> AsyncIterator[StreamServer]:
    """A stream server on a free port of 127.0.0.1; leaves no stream behind."""
    streams: list[TlsStream] = []

    def remember(stream: TlsStream) -> StreamOwner:
        streams.append(stream)
        return owner_factory(stream)

    server = await serve_streams(
        asyncio.get_running_loop(),
        "127.0.0.1",
        0,
        context,
        remember,
        **{"handshake_timeout": PATIENCE, **options},
    )
    try:
        yield server
    finally:
        server.close()
        await server.wait_closed()
        for stream in streams:
            stream.abort()
        await settle()


async def dialled(
    port: int, context: ssl.SSLContext, owner: StreamOwner, hostname: str = HUB, **options: Any
) -> TlsStream:
    """A stream of ours to a port of 127.0.0.1."""
    return await open_stream(
        asyncio.get_running_loop(),
        SocketAddress.numeric("127.0.0.1", port),
        context,
        hostname,
        owner,
        **{"connect_timeout": PATIENCE, "handshake_timeout": PATIENCE, **options},
    )


async def settle() -> None:
    """Let the loop carry out what is scheduled already, such as the closing of sockets."""
    for _ in range(5):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def stdlib_server(
    context: ssl.SSLContext | None,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """asyncio's own server (plain TCP when `context` is None) on a free port; the port."""
    problems: list[Exception] = []
    serving_now: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving_now.add(task)
        try:
            await serve(reader, writer)
        except OSError:
            return  # the peer broke it: what the test is about
        except Exception as error:  # noqa: BLE001 - shown at the end of the test
            problems.append(error)
        finally:
            await shut(writer)
            serving_now.discard(task)

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
        if serving_now:
            await asyncio.wait(serving_now, timeout=PATIENCE)
    finally:
        server.close()
        for task in tuple(serving_now):
            task.cancel()
        await asyncio.gather(*serving_now, return_exceptions=True)
        await server.wait_closed()
        await settle()
    assert not problems, problems


async def shut(writer: asyncio.StreamWriter) -> None:
    """Close a stream of the standard library, broken or not, and wait until its socket is gone."""
    writer.close()
    with contextlib.suppress(OSError):
        async with asyncio.timeout(PATIENCE):
            await writer.wait_closed()


async def with_stdlib_peer(
    tls: Tls,
    version: ssl.TLSVersion,
    owner: Recorder,
    peer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[T]],
    *,
    we_serve: bool,
) -> T:
    """Run `peer` as the other end of `owner`, in asyncio's own TLS; its result when both sides are closed."""
    results: list[T] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        results.append(await peer(reader, writer))
        writer.close()

    async with asyncio.timeout(3 * PATIENCE):
        if we_serve:
            async with serving(tls.our_server(), lambda _: owner) as server:
                await run(
                    *await asyncio.open_connection(
                        "127.0.0.1", server.port, ssl=tls.their_client(version), server_hostname=HUB
                    )
                )
                await end(owner)
        else:
            async with stdlib_server(tls.their_server(version), run) as port:
                await dialled(port, tls.our_client(), owner)
                await owner.until(lambda it: bool(results))
                await end(owner)
    return results[0]


async def end(owner: Recorder) -> None:
    await owner.until(lambda it: "eof" in it.calls or it.is_closed)
    owner.s.close()
    await owner.until_told("closed")
