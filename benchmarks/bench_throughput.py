"""What does a message cost the gateway, and how long does it hold one?

Devices (TLS 1.2, QoS 1, 256 bytes, at most one unacknowledged message each) publish through one daemon to a hub; all
three in processes of their own. The same pattern goes through a relay that copies bytes between two asyncio TLS
connections and knows no MQTT, in rounds that take turns, and through a gateway made of azure-iot-device clients. Load
and hub are lean programs of this directory (`lean_fleet`, `lean_hub`): the emulated hub would saturate first.

First every subject is driven as fast as it goes. CPU (user and system time of the whole process over messages) is read
at a fixed rate, 80 % of what the daemon reached (`--rate` sets another), and again at half of it: a process that
sleeps between messages finds its caches cold and pays for waking. The gateway's own part of a message, at half, is the
time from the device's send to its receipt, less what the hub had it; it includes the wait of all processes for a core.
Last the hub goes away and the same devices publish into the outbox, while the daemon tries to reach the hub.

    python -m benchmarks.bench_throughput [--quick] [--devices 500] [--messages 50000] [--rounds 5] [--rate 0]
        [--azure-clients 300] [--only NAMES] [--directory DIR] [--json]

Exit code 1 when a target is missed: 150 µs of CPU a message to the hub, 100 µs into the outbox, 20 ms for the 99th
percentile of the gateway's own part.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from array import array
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from benchmarks.machine import CpuTime, busy_share, machine_facts
from gatewayd.clock import SystemClock
from gatewayd.demo.gateway import Gateway
from gatewayd.demo.processes import Child, ChildFailed, Children
from gatewayd.demo.settings import HUB_HOSTNAME, Places, Settings
from gatewayd.demo.stage import LOOPBACK, Stage, free_ports, stage, write_private
from gatewayd.emulator.certificate import make_certificate
from tests.support.azure_device import SDK_PORT, own_loopback_address

TARGET_HUB_US: Final = 150.0
TARGET_OUTBOX_US: Final = 100.0
TARGET_OWN_P99_MS: Final = 20.0

WARM_UP: Final = 4  # messages of each device before anything is measured
RATE_SHARE: Final = 0.8  # of saturation
HALF: Final = ", half rate"
SDK_SHARE: Final = 20  # the SDK's gateway is slow: this fraction of the messages
PATIENCE_SECONDS: Final = 120.0
STEP_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Round:
    """One subject, some messages. CPU in µs a message, times in ms."""

    subject: str
    messages: int
    rate: float
    user: float
    system: float
    fleet: float
    hub: float
    late: int
    own_ms: list[float]

    @property
    def total(self) -> float:
        return self.user + self.system


# Processes


class Program:
    """A program of this directory that obeys lines of JSON."""

    def __init__(self, name: str, children: Children) -> None:
        self._name = name
        self._children = children
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=4)
        self.child: Child

    async def start(self, arguments: list[str], plan: dict[str, Any], directory: Path) -> None:
        file = directory / f"{self._name.replace(' ', '-')}.json"
        file.write_text(json.dumps(plan), encoding="ascii")
        self.child = await self._children.start(
            self._name,
            [*arguments, str(file)],
            stdout=lambda line: self._answers.put_nowait(json.loads(line)),
        )
        await self._answer()

    async def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        await self.child.tell(json.dumps(order))
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        by = loop.time() + PATIENCE_SECONDS
        while loop.time() < by:
            self._children.check()
            try:
                return await asyncio.wait_for(self._answers.get(), 0.5)
            except TimeoutError:
                continue
        raise ChildFailed(self._name, f"gave no answer within {PATIENCE_SECONDS:g} s")


class Subject:
    """A gateway with a fleet before it and a hub behind it."""

    def __init__(self, name: str, pid: int, hub: Program, fleet: Program, directory: Path) -> None:
        self.name = name
        self._pid = pid
        self._hub = hub
        self._fleet = fleet
        self._directory = directory
        self._next = 0  # messages are numbered through, so that one of an earlier round is seen as such

    async def until_connected(self, devices: int) -> None:
        """Until every device is at the hub: what is sent before may go by way of the outbox, at its drain's pace."""
        for _ in range(int(PATIENCE_SECONDS / STEP_SECONDS)):
            seen = await self._hub.ask({"times": str(self._times("hub"))})
            if seen["connections"] >= devices:
                return
            await asyncio.sleep(STEP_SECONDS)
        raise ChildFailed(self.name, f"brought not all of {devices} devices to the hub")

    async def saturate(self, messages: int) -> float:
        """Messages a second when every device publishes again as soon as it may."""
        answer = await self._publish(messages, 0.0)
        await self._hub_times(messages)
        return messages / float(answer["seconds"])

    async def round(self, messages: int, rate: float, mark: str = "") -> Round:
        """At a fixed rate, to the hub. `mark` is added to the name."""
        hub_pid, fleet_pid = self._hub.child.pid, self._fleet.child.pid
        before = [CpuTime.of(pid) for pid in (self._pid, hub_pid, fleet_pid)]
        answer = await self._publish(messages, rate)
        after = [CpuTime.of(pid) for pid in (self._pid, hub_pid, fleet_pid)]
        own, hub, fleet = (now.each(then, messages) for then, now in zip(before, after, strict=True))
        came, answered = await self._hub_times(messages)
        left, receipted = self._device_times(messages)
        times = zip(left, receipted, came, answered, strict=True)
        parts = [1e3 * ((told - sent) - (done - seen)) for sent, told, seen, done in times]
        return Round(
            self.name + mark,
            messages,
            rate,
            own.user,
            own.system,
            fleet.total,
            hub.total,
            answer["late"],
            parts,
        )

    async def round_without_hub(self, messages: int, rate: float) -> Round:
        """At a fixed rate, while nobody is at the hub's address."""
        pids = (self._pid, self._fleet.child.pid)
        before = [CpuTime.of(pid) for pid in pids]
        answer = await self._publish(messages, rate)
        own, fleet = (CpuTime.of(pid).each(then, messages) for pid, then in zip(pids, before, strict=True))
        left, receipted = self._device_times(messages)
        parts = [1e3 * (told - sent) for sent, told in zip(left, receipted, strict=True)]
        return Round("outbox", messages, rate, own.user, own.system, fleet.total, 0.0, answer["late"], parts)

    async def lose_hub(self) -> None:
        self._hub.child.may_end = True
        await self._hub.child.end()

    async def _publish(self, messages: int, rate: float) -> dict[str, Any]:
        order = {"first": self._next, "messages": messages, "rate": rate, "times": str(self._times("fleet"))}
        self._next += messages
        return await self._fleet.ask(order)

    async def _hub_times(self, messages: int) -> tuple[array[float], array[float]]:
        seen = await self._hub.ask({"times": str(self._times("hub"))})
        if not seen["messages"] == seen["distinct"] == messages:
            raise ChildFailed(self.name, f"brought {seen} to the hub instead of {messages} messages")
        return _read(self._times("hub"), messages)

    def _device_times(self, messages: int) -> tuple[array[float], array[float]]:
        return _read(self._times("fleet"), messages)

    def _times(self, whose: str) -> Path:
        return self._directory / f"{self.name}-{whose}.times"


def _read(file: Path, count: int) -> tuple[array[float], array[float]]:
    first, second = array("d"), array("d")
    with file.open("rb") as content:
        first.fromfile(content, count)
        second.fromfile(content, count)
    return first, second


# The stage


class Desk:
    """Certificates, keys and ports of one run, and what is started with them."""

    def __init__(self, options: argparse.Namespace, ready: Stage, children: Children) -> None:
        self._options = options
        self._ready = ready
        self._children = children
        lines = ready.devices_file.read_text(encoding="ascii").splitlines()[1:]
        self._keys = dict(line.split(",")[:2] for line in lines)

    async def gatewayd(self, http: aiohttp.ClientSession) -> Subject:
        directory = self._directory("gatewayd")
        hub, authority, hub_port = await self._hub("gatewayd", LOOPBACK)
        listener_port, metrics_port = free_ports(2)
        places = Places(
            hub_port=hub_port,
            hub_authority=authority,
            listener_port=listener_port,
            listener_certificate=self._ready.gateway_certificate,
            metrics_port=metrics_port,
            devices_file=self._ready.devices_file,
            outbox_file=directory / "outbox.db",
            clock_floor_file=directory / "clock-floor",
        )
        settings = Settings(devices=len(self._keys), lifetime=3600.0, log_level="info")
        gateway = await Gateway.start(settings, places, directory, self._children, http)
        return await self._subject("gatewayd", gateway.pid, hub, listener_port, self._keys)

    async def relay(self) -> Subject:
        hub, authority, hub_port = await self._hub("relay", LOOPBACK)
        plan = {
            "hub": HUB_HOSTNAME,
            "hub_host": LOOPBACK,
            "hub_port": hub_port,
            "hub_authority": str(authority),
        }
        program, port = await self._rival("relay", plan)
        return await self._subject("relay", program.child.pid, hub, port, self._keys)

    async def azure(self) -> Subject:
        address = own_loopback_address()
        hub, authority, _ = await self._hub("azure", address, SDK_PORT)
        keys = dict(list(self._keys.items())[: self._options.azure_clients])
        program, port = await self._rival(
            "azure", {"hub": address, "hub_authority": str(authority), "keys": keys}
        )
        return await self._subject("azure", program.child.pid, hub, port, keys)

    async def _hub(self, name: str, address: str, port: int = 0) -> tuple[Program, Path, int]:
        directory = self._directory(name)
        made = make_certificate(HUB_HOSTNAME, (address,), wall=SystemClock().wall())
        certificate = write_private(directory / "hub.pem", made.chain_pem + made.key_pem)
        authority = write_private(directory / "hub-authority.pem", made.authority_pem)
        port = port or free_ports(1)[0]
        hub = Program(f"hub of {name}", self._children)
        plan = {"host": address, "port": port, "certificate": str(certificate)}
        await hub.start(["benchmarks.lean_hub"], plan, directory)
        return hub, authority, port

    async def _rival(self, name: str, plan: dict[str, Any]) -> tuple[Program, int]:
        port = free_ports(1)[0]
        plan |= {"host": LOOPBACK, "port": port, "certificate": str(self._ready.gateway_certificate)}
        program = Program(name, self._children)
        await program.start(["benchmarks.rival_gateways", name], plan, self._directory(name))
        return program, port

    async def _subject(self, name: str, pid: int, hub: Program, port: int, keys: dict[str, str]) -> Subject:
        fleet = Program(f"fleet of {name}", self._children)
        plan = {
            "host": LOOPBACK,
            "port": port,
            "hub": HUB_HOSTNAME,
            "authority": str(self._ready.gateway_authority),
            "keys": keys,
        }
        await fleet.start(["benchmarks.lean_fleet"], plan, self._directory(name))
        say(f"{name}: connecting {len(keys)} devices")
        await fleet.ask({"connect": True})
        subject = Subject(name, pid, hub, fleet, self._directory(name))
        await subject.until_connected(len(keys))
        await subject.saturate(WARM_UP * len(keys))
        return subject

    def _directory(self, name: str) -> Path:
        place = self._ready.directory / name
        place.mkdir(exist_ok=True)
        return place


# The run


async def measure(options: argparse.Namespace, desk: Desk, http: aiohttp.ClientSession) -> dict[str, Any]:
    """Saturation of each subject, then rounds that take turns."""
    wanted = options.only.split(",")
    subjects = []
    if {"gatewayd", "outbox"} & set(wanted):
        subjects.append(await desk.gatewayd(http))
    if "relay" in wanted:
        subjects.append(await desk.relay())
    if "azure" in wanted and options.azure_clients:
        subjects.append(await desk.azure())
    saturation: dict[str, float] = {}
    each = options.messages // options.rounds
    shares = {subject: SDK_SHARE if subject.name == "azure" else 1 for subject in subjects}
    for subject, share in shares.items():
        saturation[subject.name] = await subject.saturate(options.messages // (4 * share))
        say(f"{subject.name}: {saturation[subject.name]:.0f} messages a second at most")
    fastest = saturation[subjects[0].name]
    rate = options.rate or RATE_SHARE * fastest
    rounds: list[Round] = []

    async def play(done: Awaitable[Round]) -> None:
        rounds.append(await done)
        tell(rounds[-1])

    with busy_share() as busy:
        for _ in range(options.rounds):
            for subject, share in shares.items():
                own_rate = min(rate, RATE_SHARE * saturation[subject.name]) if share > 1 else rate
                await play(subject.round(each // share, own_rate))
                if share == 1:
                    await play(subject.round(each // 2, fastest / 2, HALF))
        if "outbox" in wanted:
            gatewayd, *others = subjects
            await gatewayd.lose_hub()
            for _ in range(options.rounds):
                await play(gatewayd.round_without_hub(each, rate))
                for other in others:
                    if shares[other] == 1:
                        await play(other.round(each, rate))
    result: dict[str, Any] = {
        "devices": options.devices,
        "saturation": {name: round(value) for name, value in saturation.items()},
        "machine_busy_percent": round(100 * busy.share, 1),
    }
    names = dict.fromkeys(each_round.subject for each_round in rounds)
    result["subjects"] = {
        name: summary([each_round for each_round in rounds if each_round.subject == name]) for name in names
    }
    return result


def summary(rounds: list[Round]) -> dict[str, Any]:
    """Medians over rounds; percentiles over all their messages."""
    own = sorted(part for each in rounds for part in each.own_ms)
    totals = [each.total for each in rounds]
    return {
        "messages": sum(each.messages for each in rounds),
        "rate": round(statistics.median(each.rate for each in rounds)),
        "cpu_us": round(statistics.median(totals), 1),
        "cpu_us_lowest": round(min(totals), 1),
        "cpu_us_highest": round(max(totals), 1),
        "user_us": round(statistics.median(each.user for each in rounds), 1),
        "system_us": round(statistics.median(each.system for each in rounds), 1),
        "own_ms_p50": round(own[len(own) // 2], 2),
        "own_ms_p99": round(own[int(0.99 * (len(own) - 1))], 2),
        "own_ms_max": round(own[-1], 1),
        "fleet_us": round(statistics.median(each.fleet for each in rounds), 1),
        "hub_us": round(statistics.median(each.hub for each in rounds), 1),
        "late": sum(each.late for each in rounds),
    }


def verdicts(subjects: dict[str, dict[str, Any]]) -> Iterator[tuple[bool, str]]:
    """Each target: whether it is met, and the figures."""
    ours, outbox, relay, sdk = (subjects.get(name) for name in ("gatewayd", "outbox", "relay", "azure"))
    for name, target, found in (
        ("to the hub", TARGET_HUB_US, ours),
        ("into the outbox", TARGET_OUTBOX_US, outbox),
    ):
        if found is not None:
            ratio = f", {found['cpu_us'] / relay['cpu_us']:.2f}x the relay" if relay is not None else ""
            if sdk is not None and found is ours:
                ratio += f", the SDK's gateway {sdk['cpu_us'] / found['cpu_us']:.1f}x this"
            words = f"CPU of a message {name}: {found['cpu_us']:g} µs, at most {target:g}{ratio}"
            yield found["cpu_us"] <= target, words
    half = subjects.get(f"gatewayd{HALF}")
    if half is not None:
        p99 = half["own_ms_p99"]
        yield p99 <= TARGET_OWN_P99_MS, f"own part, p99: {p99:g} ms, at most {TARGET_OWN_P99_MS:g}"
    for name, figures in subjects.items():
        if figures["late"] > 0.01 * figures["messages"]:
            words = f"{name}: {figures['late']} of {figures['messages']} messages left late: the rate was not held"
            yield False, words


def tell(done: Round) -> None:
    say(f"{done.subject:20}{done.total:7.1f} µs = {done.user:.1f} user + {done.system:.1f} system")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    with stage(options.devices, SystemClock().wall()) as ready:
        async with Children() as children, aiohttp.ClientSession() as http:
            return await measure(options, Desk(options, ready, children), http)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--messages", type=int, default=50_000, help="of each subject, over all rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second; 0: half of saturation")
    parser.add_argument("--azure-clients", type=int, default=300, metavar="N", help="0 leaves them out")
    parser.add_argument("--only", default="gatewayd,relay,azure,outbox", metavar="NAMES")
    parser.add_argument("--quick", action="store_true", help="12,000 messages in 2 rounds, no SDK")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.messages, options.rounds, options.azure_clients = 12_000, 2, 0
    result = asyncio.run(run(options)) | {"machine": machine_facts()}
    met = list(verdicts(result["subjects"]))
    if options.json:
        print(json.dumps(result))
    else:
        print(f"machine: {result['machine']}, {result['machine_busy_percent']} % busy")
        print(f"saturation, messages a second: {result['saturation']}")
        for name, figures in result["subjects"].items():
            print(f"{name:20} {figures}")
    for good, words in met:
        say(f"{'met   ' if good else 'MISSED'}  {words}")
    return 0 if all(good for good, _ in met) else 1


if __name__ == "__main__":
    sys.exit(main())
