"""Devices as they are in the field, many in one process: each keeps every message until its receipt.

A device says telemetry with QoS 1, several messages unreceipted at a time, over TLS with CleanSession 0. When its
connection ends, however that is, it connects again and says what is unreceipted again: same order, same packet ids,
DUP where it was said before (OASIS MQTT 3.1.1, 4.4). What it calls receipted it has forgotten. Packets are put together
by hand (see `raw_device`), and what a message says follows from who says it and its number, so that the hub's copy can
be compared.

It is no benchmark: a device speaks at random times about its rate, and never more than its window holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from tests.proof.beside import beside
from tests.proof.custody import DeviceRecord
from tests.support.raw_device import CONNACK, PUBACK, Desk, connect_bytes, publish_bytes

PACKET_IDS = 65_535
# No pings are sent: whoever is silent for longer than this is not in a test.
KEEP_ALIVE_SECONDS = 1767
ATTEMPT_SECONDS = 20.0
FIRST_PAUSE_SECONDS = 0.03
LONGEST_PAUSE_SECONDS = 0.25


def telemetry(identity: str, number: int) -> tuple[str, bytes]:
    """Property bag and payload of a device's message: 64 bytes to some 2 KiB that follow from its name."""
    digest = hashlib.sha256(f"{identity}#{number}".encode()).digest()
    return f"%24.mid={identity}-{number}", digest * (2 + digest[0] % 62)


def number_in(identity: str, message_id: str) -> int | None:
    """The number of a message of `identity` by its id; None when no device here makes such an id."""
    name, _, number = message_id.rpartition("-")
    return int(number) if name == identity and number.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Habit:
    """How devices behave: messages a second (mean), messages unreceipted at a time, and resets a minute."""

    rate: float = 20.0
    window: int = 4
    resets_per_minute: float = 0.0


class KeepingDevice:
    """One device; `record` outlives its connections."""

    def __init__(
        self, desk: Desk, context: ssl.SSLContext, identity: str, habit: Habit, chance: random.Random
    ):
        self.identity = identity
        self.record = DeviceRecord()
        self.connects = 0
        self.refusals: Counter[str] = Counter()
        self._desk = desk
        self._context = context
        self._habit = habit
        self._chance = chance
        self._unreceipted: dict[int, int] = {}  # packet id -> number, oldest first
        self._written: set[int] = set()  # numbers that were said at least once
        self._said_at: list[float] = []
        self._next_packet_id = 1
        self._talks = True
        self._wire: _Wire | None = None

    @property
    def unreceipted(self) -> int:
        return len(self._unreceipted)

    @property
    def waits(self) -> bool:
        return len(self._unreceipted) >= self._habit.window

    @property
    def connected(self) -> bool:
        return self._wire is not None

    def said_at(self, number: int) -> float:
        """When a message was made, monotonic seconds."""
        return self._said_at[number]

    def stop_talking(self) -> None:
        """Say nothing new; what is unreceipted is said again for as long as it takes."""
        self._talks = False

    async def live(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._talk())
            tasks.create_task(self._stay_connected())

    async def _talk(self) -> None:
        while self._talks:
            await asyncio.sleep(self._chance.expovariate(self._habit.rate))
            if self._talks and len(self._unreceipted) < self._habit.window:
                self._say_something_new()

    def _say_something_new(self) -> None:
        packet_id = self._next_packet_id
        self._next_packet_id = packet_id % PACKET_IDS + 1
        self._unreceipted[packet_id] = self.record.said
        self._said_at.append(monotonic())
        self.record.said += 1
        if self._wire is not None:
            self._write(self._wire, packet_id)

    def _write(self, wire: _Wire, packet_id: int) -> None:
        number = self._unreceipted[packet_id]
        bag, payload = telemetry(self.identity, number)
        topic = f"devices/{self.identity}/messages/events/{bag}"
        wire.write(publish_bytes(topic, payload, packet_id=packet_id, dup=number in self._written))
        self._written.add(number)

    async def _stay_connected(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            wire = _Wire(self._take)
            try:
                await self._connect(wire)
            except (OSError, TimeoutError) as error:
                self.refusals[type(error).__name__] += 1
                wire.abort()
                await asyncio.sleep(pause * self._chance.uniform(0.5, 1.5))
                pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)
                continue
            pause = FIRST_PAUSE_SECONDS
            self.connects += 1
            self._wire = wire
            try:
                for packet_id in tuple(self._unreceipted):
                    self._write(wire, packet_id)
                await self._until_lost(wire)
            finally:
                self._wire = None
                wire.abort()

    async def _connect(self, wire: _Wire) -> None:
        desk = self._desk
        async with asyncio.timeout(ATTEMPT_SECONDS):
            await asyncio.get_running_loop().create_connection(
                lambda: wire, desk.host, desk.port, ssl=self._context, server_hostname=desk.hostname
            )
            user, token = desk.username(self.identity), desk.token(self.identity)
            wire.write(connect_bytes(self.identity, user, token, keep_alive=KEEP_ALIVE_SECONDS))
            code = await wire.answered
            if code != 0:
                raise ConnectionRefusedError(f"CONNACK {code}")

    async def _until_lost(self, wire: _Wire) -> None:
        resets = self._habit.resets_per_minute
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._chance.expovariate(resets / 60.0) if resets else None):
                await wire.lost.wait()

    def _take(self, packet_id: int) -> None:
        """A receipt. It must be for the oldest unreceipted message (4.6: in the order of the messages)."""
        oldest = next(iter(self._unreceipted), None)
        if packet_id != oldest:
            self.record.astray += 1
        number = self._unreceipted.pop(packet_id, None)
        if number is not None:
            self.record.receipted[number] = monotonic()
            self._written.discard(number)


class _Wire(asyncio.Protocol):
    """One connection: bytes in, PUBACKs out of them."""

    def __init__(self, on_receipt: Callable[[int], None]) -> None:
        self.answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        self._on_receipt = on_receipt
        self._transport: asyncio.Transport | None = None
        self._data = b""

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        self.answered.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 4:
            # CONNACK and PUBACK alike have two bytes behind their length; nothing else is asked for here.
            first, length, body = self._data[0], self._data[1], self._data[2:4]
            assert (first & 0xF0) in {CONNACK, PUBACK}, f"unexpected packet {self._data[:16].hex()}"
            assert length == 2, f"unexpected length {self._data[:16].hex()}"
            self._data = self._data[4:]
            if first & 0xF0 == PUBACK:
                self._on_receipt(struct.unpack("!H", body)[0])
            elif not self.answered.done():
                self.answered.set_result(body[1])

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionResetError("closed before CONNACK"))
        self.lost.set()


class KeepingFleet:
    """All devices of one run."""

    def __init__(self, devices: Sequence[KeepingDevice]) -> None:
        self.devices = devices

    @property
    def records(self) -> Mapping[str, DeviceRecord]:
        return {device.identity: device.record for device in self.devices}

    @property
    def said(self) -> int:
        return sum(device.record.said for device in self.devices)

    @property
    def receipted(self) -> int:
        return sum(len(device.record.receipted) for device in self.devices)

    @property
    def unreceipted(self) -> int:
        return sum(device.unreceipted for device in self.devices)

    @property
    def connected(self) -> int:
        return sum(device.connected for device in self.devices)

    @property
    def all_wait(self) -> bool:
        """True when nobody may say anything new before a receipt has come."""
        return all(device.waits for device in self.devices)

    def stop_talking(self) -> None:
        for device in self.devices:
            device.stop_talking()


@asynccontextmanager
async def keeping_fleet(
    desk: Desk, identities: Sequence[str], habit: Habit, seed: int
) -> AsyncIterator[KeepingFleet]:
    """Devices that live while the block runs; what breaks one breaks the block."""
    context = desk.client_context()
    devices = [
        KeepingDevice(desk, context, name, habit, random.Random(f"{seed} {name}")) for name in identities
    ]
    async with beside(*(device.live() for device in devices)):
        yield KeepingFleet(devices)
