"""A fleet as the demo sees it: one or two processes of devices, their progress added up, their results collected."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatewayd.demo.fleet import FleetPlan
from gatewayd.demo.processes import Child, ChildFailed, Children
from gatewayd.demo.schedule import ranges_set
from gatewayd.demo.stage import write_private

READY_SECONDS = 30.0
# After the wait for the last receipts the devices leave the server, each within the bound of its connection.
LEAVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What a fleet has done so far."""

    connected: int = 0
    due: int = 0
    sent: int = 0
    receipted: int = 0
    connects: int = 0
    losses: int = 0
    dropped: int = 0

    def plus(self, other: Progress) -> Progress:
        return Progress(
            self.connected + other.connected,
            self.due + other.due,
            self.sent + other.sent,
            self.receipted + other.receipted,
            self.connects + other.connects,
            self.losses + other.losses,
            self.dropped + other.dropped,
        )


@dataclass(slots=True)
class FleetResult:
    """What a fleet had done at its end."""

    scheduled: int = 0
    sent: int = 0
    receipted: dict[str, set[int]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def receipts(self) -> int:
        return sum(len(numbers) for numbers in self.receipted.values())


class Fleet:
    """Start it, let it begin, watch it, read its result."""

    def __init__(self, name: str, children: Children, directory: Path) -> None:
        self.name = name
        self.result = FleetResult()
        self._children = children
        self._directory = directory
        self._parts: list[Child] = []
        self._progress: dict[int, Progress] = {}
        self._ready: set[int] = set()
        self._done: set[int] = set()

    @property
    def progress(self) -> Progress:
        total = Progress()
        for part in self._progress.values():
            total = total.plus(part)
        return total

    @property
    def is_done(self) -> bool:
        """Whether every process has said all of its result."""
        return len(self._done) == len(self._parts)

    async def start(self, plans: list[FleetPlan]) -> None:
        """Start a process for each plan and wait until all have made their devices."""
        for number, plan in enumerate(plans):
            file = write_private(
                self._directory / f"{self.name.replace(' ', '-')}-{number}.json", plan.to_json().encode()
            )
            self._parts.append(
                await self._children.start(
                    f"{self.name}, process {number + 1}",
                    ["gatewayd.demo.fleet", str(file)],
                    stdout=lambda line, number=number: self.take(number, json.loads(line)),  # type: ignore[misc]  # mypy cannot see the default argument's type
                )
            )
        try:
            async with asyncio.timeout(READY_SECONDS):
                while len(self._ready) < len(self._parts):
                    self._children.check()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            problem = f"was not ready within {READY_SECONDS:g} s"
            raise ChildFailed(self.name, problem, self._parts[0].last_words) from None

    async def begin(self, start: float) -> None:
        """Let the run start at that monotonic instant."""
        for part in self._parts:
            await part.tell(f"start {start}")

    def let_end(self) -> None:
        """From now on its processes may end by themselves."""
        for part in self._parts:
            part.may_end = True

    async def finished(self) -> FleetResult:
        """The result, once every process has ended."""
        for part in self._parts:
            await part.finished(LEAVE_SECONDS)
        return self.result

    def take(self, number: int, said: Mapping[str, Any]) -> None:
        """One line of process `number`."""
        match said["event"]:
            case "ready":
                self._ready.add(number)
            case "progress":
                self._progress[number] = Progress(**{k: said[k] for k in Progress.__dataclass_fields__})
            case "device":
                self.result.scheduled += said["scheduled"]
                self.result.sent += said["sent"]
                self.result.receipted[said["device"]] = ranges_set(said["receipted"])
            case "done":
                self.result.failures.update(said["failures"])
                self._done.add(number)
