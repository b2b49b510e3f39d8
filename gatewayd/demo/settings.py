"""What the demo runs: sizes, times, and the configuration of its daemon. Pure.

The daemon of the demo is configured as an operator would for the same fleet; nothing is switched off. Two things
differ from the defaults: the hub is a local one, and the deadlines of an attempt are cut so that a whole renewal fits
between the end of the renewal window and the expiry of a token that lives seconds instead of an hour.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gatewayd.tokens.renewal_timetable import feasibility

HUB_HOSTNAME = "demo.azure-devices.net"

# The daemon's defaults for the renewal window, as shares of a token's life.
RENEW_EARLIEST = 0.70
RENEW_LATEST = 0.85
# The daemon's default for the share of the budget that renewals must leave free.
RESERVE = 0.20
BUDGET_PER_SECOND = 50
# New device connections that an S1 hub of up to 8 units allows in all (IoT Hub quotas and throttling, Microsoft).
HUB_CONNECTS_PER_SECOND = 100
RENEWALS_WANTED = 2
# A boot, and every renewal, needs a moment on a small machine.
SLACK_SECONDS = 5.0

MAX_DEVICES = 20_000
DEVICES_PER_PROCESS = 250
MAX_FLEET_PROCESSES = 2
FILES_PER_DEVICE = 2  # the daemon holds the device's connection and the hub's
FILES_BESIDE = 256

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s?(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Policy(StrEnum):
    """How a device keeps its token fresh."""

    GATEWAY = "gateway"  # behind gatewayd: its own token outlives the run
    CUT = "cut"  # at the hub: waits until the hub cuts the connection, then comes back at once
    FIXED = "fixed"  # at the hub: reconnects at one fixed share of the token's life


@dataclass(frozen=True, slots=True)
class Settings:
    """One run. Times are seconds, `rate` is messages per second of one device."""

    devices: int = 500
    lifetime: float = 30.0
    duration: float = 75.0
    rate: float = 0.2
    boot: float = 10.0
    compare: Policy | None = None
    renew_earliest: float = RENEW_EARLIEST
    renew_latest: float = RENEW_LATEST
    budget: int | None = None
    log_level: str = "debug"  # the gap and the drain of each renewal are logged there

    @property
    def budget_per_second(self) -> int:
        """New hub connections per second that the daemon may open."""
        return self.budget or budget_for(self.devices, self.lifetime, self.renew_latest)

    @property
    def fleet_processes(self) -> int:
        return min(MAX_FLEET_PROCESSES, math.ceil(self.devices / DEVICES_PER_PROCESS))

    @property
    def open_files(self) -> int:
        """How many files the daemon, the hungriest of the processes, must be able to open."""
        return self.devices * FILES_PER_DEVICE + FILES_BESIDE


def duration_seconds(text: str) -> float:
    """The seconds in "30s", "60m", "1.5h"; ValueError with what is allowed."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration: a number and its unit, such as 30s, 60m or 1.5h")
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def boot_for(devices: int) -> float:
    """Seconds in which a fleet comes up: at the pace the daemon's default budget carries."""
    return max(1.0, devices / BUDGET_PER_SECOND)


def renewal_floor(devices: int, lifetime: float, renew_latest: float = RENEW_LATEST) -> float:
    """Renewals per second that no placement can go below."""
    return devices / (lifetime * renew_latest)


def budget_for(devices: int, lifetime: float, renew_latest: float = RENEW_LATEST) -> int:
    """The daemon's default budget, or the smallest that carries this fleet."""
    asked = feasibility(devices, lifetime, RENEW_EARLIEST, renew_latest, BUDGET_PER_SECOND, RESERVE)
    return max(BUDGET_PER_SECOND, math.ceil(asked.expected_peak / (1.0 - RESERVE) - 1e-9))


def fleet_up_seconds(settings: Settings) -> float:
    """When the last device of a healthy run is at the hub: the boot, or what the budget makes of it.

    Renewals go first, and a device that is up takes one turn in at most `tau`, the part of a token's life that is used.
    So n devices grow by budget - n / tau a second, and reach all of them at -tau ln(1 - devices / (budget tau)).
    """
    tau = settings.renew_latest * settings.lifetime
    share = settings.devices / (settings.budget_per_second * tau)
    return max(settings.boot, -tau * math.log(1.0 - share)) if share < 1.0 else math.inf


def shortest_duration(settings: Settings) -> float:
    """Seconds after which every device of a healthy run has been renewed often enough."""
    used = settings.renew_latest * settings.lifetime
    return fleet_up_seconds(settings) + RENEWALS_WANTED * used + SLACK_SECONDS


def problems(settings: Settings) -> list[str]:
    """Why these settings cannot be run, a sentence each."""
    found = []
    if not 1 <= settings.devices <= MAX_DEVICES:
        found.append(f"--devices {settings.devices}: allowed 1 to {MAX_DEVICES}")
    if not 10 <= settings.lifetime <= 86_400:
        found.append(f"--lifetime {settings.lifetime:g}s: allowed 10s to 24h, as for tokens.lifetime")
    if not 0 < settings.rate <= 100:
        found.append(
            f"--rate {settings.rate:g}: allowed above 0, up to 100 messages a second for each device"
        )
    if not 0 <= settings.boot <= 3600:
        found.append(f"--boot {settings.boot:g}s: allowed 0s to 60m")
    if found:
        return found
    # The daemon would refuse what the largest budget cannot carry; asked here, the answer comes before the start.
    asked = feasibility(
        settings.devices, settings.lifetime, RENEW_EARLIEST, RENEW_LATEST, HUB_CONNECTS_PER_SECOND, RESERVE
    )
    found += [f"--devices, --lifetime: {problem}" for problem in asked.problems]
    if found:
        return found
    shortest = shortest_duration(settings)
    if settings.duration < shortest:
        found.append(
            f"--duration {settings.duration:g}s is too short for {RENEWALS_WANTED} renewals of every device: "
            f"at least {math.ceil(shortest)}s"
        )
    return found


@dataclass(frozen=True, slots=True)
class Places:
    """Where the daemon of the demo finds and puts things."""

    hub_port: int
    hub_authority: Path
    listener_port: int
    listener_certificate: Path
    metrics_port: int
    devices_file: Path
    outbox_file: Path
    clock_floor_file: Path


# What each step of a renewal may take, as a share of the time between the window's end and expiry. They add up to 1.
_STEPS = (
    ("hub.deadlines", "dial", 0.15, 10.0),
    ("hub.deadlines", "handshake", 0.30, 15.0),
    ("hub.deadlines", "connack", 0.30, 15.0),
    ("tokens", "handover_drain", 0.10, 2.0),
    ("tokens", "handover_patience", 0.15, 5.0),
)


def daemon_config(settings: Settings, places: Places) -> str:
    """The configuration file of the demo's daemon."""
    rest = settings.lifetime * (1.0 - settings.renew_latest)
    steps: dict[str, list[str]] = {"hub.deadlines": [], "tokens": []}
    for table, key, share, default in _STEPS:
        seconds = max(0.1, min(default, rest * share))
        steps[table].append(f'{key} = "{math.floor(seconds * 1000)}ms"')
    lines = [
        "[hub]",
        f"hostname = {_text(HUB_HOSTNAME)}",
        f"trusted_ca = {_text(places.hub_authority)}",
        "[hub.endpoints]",
        f'mqtt = "127.0.0.1:{places.hub_port}"',
        "[hub.budget]",
        f"connects_per_second = {settings.budget_per_second}",
        "[hub.deadlines]",
        *steps["hub.deadlines"],
        "[tokens]",
        f'lifetime = "{settings.lifetime:g}s"',
        f"renew_earliest = {settings.renew_earliest}",
        f"renew_latest = {settings.renew_latest}",
        *steps["tokens"],
        "[tokens.backoff]",
        f'first = "{math.floor(1000 * min(1.0, max(0.1, settings.lifetime / 60)))}ms"',
        f'ceiling = "{min(60.0, settings.lifetime / 4):g}s"',
        "[listener]",
        f'address = "127.0.0.1:{places.listener_port}"',
        f"certificate = {_text(places.listener_certificate)}",
        f"max_connections = {max(10_000, settings.devices * 2)}",
        "[devices]",
        f"file = {_text(places.devices_file)}",
        "[metrics]",
        f'address = "127.0.0.1:{places.metrics_port}"',
        "[log]",
        f'level = "{settings.log_level}"',
        'format = "json"',
        "[outbox]",
        f"path = {_text(places.outbox_file)}",
        "[clock]",
        f"floor_file = {_text(places.clock_floor_file)}",
    ]
    return "\n".join(lines) + "\n"


def _text(value: str | Path) -> str:
    """A TOML basic string: JSON's escapes are a subset of TOML's."""
    return json.dumps(str(value), ensure_ascii=False)
