"""What does an outage of the hub cost? Devices go on sending; the hub comes back; everything must arrive.

    python -m tests.proof.hub_outage [--seconds 600] [--devices 500] [--rate 1] [--sends-per-second 1500] [--json]

The daemon and the hub are processes of their own, the devices live in this one. While the hub is away each device
goes on at its rate, so it must be receipted from the outbox; the daemon's resident memory is read all the while. When
the hub is back the outbox drains while the devices still send. Then the judge compares (see `custody`).

Exit code 0 when every promise was kept, receipts kept pace with the devices, memory stayed flat, and the hub got no
more than the send throttle allows. That is taken over some seconds, because the hub notes a message when it comes to
it, and on a busy machine it comes to many at once; single seconds are shown with the throttle itself, in virtual time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

import psutil

from tests.proof.custody import Verdict
from tests.proof.keeping_fleet import Habit
from tests.proof.rig import ProofRig, complaints, proof_rig
from tests.support.daemon_process import DaemonProcess

CONNECT_SECONDS = 120.0
WARM_UP_SECONDS = 3.0
LOOK_SECONDS = 0.5
WINDOW = 8

# As many attempts as a gateway makes that knows its hub. Each under way holds memory: of a fleet that tries all at once
# the peak would be seen, not the backlog.
CONNECTS_PER_SECOND = 100
LONGEST_PAUSE = "5s"
# Memory may grow by this much while the outbox fills. It is looked at from the second quarter of the outage on, because
# buffers and pools have their first use in the first.
FLAT_MIB = 4.0
THROTTLE_WINDOW = 4.0
THROTTLE_BLUR = 1.10
KEPT_PACE = 0.9


@dataclass(frozen=True, slots=True)
class Settings:
    """One run: `rate` is of one device, `sends_per_second` the configured bound of the drain."""

    seconds: float = 600.0
    devices: int = 500
    rate: float = 1.0
    sends_per_second: int = 1500
    spill_after: str = "5s"
    seed: int = 1


@dataclass(slots=True)
class Report:
    """What a run found. Memory in MiB, times in seconds."""

    settings: Settings
    verdict: Verdict | None = None
    settled: bool = False
    receipted_while_away: int = 0
    said_while_away: int = 0
    memory: list[float] = field(default_factory=list)
    memory_peak: float = 0.0
    drain_seconds: float = 0.0
    sends_peak: float = 0.0
    complaints: list[str] = field(default_factory=list)

    @property
    def memory_growth(self) -> float:
        """From the second quarter of the outage to its last."""
        quarter = max(1, len(self.memory) // 4)
        return round(
            statistics.median(self.memory[-quarter:]) - statistics.median(self.memory[quarter : 2 * quarter]),
            2,
        )

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        verdict = self.verdict
        wrong = [] if verdict is not None and verdict.holds else [f"custody: {verdict}"]
        if not self.settled:
            wrong.append("it did not settle")
        if self.receipted_while_away < KEPT_PACE * self.said_while_away:
            wrong.append(
                f"{self.receipted_while_away} receipts for {self.said_while_away} messages in the outage"
            )
        if self.memory_growth > FLAT_MIB:
            wrong.append(f"memory grew by {self.memory_growth} MiB in the outage")
        if self.sends_peak > THROTTLE_BLUR * self.settings.sends_per_second:
            wrong.append(f"{self.sends_peak} messages a second, {self.settings.sends_per_second} allowed")
        return wrong + [f"the daemon said: {line}" for line in self.complaints]


async def run(settings: Settings, folder: Path, tell: Callable[[str], None] = lambda _line: None) -> Report:
    """The outage, the drain, the verdict."""
    report = Report(settings)
    async with (
        proof_rig(
            folder,
            devices=settings.devices,
            habit=Habit(settings.rate, window=WINDOW),
            seed=settings.seed,
            connects_per_second=CONNECTS_PER_SECOND,
            sends_per_second=settings.sends_per_second,
            longest_pause=LONGEST_PAUSE,
            outbox=f'spill_after = "{settings.spill_after}"',
        ) as rig,
        rig.daemon() as daemon,
    ):
        await rig.until_all_talk(CONNECT_SECONDS)
        tell(f"{rig.fleet.connected} devices talk, the daemon has {_mib(daemon):.1f} MiB")
        await asyncio.sleep(WARM_UP_SECONDS)
        await _outage(settings, daemon, rig, report, tell)
        back = monotonic()
        await _drain(daemon, rig, back, report)
        tell(f"drained within {report.drain_seconds:.1f} s of the hub's return")
        report.settled = await rig.settled()
        report.verdict = rig.verdict()
        report.sends_peak = rig.hub.sends_peak(back, THROTTLE_WINDOW)
        report.complaints = complaints(daemon.output)
    return report


async def _outage(
    settings: Settings, daemon: DaemonProcess, rig: ProofRig, report: Report, tell: Callable[[str], None]
) -> None:
    fleet, said, receipted = rig.fleet, rig.fleet.said, rig.fleet.receipted
    await rig.hub.go_away(settings.seconds)
    ends = monotonic() + settings.seconds
    while (left := ends - monotonic()) > 0:
        await asyncio.sleep(min(left, LOOK_SECONDS))
        report.memory.append(_mib(daemon))
        if len(report.memory) % 40 == 0:
            tell(f"{left:.0f} s to go, {fleet.receipted - receipted} receipts, {report.memory[-1]:.1f} MiB")
    report.said_while_away = fleet.said - said
    report.receipted_while_away = fleet.receipted - receipted


async def _drain(daemon: DaemonProcess, rig: ProofRig, back: float, report: Report) -> None:
    """Until all is at the hub that was receipted when it came back; no longer than twice what the throttle asks for."""
    settings = report.settings
    owed = {device.identity: tuple(device.record.receipted) for device in rig.fleet.devices}
    free = max(1.0, settings.sends_per_second - settings.rate * settings.devices)
    by = back + 30.0 + 2.0 * sum(len(numbers) for numbers in owed.values()) / free
    while monotonic() < by:
        await rig.hub.catch_up()
        report.memory_peak = max(report.memory_peak, _mib(daemon))
        owed = {
            name: tuple(number for number in numbers if number not in rig.hub.first(name))
            for name, numbers in owed.items()
        }
        if not any(owed.values()):
            break
        await asyncio.sleep(LOOK_SECONDS)
    report.drain_seconds = round(monotonic() - back, 1)


def _mib(daemon: DaemonProcess) -> float:
    return float(psutil.Process(daemon.pid).memory_info().rss) / (1 << 20)


def as_dict(report: Report) -> dict[str, Any]:
    """For --json."""
    assert report.verdict is not None
    return {
        **asdict(report.settings),
        **asdict(report.verdict),
        "broken": report.broken(),
        "said_while_away": report.said_while_away,
        "receipted_while_away": report.receipted_while_away,
        "memory_first": round(report.memory[0], 2),
        "memory_last": round(report.memory[-1], 2),
        "memory_growth": report.memory_growth,
        "memory_peak_in_drain": round(report.memory_peak, 2),
        "drain_seconds": report.drain_seconds,
        "sends_peak": report.sends_peak,
    }


DEFAULT: Final = Settings()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="tests.proof.hub_outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=DEFAULT.seconds)
    parser.add_argument("--devices", type=int, default=DEFAULT.devices)
    parser.add_argument("--rate", type=float, default=DEFAULT.rate, help="messages a second of a device")
    parser.add_argument("--sends-per-second", type=int, default=DEFAULT.sends_per_second)
    parser.add_argument("--spill-after", default=DEFAULT.spill_after)
    parser.add_argument("--seed", type=int, default=DEFAULT.seed)
    parser.add_argument("--json", action="store_true")
    args = vars(parser.parse_args(arguments))
    as_json = args.pop("json")

    def tell(line: str) -> None:
        if not as_json:
            print(line, flush=True)

    with tempfile.TemporaryDirectory(prefix="gatewayd-outage-") as folder:
        report = asyncio.run(run(Settings(**args), Path(folder), tell))
    found = as_dict(report)
    print(json.dumps(found) if as_json else f"{report.verdict}\n{json.dumps(found, indent=1)}")
    return 1 if report.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
