"""A small HTTP proxy that knows CONNECT and nothing else, with switches for what proxies do wrong.

Written on asyncio's streams and by hand, so that it shares nothing with the code under test.

async with proxy_rig(refuse=407) as proxy:
    ... proxy.port, proxy.requests
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field


@dataclass
class ProxyRig:
    """What the proxy does, and what it was asked."""

    refuse: int | None = None  # answer this status instead of connecting
    answer: bytes | None = None  # say just this instead of an answer of HTTP, then wait for the client's end
    silent: bool = False  # read and never answer
    pause: float = 0.0  # seconds before each byte of the answer
    credentials: str | None = None  # user:password in base64; anything else is answered 407
    route: tuple[str, int] | None = None  # connect here, whatever the client asks for
    cut_on_half_close: bool = False  # as tinyproxy: one side's FIN ends both
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    open: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[ProxyRig], bool]) -> None:
        """Wait, bounded, until a request or an end makes `condition` true."""
        async with asyncio.timeout(5.0):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    @property
    def targets(self) -> list[str]:
        return [request.split(b" ")[1].decode() for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return  # the client left
        finally:
            self.open -= 1
            self._news.set()
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        self._news.set()
        if self.silent:
            await reader.read()
            return
        if self.answer is not None:
            writer.write(self.answer)
            await reader.read()
            return
        status = self.refuse
        if self.credentials is not None and f"Basic {self.credentials}\r\n".encode() not in request:
            status = 407
        if status is not None:
            # Proxies repeat requests in their error pages; none of it may come up anywhere.
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%b" % (status, len(request), request))
            await writer.drain()
            return
        host, port = self.route or _host_and_port(self.targets[-1])
        far_reader, far_writer = await asyncio.open_connection(host, port)
        try:
            for byte in b"HTTP/1.1 200 Connection established\r\n\r\n":
                await asyncio.sleep(self.pause)
                writer.write(bytes((byte,)))
            await self._relay((reader, far_writer), (far_reader, writer))
        finally:
            far_writer.close()

    async def _relay(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        tasks = [asyncio.create_task(_pump(*way)) for way in ways]
        try:
            when = asyncio.FIRST_COMPLETED if self.cut_on_half_close else asyncio.ALL_COMPLETED
            await asyncio.wait(tasks, return_when=when)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def _host_and_port(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


@contextlib.asynccontextmanager
async def proxy_rig(
    *,
    refuse: int | None = None,
    answer: bytes | None = None,
    silent: bool = False,
    pause: float = 0.0,
    credentials: str | None = None,
    route: tuple[str, int] | None = None,
    cut_on_half_close: bool = False,
) -> AsyncIterator[ProxyRig]:
    """A proxy on a free port of 127.0.0.1."""
    proxy = ProxyRig(refuse, answer, silent, pause, credentials, route, cut_on_half_close)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.stop()
        await server.wait_closed()
