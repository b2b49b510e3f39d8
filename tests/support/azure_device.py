"""An unmodified azure-iot-device client in a process of its own: an honest device, and a judge of what we serve it.

The SDK insists on port 8883, on TLS of exactly 1.2 and on threads of its own. So a hub or gateway for it listens on a
loopback address nobody else uses, under that address as its host name, and the SDK lives in a child process that is
ended, by force if need be, with its test.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("azure_child.py")
SDK_PORT = 8883
WITHIN_SECONDS = 30.0

Event = dict[str, Any]


def own_loopback_address(port: int = SDK_PORT) -> str:
    """An address of 127.0.0.0/8 on which `port` is free."""
    for _ in range(50):
        address = f"127.{random.randint(10, 250)}.{os.getpid() % 250}.{random.randint(2, 250)}"
        with socket.socket() as sock:
            try:
                sock.bind((address, port))
                return address
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
    raise RuntimeError("no free loopback address")


class AzureDevice:
    """The parent's end: commands in, events out, every wait bounded."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: list[Event] = []

    def tell(self, do: str, **more: object) -> None:
        """Ask the application to do something; its answer is an event."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")

    async def next_event(self, within: float = WITHIN_SECONDS) -> Event:
        assert self._process.stdout is not None
        async with asyncio.timeout(within):
            line = await self._process.stdout.readline()
        if not line:
            raise EOFError(f"the client is gone; it said {self.events}")
        event: Event = json.loads(line)
        self.events.append(event)
        return event

    async def until(self, event: str, within: float = WITHIN_SECONDS, **fields: object) -> Event:
        """Read events up to one of this kind and these fields."""
        async with asyncio.timeout(within):
            while True:
                found = await self.next_event(within)
                if found["event"] == event and all(found.get(key) == value for key, value in fields.items()):
                    return found

    async def connect(self) -> None:
        self.tell("connect")
        await self.until("done", what="connect")

    async def send(self, mid: str, body: str = "x") -> None:
        """Until the SDK says the hub has it."""
        self.tell("send", mid=mid, body=body)
        await self.until("done", what="send", mid=mid)

    async def stop(self) -> None:
        self.tell("stop")
        await self.until("stopped")


@asynccontextmanager
async def azure_device(
    hostname: str,
    device_id: str,
    authority: str,
    *,
    key: str = "",
    sastoken: str = "",
    **options: object,
) -> AsyncIterator[AzureDevice]:
    """A client made with a key, or with a token its application must renew. `options` are the SDK's own."""
    spec: dict[str, object] = {"hostname": hostname, "device_id": device_id, "authority": authority}
    spec |= {"sastoken": sastoken} if sastoken else {"key": key}
    spec["options"] = options
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        json.dumps(spec),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    device = AzureDevice(process)
    try:
        yield device
    finally:
        if process.returncode is None:
            process.kill()
        # communicate() also drains and closes the pipes, so that no transport outlives its loop.
        await process.communicate()
