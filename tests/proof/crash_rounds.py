"""Does a crash cost a message that was receipted? The daemon is killed at random moments under load, again and again.

    python -m tests.proof.crash_rounds [--rounds 100] [--seed 1] [--devices 24] [--rate 30] [--window 6] [--json]

Each round starts the daemon and ends it with SIGKILL: while it starts; up to two seconds after its READY, while devices
come back, resend and go on; while it stops; or, where strace is installed, as it is about to make its Nth write to the
disk, its Nth sync, or its Nth send. In most rounds the hub has a trouble of its own: it is away, silent, loses every
connection, or acknowledges late or not at all, often beyond the round's end. So messages are on every part of their way
when the daemon dies: unread, in memory, with the hub, in the outbox, on the way out of it. The hub is a process of its
own and outlives all rounds, as do the devices. After the last round everything may settle; then the judge compares (see
`custody`).

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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

from tests.proof.beside import beside
from tests.proof.custody import Verdict
from tests.proof.hub_process import HubProcess
from tests.proof.keeping_fleet import Habit
from tests.proof.rig import HABIT, ProofRig, proof_rig
from tests.proof.system_calls import can_inject, inject
from tests.support.daemon_process import GATEWAYD, DaemonProcess

# A call that was to be the last may never be made: then the round ends by the clock.
CALL_SECONDS = 1.5

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
CALLS: Final = ("pwrite64", "fdatasync", "sendto")
WRITES: Final = ("pwrite64", "fdatasync")
BEFORE_READY = -1.0
LONGEST_COUNT: Final = {"pwrite64": 120, "fdatasync": 30, "sendto": 600}


@dataclass(frozen=True, slots=True)
class Settings:
    """One run. `program` is the daemon, or one with a fault; a `plan` takes the place of the seed's."""

    rounds: int = 100
    seed: int = 1
    devices: int = 24
    habit: Habit = HABIT
    program: Sequence[str] = GATEWAYD
    spill_after: str = "200ms"
    plan: tuple[Round, ...] = ()
    at_calls: bool = field(default_factory=can_inject)


@dataclass(frozen=True, slots=True)
class Round:
    """When the daemon dies, counted from its start or from its READY, and what the hub does meanwhile.

    With a `call`: at the `count`th of these system calls from `kill_after` on. The trouble begins `trouble_after`
    seconds after READY, or with the start of the daemon where that is negative.
    """

    starting: bool
    kill_after: float
    call: str
    count: int
    trouble: str
    trouble_after: float
    trouble_seconds: float
    stops_for: float = 0.0  # told to stop so many seconds before it is killed

    def __str__(self) -> str:
        when = f"{'starting' if self.starting else 'serving'} after {self.kill_after:.2f} s"
        call = f" at {self.call} {self.count}" if self.call else ""
        trouble = "" if self.trouble == "none" else f", hub {self.trouble} for {self.trouble_seconds:.1f} s"
        stop = f", told to stop {self.stops_for:.2f} s before" if self.stops_for else ""
        return f"killed {when}{call}{stop}{trouble}"


@dataclass(slots=True)
class Report:
    """What a run found. `killed_with_promises`: rounds that ended with receipts on our own account outstanding."""

    seed: int
    verdict: Verdict | None = None
    settled: bool = False
    starts: list[float] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    killed_with_unreceipted: int = 0
    killed_with_promises: int = 0
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return self.settled and self.verdict is not None and self.verdict.holds and not self.complaints


def plan(seed: int, rounds: int, *, at_calls: bool = True) -> list[Round]:
    """The rounds of a seed."""
    chance = random.Random(seed)
    return [_plan_one(chance, at_calls=at_calls) for _ in range(rounds)]


def _plan_one(chance: random.Random, *, at_calls: bool) -> Round:
    starting = chance.random() < 0.12
    call = chance.choice(CALLS) if chance.random() < 0.4 and not starting else ""
    count = chance.randint(1, LONGEST_COUNT[call]) if call else 0
    trouble = chance.choice(TROUBLES)
    after = chance.uniform(0.0, 0.6) if starting else chance.uniform(0.1, 1.6)
    return Round(
        starting=starting,
        kill_after=after * 0.5 if call else after,
        call=call if at_calls else "",
        count=count,
        # Only what goes to the outbox is written and synced.
        trouble="away" if call in WRITES else trouble,
        trouble_after=chance.choice([BEFORE_READY, 0.0, chance.uniform(0.0, 0.8)]),
        trouble_seconds=chance.choice([chance.uniform(0.2, 0.8), chance.uniform(0.8, 3.0)]),
        stops_for=chance.uniform(0.01, 1.0) if chance.random() < 0.15 and not (starting or call) else 0.0,
    )


async def run(settings: Settings, folder: Path, tell: Callable[[str], None] = lambda _line: None) -> Report:
    """All rounds, the settling, the verdict."""
    report, began = Report(settings.seed), monotonic()
    async with proof_rig(
        folder,
        devices=settings.devices,
        habit=settings.habit,
        seed=settings.seed,
        program=settings.program,
        outbox=f'spill_after = "{settings.spill_after}"',
    ) as rig:
        rounds = settings.plan or plan(settings.seed, settings.rounds, at_calls=settings.at_calls)
        for number, each in enumerate(rounds):
            await _play(each, rig, report)
            tell(f"round {number + 1}: {each}; {rig.fleet.receipted} receipted, {rig.fleet.unreceipted} not")
        await rig.hub.forget_faults()
        async with rig.daemon():
            report.settled = await rig.settled()
        report.verdict = rig.verdict()
        report.complaints = rig.complaints
    report.seconds = round(monotonic() - began, 1)
    return report


async def _play(each: Round, rig: ProofRig, report: Report) -> None:
    started, ready = monotonic(), asyncio.Event()
    async with rig.daemon(ready=False) as daemon, beside(_trouble(each, rig.hub, ready)):
        if not each.starting:
            await daemon.until_notified("READY=1")
            report.starts.append(round(monotonic() - started, 3))
            ready.set()
        await asyncio.sleep(each.kill_after)
        report.killed[await _kill(each, daemon)] += 1
        report.killed_with_unreceipted += rig.fleet.unreceipted > 0
        code = await daemon.ended()
        expected = (-signal.SIGKILL, 0) if each.stops_for else (-signal.SIGKILL,)
        assert code in expected, f"it ended by itself with {code}: {daemon.output[-20:]}"
        await rig.hub.catch_up()
        report.killed_with_promises += bool(rig.verdict().lost)


async def _kill(each: Round, daemon: DaemonProcess) -> str:
    """How it was killed."""
    if each.call:
        async with inject(daemon.pid, f"{each.call}:signal=SIGKILL:when={each.count}"):
            try:
                await daemon.ended(CALL_SECONDS)
            except TimeoutError:
                pass  # so few calls: by the clock, then
            else:
                return f"at {each.call}"
    if each.stops_for:
        daemon.tell(signal.SIGTERM)
        try:
            await daemon.ended(each.stops_for)
        except TimeoutError:
            daemon.tell(signal.SIGKILL)
            return "stopping"
        return "not at all: it had stopped"
    daemon.tell(signal.SIGKILL)
    return "starting" if each.starting else "serving"


async def _trouble(each: Round, hub: HubProcess, ready: asyncio.Event) -> None:
    if each.trouble_after >= 0:
        await ready.wait()
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


def as_dict(report: Report) -> dict[str, Any]:
    """For --json."""
    assert report.verdict is not None
    return {
        "seed": report.seed,
        "rounds": sum(report.killed.values()),
        "holds": report.holds,
        "settled": report.settled,
        **asdict(report.verdict),
        "killed": dict(report.killed),
        "killed_with_unreceipted": report.killed_with_unreceipted,
        "killed_with_promises": report.killed_with_promises,
        "start_seconds_median": statistics.median(report.starts) if report.starts else None,
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
