"""Who connects when, and who sends when. Pure.

Devices come up one after another over the boot, as a site does after its power is back. Each sends at its own phase,
so that the fleet's messages are even over time while no two devices are in step. The schedule says how many messages
there should be; what a device could not send counts against the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Multiples of the golden ratio, cut to their fraction, are spread evenly for any number of devices.
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The plan of one device, in seconds since the start of the run."""

    boot: float
    first: float
    interval: float
    end: float

    @property
    def count(self) -> int:
        """How many messages are due before the end."""
        return max(0, math.ceil((self.end - self.first) / self.interval - 1e-9))

    def due(self, number: int) -> float:
        """When message `number`, counted from 0, is due."""
        return self.first + number * self.interval


def schedule_of(number: int, devices: int, *, boot: float, rate: float, end: float) -> Schedule:
    """The plan of device `number` of `devices`."""
    up = boot * number / devices
    interval = 1.0 / rate
    return Schedule(up, up + interval * ((number * _GOLDEN) % 1.0), interval, end)


def share_of(process: int, processes: int, devices: int) -> range:
    """The devices one of several processes plays: every so manieth, so that all boot together."""
    return range(process, devices, processes)


def ranges_text(numbers: set[int]) -> str:
    """A set of message numbers as text: "0-14,16"."""
    parts: list[str] = []
    ordered = sorted(numbers)
    start = 0
    for index, number in enumerate(ordered):
        if index + 1 < len(ordered) and ordered[index + 1] == number + 1:
            continue
        first = ordered[start]
        parts.append(str(first) if first == number else f"{first}-{number}")
        start = index + 1
    return ",".join(parts)


def ranges_set(text: str) -> set[int]:
    """The set that `ranges_text` wrote."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
