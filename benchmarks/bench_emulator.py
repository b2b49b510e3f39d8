"""Is the emulated hub light enough to judge a fleet on a small machine, and punctual when tokens run out?

The emulator in a process of its own; its devices are bare streams that send prepared bytes, so nearly all that is
measured is the emulator. CPU is the emulator's own time. At the end every device comes back with a token that ends in
one second all share, and nobody renews: the log tells how late each was cut.

    python -m benchmarks.bench_emulator [--devices 1000] [--json] [-- emulator options, such as --rsa]

Exit code 0 when the cuts of one instant begin at once and the last comes within its share: 100 ms, and 0.5 ms more for
each device that is cut in that same instant.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import Memory, cpu_seconds, machine_facts
from gatewayd.clock import SystemClock
from gatewayd.emulator.registry import RegisteredIdentity, load_registry
from gatewayd.transport.addresses import SocketAddress
from gatewayd.transport.stream import Stream
from gatewayd.transport.tls_transport import open_stream
from tests.support.emulated_hub import sas_token
from tests.support.raw_device import connect_bytes, publish_bytes

HOSTNAME = "bench.azure-devices.net"
CUT_SECONDS = 0.1
CUT_SECONDS_EACH = 0.0005
AT_ONCE = 20
WITHIN = 30.0
ROUNDS = 10
HANDOVERS_PER_SECOND = 40
HANDOVER_SECONDS = 10.0
IDLE_SECONDS = 5.0
PAYLOAD = bytes(256)
PUBACK = b"\x40\x02"
DISCONNECT = b"\xe0\x00"


class Device:
    """Owner of one stream: waits for CONNACK, counts PUBACKs."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.stream: Stream | None = None
        self.connack: asyncio.Future[bytes] = loop.create_future()
        self.closed = asyncio.Event()
        self.receipts = 0
        self.receipt = asyncio.Event()

    def stream_ready(self, stream: Stream) -> None:
        self.stream = stream

    def stream_data(self, data: bytes) -> None:
        if not self.connack.done():
            self.connack.set_result(data)
            return
        self.receipts += data.count(PUBACK)
        self.receipt.set()

    def stream_eof(self) -> None:
        self.write_nothing_more()

    def stream_writable(self) -> None: ...

    def stream_closed(self, error: Exception | None) -> None:
        self.closed.set()

    def write(self, data: bytes) -> None:
        assert self.stream is not None
        self.stream.write(data)

    def write_nothing_more(self) -> None:
        assert self.stream is not None
        self.stream.close()

    def leave(self) -> None:
        """DISCONNECT, then wait for the hub's end."""
        self.write(DISCONNECT)
        assert self.stream is not None
        self.stream.finish()


class Bench:
    """One emulator and its devices."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        port: int,
        directory: Path,
        registry: list[RegisteredIdentity],
    ) -> None:
        self._process = process
        self._address = SocketAddress.numeric("127.0.0.1", port)
        self._registry = registry
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.load_verify_locations(directory / "ca.pem")
        self._loop = asyncio.get_running_loop()
        self._devices: list[Device] = []

    async def measure(self) -> dict[str, Any]:
        return {
            "devices": len(self._registry),
            **await self._connects(),
            **await self._handovers(),
            **await self._messages(),
            **await self._idle(),
        }

    async def let_expire(self) -> int:
        """All come back with tokens that end in one second, and wait for the cut; that second."""
        for device in self._devices:
            device.leave()
        await self._all_closed()
        expiry = int(SystemClock().wall() + len(self._registry) / 100 + 3)
        await self._connect_all(expiry)
        await self._all_closed()
        return expiry

    async def _connects(self) -> dict[str, Any]:
        memory, cpu = Memory.of(self._process.pid), self._cpu()
        await self._connect_all(4_000_000_000)
        count = len(self._registry)
        return {
            "connect_cpu_ms": round((self._cpu() - cpu) / count * 1e3, 2),
            "rss_kib_per_device": round(Memory.of(self._process.pid).slope(memory, count).rss, 1),
        }

    async def _handovers(self) -> dict[str, Any]:
        began, cpu, done = self._loop.time(), self._cpu(), 0
        while self._loop.time() - began < HANDOVER_SECONDS:
            index = done % len(self._registry)
            new, old = await self._dial(), self._devices[index]
            old.leave()
            await asyncio.wait_for(old.closed.wait(), WITHIN)
            await self._enter(new, self._registry[index], 4_000_000_000)
            self._devices[index] = new
            done += 1
            await asyncio.sleep(max(0.0, began + done / HANDOVERS_PER_SECOND - self._loop.time()))
        seconds = self._loop.time() - began
        return {
            "handovers_per_s": round(done / seconds, 1),
            "handover_cpu_ms": round((self._cpu() - cpu) / done * 1e3, 2),
        }

    async def _messages(self) -> dict[str, Any]:
        began, cpu = self._loop.time(), self._cpu()
        for number in range(ROUNDS):
            for identity, device in zip(self._registry, self._devices, strict=True):
                topic = f"devices/{identity.name}/messages/events/%24.mid={identity.name}-{number}"
                device.write(publish_bytes(topic, PAYLOAD, packet_id=number + 1))
            for device in self._devices:
                while device.receipts <= number:
                    device.receipt.clear()
                    await asyncio.wait_for(device.receipt.wait(), WITHIN)
        count = ROUNDS * len(self._registry)
        return {
            "messages_per_s": round(count / (self._loop.time() - began)),
            "message_cpu_us": round((self._cpu() - cpu) / count * 1e6, 1),
        }

    async def _idle(self) -> dict[str, Any]:
        cpu = self._cpu()
        await asyncio.sleep(IDLE_SECONDS)
        return {"idle_cpu_percent": round(100 * (self._cpu() - cpu) / IDLE_SECONDS, 2)}

    async def _connect_all(self, expiry: int) -> None:
        async def one(identity: RegisteredIdentity) -> Device:
            device = await self._dial()
            await self._enter(device, identity, expiry)
            return device

        self._devices = []
        for start in range(0, len(self._registry), AT_ONCE):
            some = self._registry[start : start + AT_ONCE]
            self._devices += await asyncio.gather(*(one(identity) for identity in some))

    async def _dial(self) -> Device:
        device = Device()
        await open_stream(
            self._loop,
            self._address,
            self._context,
            HOSTNAME,
            device,
            connect_timeout=WITHIN,
            handshake_timeout=WITHIN,
        )
        return device

    async def _enter(self, device: Device, identity: RegisteredIdentity, expiry: int) -> None:
        name = identity.name
        password = sas_token(HOSTNAME, name, identity.keys[0], expiry)
        device.write(connect_bytes(name, f"{HOSTNAME}/{name}/?api-version=2021-04-12", password))
        answer = await asyncio.wait_for(device.connack, WITHIN)
        if answer[3] != 0:
            raise RuntimeError(f"{name}: CONNACK {answer[3]}")

    async def _all_closed(self) -> None:
        await asyncio.gather(
            *(asyncio.wait_for(device.closed.wait(), 2 * WITHIN) for device in self._devices)
        )

    def _cpu(self) -> float:
        return cpu_seconds(self._process.pid)


def lateness_ms(events: Path, expiry: int) -> list[float]:
    """How long after its expiry each token was cut off, sorted."""
    late = []
    for line in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["operation"] == "deviceDisconnect" and event["cause"] == "token_expired":
            late.append((event["wall"] - expiry) * 1e3)
    return sorted(late)


async def run(devices: int, options: list[str], directory: Path) -> tuple[dict[str, Any], int]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatewayd", "emulator", "--json", "--listen", "127.0.0.1:0"),
        *("--hostname", HOSTNAME, "--device-count", str(devices), "--grace", "0", "--skew", "0"),
        *("--connect-rate", "0", "--write-devices", str(directory / "devices.csv")),
        *("--write-ca", str(directory / "ca.pem"), "--events", str(directory / "events"), *options),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        greeting = json.loads(await asyncio.wait_for(process.stdout.readline(), WITHIN))
        registry = list(load_registry(directory / "devices.csv"))
        bench = Bench(process, greeting["port"], directory, registry)
        result = await bench.measure()
        expiry = await bench.let_expire()
        process.terminate()
        await asyncio.wait_for(process.communicate(), WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
    return result, expiry


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("options", nargs="*", help="for the emulator")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as name:
        os.umask(0o077)
        result, expiry = asyncio.run(run(arguments.devices, arguments.options, Path(name)))
        late = lateness_ms(Path(name) / "events", expiry)
    allowed = (CUT_SECONDS + CUT_SECONDS_EACH * arguments.devices) * 1e3
    result |= {
        "cut": len(late),
        "cut_first_ms": round(late[0], 1),
        "cut_p50_ms": round(late[len(late) // 2], 1),
        "cut_last_ms": round(late[-1], 1),
        "cut_last_allowed_ms": round(allowed, 1),
        "machine": machine_facts(),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        for field, value in result.items():
            print(f"{field:24}{value}")
    good = len(late) == arguments.devices and 0 <= late[0] <= 1e3 * CUT_SECONDS and late[-1] <= allowed
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
