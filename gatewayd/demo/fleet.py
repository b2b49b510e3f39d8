"""The devices, as a program of their own: `python -m gatewayd.demo.fleet PLAN`.

Plays a share of the fleet. JSON lines on stdout: `ready`, then after the line `start <monotonic seconds>` on stdin a
`progress` every second, then one `device` each, then `done`. It ends by itself after the duration and the wait for
the last receipts, and at once when stdin ends, so it does not outlive the program that started it.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gatewayd.clock import SystemClock
from gatewayd.demo.connection import Peer, connect, trusting
from gatewayd.demo.device import Device, Role, Tally
from gatewayd.demo.identity import device_name
from gatewayd.demo.schedule import ranges_text, schedule_of, share_of
from gatewayd.demo.settings import Policy

PROGRESS_SECONDS = 1.0
# A handshake blocks its thread; more threads would only queue for the same two cores.
CONNECT_THREADS = 16
CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What one process of devices plays."""

    host: str
    port: int
    authority: str
    hub: str
    devices_file: str
    process: int
    processes: int
    devices: int
    policy: Policy
    token_lifetime: float
    rate: float
    boot: float
    duration: float
    settle: float
    keep_alive: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FleetPlan:
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "policy": Policy(fields["policy"])})


def main(arguments: list[str]) -> int:
    """The program."""
    if len(arguments) != 1:
        print("usage: python -m gatewayd.demo.fleet PLAN", file=sys.stderr)
        return 2
    plan = FleetPlan.from_json(Path(arguments[0]).read_text(encoding="utf-8"))
    with asyncio.Runner() as runner:
        code = runner.run(_play(plan))
        sys.stdout.flush()
        # A handshake that nobody answers blocks its thread for the keep-alive's length; it is not waited for.
        os._exit(code)


async def _play(plan: FleetPlan) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(CONNECT_THREADS))
    tally = Tally()
    devices = make_devices(plan, tally)
    orders = await _read_stdin()
    _say("ready", devices=len(devices))
    start = await _await_start(orders)
    if start is None:
        return 1
    playing = asyncio.create_task(_play_devices(plan, devices, tally, start), name="fleet")
    orphaned = asyncio.create_task(_until_end_of(orders), name="stdin")
    await asyncio.wait({playing, orphaned}, return_when=asyncio.FIRST_COMPLETED)
    if not playing.done():
        playing.cancel()
        await asyncio.wait({playing}, timeout=CLOSE_SECONDS)
        return 1
    orphaned.cancel()
    playing.result()
    for device in devices:
        _say(
            "device",
            device=device.name,
            scheduled=device.schedule.count,
            sent=device.sent,
            receipted=ranges_text(device.receipted),
        )
    _say("done", failures=dict(tally.failures.most_common(5)), dropped=tally.dropped)
    return 0


def make_devices(plan: FleetPlan, tally: Tally) -> list[Device]:
    """The devices of this process, with the keys of the device file."""
    keys = read_keys(Path(plan.devices_file))
    role = Role(plan.hub, plan.policy, plan.token_lifetime)
    peer = Peer(plan.host, plan.port, trusting(plan.authority), plan.keep_alive)
    devices = []
    for number in share_of(plan.process, plan.processes, plan.devices):
        name = device_name(number)
        schedule = schedule_of(number, plan.devices, boot=plan.boot, rate=plan.rate, end=plan.duration)
        devices.append(Device(name, keys[name], role, schedule, partial(connect, peer), SystemClock(), tally))
    return devices


def read_keys(path: Path) -> dict[str, bytes]:
    """The primary key of each device in a device file."""
    with path.open(encoding="ascii", newline="") as file:
        return {row["id"]: base64.b64decode(row["primary_key"]) for row in csv.DictReader(file)}


async def _play_devices(plan: FleetPlan, devices: list[Device], tally: Tally, start: float) -> None:
    loop = asyncio.get_running_loop()
    playing = [asyncio.create_task(device.run(start), name=device.name) for device in devices]
    try:
        last = start + plan.duration + plan.settle
        tick = start
        while loop.time() < last:
            over = loop.time() >= start + plan.duration
            if over and tally.receipted + tally.dropped >= tally.due:
                break
            tick += PROGRESS_SECONDS
            done, _ = await asyncio.wait(
                playing, timeout=max(0.0, tick - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()  # a device does not end by itself: this raises what went wrong
            _say_progress(tally, loop.time() - start)
    finally:
        for task in playing:
            task.cancel()
        await asyncio.wait(playing, timeout=CLOSE_SECONDS)


async def _read_stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


async def _await_start(orders: asyncio.StreamReader) -> float | None:
    order, _, instant = (await orders.readline()).decode().strip().partition(" ")
    return float(instant) if order == "start" else None


async def _until_end_of(orders: asyncio.StreamReader) -> None:
    while await orders.readline():
        pass


def _say_progress(tally: Tally, elapsed: float) -> None:
    counts = asdict(tally)
    del counts["failures"]
    _say("progress", elapsed=round(elapsed, 3), **counts)


def _say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
