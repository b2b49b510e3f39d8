"""What does a device cost the gateway: memory, threads, CPU while nothing happens; beside it azure-iot-device itself.

The real daemon against the emulator, each in a process of its own, and devices (asyncio-mqtt over TLS 1.2) in two more.
One run: half of the devices connect and are renewed until the hub has seen two renewals of each, every device publishes
some messages, the daemon's memory is read; then the other half, the same way. The slope between both is the memory of a
device: its own connection, its hub connection, its keys and its place in every table. Then a reload gives the tokens a
life of a day, and once all are renewed nothing is due but keep-alives: the daemon's CPU is read over a quiet spell.
Last, azure-iot-device clients in one process connect to an emulator of their own, while all of the above stays up.

    python -m benchmarks.bench_memory [--devices 1000] [--lifetime 30s] [--idle 60] [--azure-clients 200] [--json]

Takes about six minutes. Exit code 0 when every target is met: at most 75 KiB a device, at most two threads beside the
loop's, and, of one CPU, less than 1 % while idle.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import signal
import ssl
import statistics
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.machine import Memory, busy_share, cpu_seconds, machine_facts, thread_names
from gatewayd.clock import SystemClock
from gatewayd.demo.connection import MqttConnection, Peer, connect
from gatewayd.demo.fleet import read_keys
from gatewayd.demo.gateway import Gateway
from gatewayd.demo.hubs import Hub
from gatewayd.demo.identity import device_name, telemetry_topic, token, user_name
from gatewayd.demo.processes import Child, ChildFailed, Children
from gatewayd.demo.settings import (
    BUDGET_PER_SECOND,
    HUB_HOSTNAME,
    RENEWALS_WANTED,
    Places,
    Settings,
    budget_for,
    daemon_config,
    duration_seconds,
)
from gatewayd.demo.stage import LOOPBACK, free_ports, stage
from tests.support.azure_device import SDK_PORT, own_loopback_address

TARGET_KIB = 75.0
TARGET_THREADS = 2
TARGET_IDLE_PERCENT = 1.0

DAY = 86_400.0
# azure-iot-device's own, so that both are equally idle. Idling is measured over whole keep-alives, because devices
# that came together ping together.
KEEP_ALIVE_SECONDS = 60
PROCESSES = 2
AT_ONCE = 8  # connects under way in one process
MESSAGES = 3  # from each device before each reading
PAYLOAD = "x" * 256
READINGS = 9  # of the memory; a renewal under way is a third connection, so the median counts
READING_SECONDS = 0.5
STEP_SECONDS = 0.1
# How long anything may take on a busy machine; whatever takes longer is an error.
PATIENCE_SECONDS = 300.0


# The devices and the azure-iot-device clients: programs that obey lines on stdin and answer each with a line of JSON


class Crowd:
    """A share of the devices: `connect N` until N are connected, `publish N` from each of them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(plan["authority"])
        self._peer = Peer(LOOPBACK, plan["port"], context, KEEP_ALIVE_SECONDS)
        self._keys = read_keys(Path(plan["devices_file"]))
        self._names: list[str] = plan["names"]
        self._open: list[tuple[str, MqttConnection]] = []

    async def connect(self, count: int) -> dict[str, Any]:
        gate = asyncio.Semaphore(AT_ONCE)
        expiry = int(SystemClock().wall() + DAY)

        async def gated(name: str) -> tuple[str, MqttConnection]:
            async with gate:
                password = token(HUB_HOSTNAME, name, self._keys[name], expiry)
                return name, await connect(self._peer, name, user_name(HUB_HOSTNAME, name), password)

        wanted = self._names[len(self._open) : count]
        self._open += await asyncio.gather(*(gated(name) for name in wanted))
        return {"connected": len(self._open)}

    async def publish(self, count: int) -> dict[str, Any]:
        for number in range(count):
            await asyncio.gather(
                *(
                    link.publish(telemetry_topic(name, f"{name}.{number}"), PAYLOAD)
                    for name, link in self._open
                )
            )
        return {"published": count * len(self._open)}


class AzureClients:
    """azure-iot-device as it is: `connect N` until N are connected, `publish N` from each of them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        import logging  # noqa: PLC0415 - the other programs of this file must not pay for the SDK

        from azure.iot.device import IoTHubDeviceClient  # noqa: PLC0415 - as above

        logging.disable(logging.CRITICAL)
        self._make = IoTHubDeviceClient.create_from_symmetric_key
        self._hostname = plan["hostname"]
        self._authority = Path(plan["authority"]).read_text(encoding="ascii")
        with Path(plan["devices_file"]).open(encoding="ascii", newline="") as file:
            self._rows = list(csv.DictReader(file))
        self._clients: list[Any] = []

    async def connect(self, count: int) -> dict[str, Any]:
        for row in self._rows[len(self._clients) : count]:
            client = self._make(
                symmetric_key=row["primary_key"],
                hostname=self._hostname,
                device_id=row["id"],
                server_verification_cert=self._authority,
            )
            await asyncio.to_thread(client.connect)
            self._clients.append(client)
        return {"connected": sum(bool(client.connected) for client in self._clients)}

    async def publish(self, count: int) -> dict[str, Any]:
        for _ in range(count):
            for client in self._clients:
                await asyncio.to_thread(client.send_message, PAYLOAD)
        return {"published": count * len(self._clients)}


async def obey(program: Crowd | AzureClients) -> int:
    """Until stdin ends."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(AT_ONCE))
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    verbs: dict[str, Callable[[int], Awaitable[dict[str, Any]]]] = {
        "connect": program.connect,
        "publish": program.publish,
    }
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        verb, number = line.decode().split()
        print(json.dumps(await verbs[verb](int(number))), flush=True)
    # Clients that are still connected, and threads of the SDK that nothing ends, are not waited for.
    os._exit(0)


class Program:
    """Such a program, from outside."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.child: Child | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=16)

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    async def start(self, children: Children, role: str, plan: dict[str, Any], directory: Path) -> None:
        file = directory / f"{self.name.replace(' ', '-')}.json"
        file.write_text(json.dumps(plan), encoding="ascii")
        self.child = await children.start(
            self.name,
            ["benchmarks.bench_memory", role, str(file)],
            stdout=lambda line: self._answers.put_nowait(json.loads(line)),
        )
        await self._answer()

    async def ask(self, verb: str, number: int) -> dict[str, Any]:
        assert self.child is not None
        await self.child.tell(f"{verb} {number}")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self.child is not None
        loop = asyncio.get_running_loop()
        by = loop.time() + PATIENCE_SECONDS
        while loop.time() < by:
            self.child.check()
            try:
                return await asyncio.wait_for(self._answers.get(), 1.0)
            except TimeoutError:
                continue
        raise ChildFailed(self.name, f"gave no answer within {PATIENCE_SECONDS:g} s", self.child.last_words)


# The run


class Run:
    """The parts of one run."""

    def __init__(self, options: argparse.Namespace, children: Children, http: aiohttp.ClientSession) -> None:
        self._options = options
        self._children = children
        self._http = http
        self._programs: list[Program] = []
        self._settings = Settings(
            devices=options.devices,
            lifetime=options.lifetime,
            budget=max(BUDGET_PER_SECOND, budget_for(options.devices, options.lifetime)),
        )

    async def measure(self) -> dict[str, Any]:
        devices = self._options.devices
        with stage(devices, SystemClock().wall()) as ready:
            hub = await Hub.start("the hub", ready, self._children, self._http)
            listener_port, metrics_port = free_ports(2)
            places = Places(
                hub_port=hub.port,
                hub_authority=hub.authority,
                listener_port=listener_port,
                listener_certificate=ready.gateway_certificate,
                metrics_port=metrics_port,
                devices_file=ready.devices_file,
                outbox_file=ready.directory / "outbox.db",
                clock_floor_file=ready.directory / "clock-floor",
            )
            gateway = await Gateway.start(self._settings, places, ready.directory, self._children, self._http)
            await self._start_devices(
                listener_port, ready.gateway_authority, ready.devices_file, ready.directory
            )
            pid = gateway.pid
            empty = Memory.of(pid)
            half = await self._memory_of(devices // 2, pid, hub)
            full = await self._memory_of(devices, pid, hub)
            threads = thread_names(pid)
            idle = await self._idle(pid, hub, ready.directory / "gatewayd.toml", places)
            azure = await self._azure(ready.directory) if self._options.azure_clients else None
            await hub.read()
            errors = dict(hub.errors)
            trouble = await gateway.end()
        slope, first = full.slope(half, devices - devices // 2), half.slope(empty, devices // 2)
        result: dict[str, Any] = {
            "devices": devices,
            "lifetime_s": self._options.lifetime,
            "renewals": len(hub.story.renewals),
            "hub_errors": errors,
            "rss_kib_empty": round(empty.rss),
            "rss_kib_half": round(half.rss),
            "rss_kib_full": round(full.rss),
            "rss_kib_per_device": round(slope.rss, 1),
            "pss_kib_per_device": round(slope.pss, 1),
            "rss_kib_per_device_first_half": round(first.rss, 1),
            "threads": threads,
            **idle,
        }
        if azure:
            result |= azure
            result["memory_ratio"] = round(azure["azure_rss_kib_per_client"] / slope.rss, 1)
        if trouble:
            result["trouble"] = f"the daemon: {trouble}"
        return result

    async def _start_devices(self, port: int, authority: Path, devices_file: Path, directory: Path) -> None:
        for number in range(PROCESSES):
            program = Program(f"devices, process {number + 1}")
            names = [device_name(index) for index in range(number, self._options.devices, PROCESSES)]
            plan = {
                "port": port,
                "authority": str(authority),
                "devices_file": str(devices_file),
                "names": names,
            }
            await program.start(self._children, "devices", plan, directory)
            self._programs.append(program)

    async def _all(self, verb: str, number: int) -> None:
        await asyncio.gather(*(program.ask(verb, number) for program in self._programs))

    async def _memory_of(self, devices: int, pid: int, hub: Hub) -> Memory:
        """The daemon's memory with so many devices, each of them renewed twice or more since all are connected."""
        say(f"connecting up to {devices} devices")
        await self._all("connect", devices // PROCESSES)
        say(f"waiting until each has been renewed {RENEWALS_WANTED} times")
        await self._renewals(hub, devices, RENEWALS_WANTED)
        await self._all("publish", MESSAGES)
        return await self._reading(pid)

    async def _renewals(self, hub: Hub, devices: int, count: int) -> None:
        """Until each device has been renewed `count` times from now on."""
        wanted = {
            name: hub.story.renewals_of[name] + count for name in (device_name(n) for n in range(devices))
        }

        def done() -> bool:
            return all(hub.story.renewals_of[name] >= number for name, number in wanted.items())

        await self._until(f"{count} renewals of each device", done)

    async def _reading(self, pid: int) -> Memory:
        readings = []
        for _ in range(READINGS):
            readings.append(Memory.of(pid))
            await asyncio.sleep(READING_SECONDS)
        return Memory(
            statistics.median(reading.rss for reading in readings),
            statistics.median(reading.pss for reading in readings),
        )

    async def _idle(self, pid: int, hub: Hub, config: Path, places: Places) -> dict[str, Any]:
        """A day of life for every token, then the CPU of a spell in which nothing is due."""
        say("giving the tokens a day, waiting for the last renewals")
        reload_with(config, daemon_config(replace(self._settings, lifetime=DAY), places), pid)
        await self._renewals(hub, self._options.devices, 1)
        await asyncio.sleep(2 * READING_SECONDS)
        say(f"measuring {self._options.idle:g} s of idling")
        loop = asyncio.get_running_loop()
        renewals = len(hub.story.renewals)
        began, cpu = loop.time(), cpu_seconds(pid)
        with busy_share() as busy:
            await asyncio.sleep(self._options.idle)
        percent = 100.0 * (cpu_seconds(pid) - cpu) / (loop.time() - began)
        return {
            "idle_cpu_percent": round(percent, 2),
            "idle_s": self._options.idle,
            "idle_renewals": len(hub.story.renewals) - renewals,
            "idle_machine_busy_percent": round(100.0 * busy.share, 1),
            "rss_kib_after_idle": round(Memory.of(pid).rss),
        }

    async def _azure(self, directory: Path) -> dict[str, Any]:
        """Memory, threads and idle CPU of azure-iot-device clients, all in one process, straight at an emulator."""
        count = self._options.azure_clients
        address = own_loopback_address()
        devices_file, authority = directory / "azure.csv", directory / "azure.pem"
        greeted = asyncio.Event()
        say(f"connecting {count} azure-iot-device clients")
        await self._children.start(
            "the SDK's hub",
            [
                *(
                    "gatewayd",
                    "emulator",
                    "--json",
                    "--hostname",
                    address,
                    "--listen",
                    f"{address}:{SDK_PORT}",
                ),
                *("--device-count", str(count), "--write-devices", str(devices_file)),
                *("--write-ca", str(authority)),
            ],
            stdout=lambda _: greeted.set(),
        )
        await self._until("the SDK's hub", greeted.is_set)
        program = Program("azure-iot-device")
        plan = {"hostname": address, "authority": str(authority), "devices_file": str(devices_file)}
        await program.start(self._children, "azure", plan, directory)
        pid = program.pid
        await program.ask("connect", count // 2)
        await program.ask("publish", MESSAGES)
        half, half_threads = Memory.of(pid), len(thread_names(pid))
        connected = (await program.ask("connect", count))["connected"]
        await program.ask("publish", MESSAGES)
        full, full_threads = Memory.of(pid), len(thread_names(pid))
        loop = asyncio.get_running_loop()
        began, cpu = loop.time(), cpu_seconds(pid)
        await asyncio.sleep(self._options.idle)
        percent = 100.0 * (cpu_seconds(pid) - cpu) / (loop.time() - began)
        more = count - count // 2
        return {
            "azure_clients": count,
            "azure_connected": connected,
            "azure_rss_kib_per_client": round(full.slope(half, more).rss, 1),
            "azure_threads": full_threads,
            "azure_threads_per_client": round((full_threads - half_threads) / more, 2),
            "azure_idle_cpu_percent": round(percent, 2),
        }

    async def _until(self, what: str, condition: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        by = loop.time() + PATIENCE_SECONDS
        while not condition():
            self._children.check()
            if loop.time() > by:
                raise ChildFailed("the run", f"waited {PATIENCE_SECONDS:g} s for {what}")
            await asyncio.sleep(STEP_SECONDS)


def verdicts(result: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    """Each target: whether it is met, and the figures."""
    slope, beside, idle = result["rss_kib_per_device"], len(result["threads"]) - 1, result["idle_cpu_percent"]
    yield slope <= TARGET_KIB, f"memory of a device: {slope:g} KiB, at most {TARGET_KIB:g}"
    yield beside <= TARGET_THREADS, f"threads beside the loop's: {beside}, at most {TARGET_THREADS}"
    yield idle < TARGET_IDLE_PERCENT, f"CPU while idle: {idle:g} %, less than {TARGET_IDLE_PERCENT:g}"
    yield not result["hub_errors"], f"errors the hub counted: {result['hub_errors'] or 'none'}, none wanted"
    yield "trouble" not in result, f"end of the daemon: {result.get('trouble', 'in order')}"


def reload_with(config: Path, text: str, pid: int) -> None:
    config.write_text(text, encoding="utf-8")
    os.kill(pid, signal.SIGHUP)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    async with Children() as children, aiohttp.ClientSession() as http:
        return await Run(options, children, http).measure()


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] in ("devices", "azure"):
        plan = json.loads(Path(sys.argv[2]).read_text(encoding="ascii"))
        return asyncio.run(obey(Crowd(plan) if sys.argv[1] == "devices" else AzureClients(plan)))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--lifetime", type=duration_seconds, default=30.0, metavar="D")
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--azure-clients", type=int, default=200, metavar="N", help="0 leaves them out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = asyncio.run(run(options)) | {"machine": machine_facts()}
    met = list(verdicts(result))
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:32}{value}")
    for good, words in met:
        say(f"{'met   ' if good else 'MISSED'}  {words}")
    return 0 if all(good for good, _ in met) else 1


if __name__ == "__main__":
    sys.exit(main())
