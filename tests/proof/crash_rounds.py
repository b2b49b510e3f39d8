"""Does a crash cost a message that was receipted? The daemon is killed at random moments under load, again and again.

    python -m tests.proof.crash_rounds [--rounds 100] [--seed 1] [--devices 24] [--rate 30] [--window 6] [--json]

Each round starts the daemon and ends it with SIGKILL: while it starts, or up to two seconds after its READY, while
devices come back, resend and go on. In most rounds the hub has a trouble of its own: it is away, silent, loses every
connection, or acknowledges late or not at all, often beyond the round's end. So messages are on every part of their way
when the daemon dies: unread, in memory, with the hub, in the outbox, on the way out of it. The hub is a process of its
own and outlives all rounds, as do the devices. After the last round everything may settle; then the judge compares
(see `custody`).

A plan follows from its seed, the moments of a run only nearly so. Exit code 0 when every promise was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

from tests.proof.custody import Verdict, judge
from tests.proof.hub_process import HubProcess, hub_process
from tests.proof.keeping_fleet import Habit, KeepingFleet, keeping_fleet
from tests.support.daemon_process import GATEWAYD, DaemonProcess, daemon_process
from tests.support.gateway_files import GatewaySite

ROOT: Final = Path(__file__).parent.parent.parent

SETTLE_SECONDS = 60.0
# With a hub that is well nobody pauses longer than the ceiling below: where nothing moves for so long nothing will.
STUCK_SECONDS = 6.0
QUIET_SECONDS = 0.6
STEP_SECONDS = 0.05

# Devices and hub sessions come back by the dozen each second, and a message is spilled as soon as the bounds allow.
CONFIG = """
[hub.budget]
connects_per_second = 1000
sends_per_second = 5000
[tokens.backoff]
first = "100ms"
ceiling = "1s"
"""
LISTENER = "connects_per_device_per_minute = 10000\nconnects_per_address_per_second = 10000"
OUTBOX = 'spill_after = "200ms"'


HABIT: Final = Habit(rate=30.0, window=6, resets_per_minute=6.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """One run. `program` is the daemon, or one with a fault."""

    rounds: int = 100
    seed: int = 1
    devices: int = 24
    habit: Habit = HABIT
    program: Sequence[str] = GATEWAYD


@dataclass(frozen=True, slots=True)
class Round:
    """When the daemon dies, counted from its start or from its READY, and what the hub does meanwhile."""

    starting: bool
    kill_after: float
    trouble: str
    trouble_after: float
    trouble_seconds: float


@dataclass(slots=True)
class Report:
    """What a run found. `complaints` are what the daemon said of itself that it should never say."""

    seed: int
    verdict: Verdict | None = None
    settled: bool = False
    starts: list[float] = field(default_factory=list)
    killed_starting: int = 0
    killed_with_unreceipted: int = 0
    killed_with_promises: int = 0
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return self.settled and self.verdict is not None and self.verdict.holds and not self.complaints


TROUBLES: Final = (
    "none",
    "none",
    "away",
    "away",
    "away",
    "silent",
    "drop_all",
    "puback_delay",
    "puback_drop",
)


def plan(seed: int, rounds: int) -> list[Round]:
    """The rounds of a seed."""
    chance = random.Random(seed)
    return [
        Round(
            starting=(starting := chance.random() < 0.12),
            kill_after=chance.uniform(0.0, 0.6) if starting else chance.uniform(0.1, 1.6),
            trouble=chance.choice(TROUBLES),
            trouble_after=chance.uniform(0.0, 0.9),
            trouble_seconds=chance.choice([chance.uniform(0.2, 0.8), chance.uniform(0.8, 3.0)]),
        )
        for _ in range(rounds)
    ]


async def run(settings: Settings, folder: Path, tell: Callable[[str], None] = lambda _line: None) -> Report:
    """All rounds, the settling, the verdict."""
    report, began = Report(settings.seed), monotonic()
    names = [f"dev-{number:03}" for number in range(settings.devices)]
    async with hub_process(folder, names) as hub:
        site = GatewaySite.make(folder, hub, names, more=CONFIG, listener=LISTENER, outbox=OUTBOX)
        async with keeping_fleet(site, names, settings.habit, settings.seed) as fleet:
            for number, each in enumerate(plan(settings.seed, settings.rounds)):
                await _play(each, site, hub, fleet, settings, report)
                tell(
                    f"round {number + 1}: {_said(each)}; {fleet.receipted} receipted, {fleet.unreceipted} not"
                )
            await hub.forget_faults()
            fleet.stop_talking()
            async with _daemon(site, settings, report):
                report.settled = await settle(hub, fleet)
            report.verdict = judge(fleet.records, hub.records)
    report.seconds = round(monotonic() - began, 1)
    return report


async def _play(
    each: Round, site: GatewaySite, hub: HubProcess, fleet: KeepingFleet, settings: Settings, report: Report
) -> None:
    started = monotonic()
    async with _daemon(site, settings, report) as daemon, asyncio.TaskGroup() as tasks:
        trouble = tasks.create_task(_trouble(each, hub))
        if each.starting:
            report.killed_starting += 1
        else:
            await daemon.until_notified("READY=1")
            report.starts.append(round(monotonic() - started, 3))
        await asyncio.sleep(each.kill_after)
        daemon.tell(signal.SIGKILL)
        report.killed_with_unreceipted += fleet.unreceipted > 0
        code = await daemon.ended()
        assert code == -signal.SIGKILL, f"it ended by itself with {code}: {daemon.output[-20:]}"
        await hub.catch_up()
        report.killed_with_promises += bool(judge(fleet.records, hub.records).lost)
        trouble.cancel()


async def _trouble(each: Round, hub: HubProcess) -> None:
    await asyncio.sleep(each.trouble_after)
    match each.trouble:
        case "none":
            return
        case "away":
            await hub.go_away(each.trouble_seconds)
        case "silent":
            await hub.be_silent(each.trouble_seconds)
        case "drop_all":
            await hub.drop_all()
        case kind:
            await hub.arm(kind, each.trouble_seconds, value=0.4)


async def settle(hub: HubProcess, fleet: KeepingFleet, within: float = SETTLE_SECONDS) -> bool:
    """Until every device has all its receipts, the hub has what they promise, and nothing more comes."""
    moved_at, seen = monotonic(), (0, 0)
    by = moved_at + within
    while monotonic() < by:
        await hub.catch_up()
        now = (hub.received, fleet.receipted)
        if now != seen:
            seen, moved_at = now, monotonic()
        still = monotonic() - moved_at
        if still > QUIET_SECONDS and not (fleet.unreceipted or judge(fleet.records, hub.records).lost):
            return True
        if still > STUCK_SECONDS:
            return False
        await asyncio.sleep(STEP_SECONDS)
    return False


@asynccontextmanager
async def _daemon(site: GatewaySite, settings: Settings, report: Report) -> AsyncIterator[DaemonProcess]:
    async with daemon_process(site, ready=False, program=settings.program, PYTHONPATH=str(ROOT)) as daemon:
        try:
            yield daemon
        finally:
            report.complaints += complaints(daemon.output)


def complaints(output: Sequence[str]) -> list[str]:
    """Lines in which the daemon speaks of a fault of its own."""
    return [line for line in output if "Traceback" in line or "fault of gatewayd" in line]


def _said(each: Round) -> str:
    killed = "starting" if each.starting else "serving"
    trouble = "" if each.trouble == "none" else f", hub {each.trouble} for {each.trouble_seconds:.1f} s"
    return f"killed {killed} after {each.kill_after:.2f} s{trouble}"


def as_dict(report: Report) -> dict[str, Any]:
    """For --json."""
    assert report.verdict is not None
    starts = report.starts
    return {
        "seed": report.seed,
        "rounds": len(starts) + report.killed_starting,
        "holds": report.holds,
        "settled": report.settled,
        **asdict(report.verdict),
        "killed_starting": report.killed_starting,
        "killed_with_unreceipted": report.killed_with_unreceipted,
        "killed_with_promises": report.killed_with_promises,
        "start_seconds_median": statistics.median(starts) if starts else None,
        "complaints": report.complaints,
        "seconds": report.seconds,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    default = Settings()
    parser = argparse.ArgumentParser(prog="tests.proof.crash_rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--devices", type=int, default=default.devices)
    parser.add_argument(
        "--rate", type=float, default=default.habit.rate, help="messages a second of a device"
    )
    parser.add_argument("--window", type=int, default=default.habit.window, help="unreceipted at a time")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    habit = Habit(args.rate, args.window, default.habit.resets_per_minute)
    settings = Settings(args.rounds, args.seed, args.devices, habit)

    def tell(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    with tempfile.TemporaryDirectory(prefix="gatewayd-crash-") as folder:
        report = asyncio.run(run(settings, Path(folder), tell))
    found = as_dict(report)
    print(json.dumps(found) if args.json else f"{report.verdict}\n{json.dumps(found, indent=1)}")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
