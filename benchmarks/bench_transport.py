"""What a TLS connection costs: memory, CPU to make it, CPU per echoed message; ours beside asyncio's own TLS.

The last row is ours with WebSocket frames inside: what they add is its difference to the second row.

Both ends run in processes of their own and measure themselves, so every figure is of one role alone. The RSS figure is
the slope between two sizes, CPU is the process's own time. Everything is on 127.0.0.1 with certificates made here.

    python -m benchmarks.bench_transport [--connections 500] [--messages 20000] [--version 1.2] [--key rsa]

Columns: KiB of RSS per connection, CPU ms per connect, CPU µs per 256-byte message echoed (one received, one sent).
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import resource
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gatewayd.transport.addresses import SocketAddress
from gatewayd.transport.stream import Stream, StreamOwner
from gatewayd.transport.tls_contexts import client_context, server_context
from gatewayd.transport.tls_stream import TlsStream
from gatewayd.transport.tls_transport import open_stream, serve_streams
from gatewayd.transport.websocket_transport import WebSocketDoor, open_websocket
from tests.support.tls_material import HUB, Authority

PAYLOAD = bytes(range(256))
IN_FLIGHT = 50
CONCURRENT_DIALS = 50


# One end: answers each line on stdin with one line of JSON


def spent() -> dict[str, float]:
    """CPU seconds and RSS in KiB of this process, garbage and free pages returned first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {"cpu": usage.ru_utime + usage.ru_stime, "rss": pages * resource.getpagesize() / 1024}


async def obey(commands: dict[str, Callable[[int], Awaitable[None]]]) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        verb, number = line.decode().split()
        await commands[verb](int(number))
        print(json.dumps(spent()), flush=True)


async def nothing(_: int) -> None:
    return


class Echo:
    """Ours: says everything back."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def stream_ready(self, stream: Stream) -> None: ...
    def stream_data(self, data: bytes) -> None:
        self.stream.write(data)

    def stream_eof(self) -> None:
        self.stream.close()

    def stream_writable(self) -> None: ...
    def stream_closed(self, error: Exception | None) -> None: ...


class EchoProtocol(asyncio.Protocol):
    """The same over asyncio's own TLS."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve(who: str, directory: Path, version: ssl.TLSVersion) -> None:
    loop = asyncio.get_running_loop()
    context = server_context(directory / "chain.pem")
    context.maximum_version = version
    if who != "asyncio":
        owner = Echo if who == "ours" else WebSocketDoor(loop, Echo, upgrade_timeout=30)
        server: Any = await serve_streams(loop, "127.0.0.1", 0, context, owner, handshake_timeout=30)
        port = server.port
    else:
        server = await loop.create_server(EchoProtocol, "127.0.0.1", 0, ssl=context, backlog=1024)
        port = server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port}), flush=True)
    await obey({"mark": nothing})


class Crowd:
    """The client end: `connect n` more connections, `echo n` messages over all of them."""

    def __init__(self, who: str, resume: bool, directory: Path, version: ssl.TLSVersion, port: int) -> None:
        self.who = who
        self.resume = resume
        self.context = client_context(directory / "ca.pem")
        self.context.maximum_version = version
        self.port = port
        self.members: list[OurMember | StdlibMember] = []
        self.session: ssl.SSLSession | None = None
        self.left = 0
        self.done = asyncio.Event()

    async def connect(self, count: int) -> None:
        if self.resume and self.session is None:
            await self.connect_one()
            await self.echo(1)
            first = self.members[0]
            assert isinstance(first, OurMember), "asyncio has no way to resume a session"
            self.session = first.stream.session
        gate = asyncio.Semaphore(CONCURRENT_DIALS)

        async def gated() -> None:
            async with gate:
                await self.connect_one()

        await asyncio.gather(*(gated() for _ in range(count)))
        await self.echo(2 * len(self.members))  # TLS 1.3 tickets have come, first buffers are made

    async def connect_one(self) -> None:
        loop = asyncio.get_running_loop()
        if self.who != "asyncio":
            member = OurMember(self)
            if self.who == "ours":
                await self.open(member)
            else:
                await open_websocket(self.open, HUB, member, upgrade_timeout=30)
            self.members.append(member)
        else:
            _, protocol = await loop.create_connection(
                lambda: StdlibMember(self), "127.0.0.1", self.port, ssl=self.context, server_hostname=HUB
            )
            self.members.append(protocol)

    async def open(self, owner: StreamOwner) -> TlsStream:
        return await open_stream(
            asyncio.get_running_loop(),
            SocketAddress.numeric("127.0.0.1", self.port),
            self.context,
            HUB,
            owner,
            connect_timeout=30,
            handshake_timeout=30,
            session=self.session,
        )

    async def echo(self, count: int) -> None:
        self.done.clear()
        self.left = count
        self.turn = 0
        for _ in range(min(IN_FLIGHT, count)):
            self.send_one()
        await self.done.wait()

    def send_one(self) -> None:
        self.members[self.turn % len(self.members)].send(PAYLOAD)
        self.turn += 1

    def echoed(self, messages: int) -> None:
        for _ in range(messages):
            self.left -= 1
            if self.left >= IN_FLIGHT:
                self.send_one()
            elif self.left == 0:
                self.done.set()


class Counter:
    """One connection of the crowd; counts whole messages."""

    __slots__ = ("crowd", "received")

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.received = 0

    def got(self, size: int) -> None:
        before, self.received = self.received, self.received + size
        self.crowd.echoed(self.received // len(PAYLOAD) - before // len(PAYLOAD))


class OurMember(Counter):
    __slots__ = ("stream",)

    def stream_ready(self, stream: Stream) -> None:
        self.stream = stream

    def stream_data(self, data: bytes) -> None:
        self.got(len(data))

    def stream_eof(self) -> None: ...
    def stream_writable(self) -> None: ...
    def stream_closed(self, error: Exception | None) -> None: ...
    def send(self, data: bytes) -> None:
        self.stream.write(data)


class StdlibMember(Counter, asyncio.Protocol):
    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got(len(data))

    def send(self, data: bytes) -> None:
        self.transport.write(data)


async def crowd(who: str, resume: bool, directory: Path, version: ssl.TLSVersion, port: int) -> None:
    clients = Crowd(who, resume, directory, version, port)
    print(json.dumps({}), flush=True)
    await obey({"connect": clients.connect, "echo": clients.echo, "mark": nothing})


# The whole: starts both ends and reads their figures


class End:
    """A process of one end."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bench_transport", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.greeting = self.read()

    def ask(self, verb: str, number: int = 0) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {number}\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        assert isinstance(answer, dict)
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def measure(
    who: str, resume: bool, directory: Path, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Both roles of one kind of TLS: KiB per connection, ms per connect, µs per echo."""
    common = (str(directory), options.version)
    server = End("serve", who, *common)
    clients = End("crowd", who, *common, str(int(server.greeting["port"])), "resume" if resume else "full")
    try:
        clients.ask("connect", 50)
        start = {"client": clients.ask("mark"), "server": server.ask("mark")}
        clients.ask("connect", options.connections)
        grown = {"client": clients.ask("mark"), "server": server.ask("mark")}
        clients.ask("echo", options.messages)
        echoed = {"client": clients.ask("mark"), "server": server.ask("mark")}
    finally:
        clients.stop()
        server.stop()
    return {
        role: {
            "KiB": (grown[role]["rss"] - start[role]["rss"]) / options.connections,
            "ms": (grown[role]["cpu"] - start[role]["cpu"]) / options.connections * 1e3,
            "us": (echoed[role]["cpu"] - grown[role]["cpu"]) / options.messages * 1e6,
        }
        for role in ("client", "server")
    }


def main() -> None:
    if len(sys.argv) > 3 and sys.argv[1] in ("serve", "crowd"):
        role, who, place, version, *rest = sys.argv[1:]
        chosen = ssl.TLSVersion[f"TLSv{version.replace('.', '_')}"]
        if role == "serve":
            asyncio.run(serve(who, Path(place), chosen))
        else:
            asyncio.run(crowd(who, rest[1] == "resume", Path(place), chosen, int(rest[0])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--messages", type=int, default=20000)
    parser.add_argument("--version", choices=("1.2", "1.3"), default="1.2")
    parser.add_argument("--key", choices=("rsa", "p256"), default="rsa")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        authority = Authority(directory)
        authority.ca_file.rename(directory / "ca.pem")
        authority.server(HUB, rsa=options.key == "rsa").chain.rename(directory / "chain.pem")
        rows = {
            "asyncio": measure("asyncio", False, directory, options),
            "ours": measure("ours", False, directory, options),
            "ours, resumed": measure("ours", True, directory, options),
            "websocket": measure("websocket", False, directory, options),
        }
    print(
        f"TLS {options.version}, {options.key}, {options.connections} connections, {options.messages} messages"
    )
    print(f"{'':14} {'role':7} {'KiB/conn':>9} {'CPU ms/connect':>15} {'CPU us/echo':>12}")
    for who, roles in rows.items():
        for role, row in roles.items():
            base = rows["asyncio"][role]
            cells = "".join(
                f"{row[key]:>11.2f} ({row[key] / base[key]:4.2f}x)" for key in ("KiB", "ms", "us")
            )
            print(f"{who:14} {role:7} {cells}")


if __name__ == "__main__":
    main()
