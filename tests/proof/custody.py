"""What devices were promised against what the hub has: the verdict of every proof of custody. Pure.

A device numbers its messages from 0 in the order in which it says them. A receipt is a promise: from then on the device
has forgotten the message, so it must be at the hub once everything has settled. The hub's own record is the oracle.

Promises judged: nothing receipted is missing (*lost*); the hub met each device's messages for the first time in the
device's order (*disordered*); what the hub has is what the device said (*damaged*, *invented*); receipts came in the
order of the messages, and for messages that were under way (*astray*). A message that came twice is counted and is no
fault: a crash doubles what it cannot know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

Said = tuple[str, int]  # a device and the number of its message

SHOWN = 10


@dataclass(slots=True)
class DeviceRecord:
    """One device: how many messages it has said, and when (monotonic seconds) each receipt came."""

    said: int = 0
    receipted: dict[int, float] = field(default_factory=dict)
    astray: int = 0


@dataclass(slots=True)
class HubRecord:
    """One device at the hub: when each number came first, in the order of coming, and what came besides."""

    first: dict[int, float] = field(default_factory=dict)
    duplicates: int = 0
    damaged: list[int] = field(default_factory=list)
    invented: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`early` counts receipts that were given before the hub had the message: promises on our own account."""

    receipted: int
    unreceipted: int
    at_hub: int
    duplicates: int
    early: int
    lost: tuple[Said, ...]
    disordered: tuple[Said, ...]
    damaged: tuple[Said, ...]
    invented: int
    astray: int

    @property
    def holds(self) -> bool:
        """True when every promise was kept."""
        return not (self.lost or self.disordered or self.damaged or self.invented or self.astray)

    def __str__(self) -> str:
        counts = (
            f"{self.receipted} receipted ({self.early} before the hub had them), {self.unreceipted} not,"
            f" {self.at_hub} at the hub, {self.duplicates} twice"
        )
        faults = [
            f"{len(found)} {name}: {', '.join(f'{device}/{number}' for device, number in found[:SHOWN])}"
            for name, found in (
                ("lost", self.lost),
                ("disordered", self.disordered),
                ("damaged", self.damaged),
            )
            if found
        ]
        faults += [
            f"{count} {name}"
            for name, count in (("invented", self.invented), ("receipts astray", self.astray))
            if count
        ]
        return f"{counts}; {'; '.join(faults) or 'every promise kept'}"


def judge(devices: Mapping[str, DeviceRecord], hub: Mapping[str, HubRecord]) -> Verdict:
    """Compare, once everything has settled."""
    lost: list[Said] = []
    disordered: list[Said] = []
    damaged: list[Said] = []
    receipted = unreceipted = at_hub = duplicates = early = astray = 0
    invented = sum(len(record.first) + record.invented for name, record in hub.items() if name not in devices)
    for name, device in devices.items():
        here = hub.get(name) or HubRecord()
        receipted += len(device.receipted)
        unreceipted += device.said - len(device.receipted)
        astray += device.astray
        at_hub += len(here.first)
        duplicates += here.duplicates
        invented += here.invented + sum(number >= device.said for number in here.first)
        early += sum(here.first.get(number, when) > when for number, when in device.receipted.items())
        lost += ((name, number) for number in device.receipted if number not in here.first)
        disordered += ((name, later) for earlier, later in pairwise(here.first) if later < earlier)
        damaged += ((name, number) for number in here.damaged)
    return Verdict(
        receipted=receipted,
        unreceipted=unreceipted,
        at_hub=at_hub,
        duplicates=duplicates,
        early=early,
        lost=tuple(lost),
        disordered=tuple(disordered),
        damaged=tuple(damaged),
        invented=invented,
        astray=astray,
    )
