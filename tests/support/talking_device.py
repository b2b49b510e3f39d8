"""A device that talks all the time: QoS 1 telemetry with message ids of its own, one at a time, each until its receipt.

    async with talking_device(site, "dev-01") as talker:
        ...
    # here everything it said is receipted, on the one connection it had

It is the bystander of other tests: whatever happens to others, `sent` equals `receipted` and it was never cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.raw_device import Desk, RawDevice

EVERY_SECONDS = 0.02
PACKET_IDS = 65_535


class TalkingDevice:
    """`sent` and `receipted` are message ids in order; `slowest` is the longest wait for a receipt, in seconds."""

    def __init__(self, device: RawDevice) -> None:
        self.sent: list[str] = []
        self.receipted: list[str] = []
        self.slowest = 0.0
        self._device = device
        self._stop = asyncio.Event()

    async def talk(self) -> None:
        """Publish until told to stop. Raises what the connection raises."""
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            number = len(self.sent) + 1
            message_id = f"{self._device.identity}-{number}"
            before = loop.time()
            self.sent.append(message_id)
            await self._device.publish(
                b"x" * 64, f"%24.mid={message_id}", packet_id=(number - 1) % PACKET_IDS + 1
            )
            self.receipted.append(message_id)
            self.slowest = max(self.slowest, loop.time() - before)
            try:
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._stop.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        self._stop.set()


@asynccontextmanager
async def talking_device(desk: Desk, identity: str) -> AsyncIterator[TalkingDevice]:
    """One that talks while the block runs, and leaves with DISCONNECT. What broke its talk breaks the block."""
    device = await RawDevice.connect(desk, identity)
    talker = TalkingDevice(device)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talker.talk(), name=f"talk {identity}")
            try:
                yield talker
            finally:
                talker.stop()
        await device.disconnect()
    finally:
        await device.abort()
