"""A hub of the demo: the emulator in a process of its own, its event log as it comes, its account when asked.

Tokens are enforced to the second: no skew, no grace. The service is milder by minutes; a fleet that satisfies this hub
satisfies that one, and a run need not last an hour to show what happens without gatewayd.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from gatewayd.demo.hub_story import HubEvent, HubStory
from gatewayd.demo.identity import device_name, message_id
from gatewayd.demo.processes import Child, ChildFailed, Children
from gatewayd.demo.readings import fetch
from gatewayd.demo.settings import HUB_CONNECTS_PER_SECOND, HUB_HOSTNAME
from gatewayd.demo.stage import LOOPBACK, Stage

READY_SECONDS = 30.0
ACCOUNT_SECONDS = 60.0


class Hub:
    """A running hub."""

    def __init__(self, name: str, authority: Path, http: aiohttp.ClientSession) -> None:
        self.name = name
        self.authority = authority
        self.port = 0
        self.story = HubStory()
        self.errors: Mapping[str, int] = {}
        self.causes: Mapping[str, int] = {}
        self.unplanned = 0
        self.open_connections = 0
        self.connects_peak = 0
        self.messages_distinct = 0
        self.messages_duplicate = 0
        self.messages_unaccounted = 0
        self._http = http
        self._control = ""

    @classmethod
    async def start(cls, name: str, ready: Stage, children: Children, http: aiohttp.ClientSession) -> Hub:
        """Start it with the devices of the stage and wait until it listens."""
        hub = cls(name, ready.directory / f"{name.replace(' ', '-')}.pem", http)
        arguments = [
            "gatewayd",
            "emulator",
            "--json",
            "--listen",
            f"{LOOPBACK}:0",
            "--hostname",
            HUB_HOSTNAME,
        ]
        arguments += ["--devices", str(ready.devices_file), "--write-ca", str(hub.authority)]
        arguments += ["--grace", "0", "--skew", "0", "--connect-rate", str(HUB_CONNECTS_PER_SECOND)]
        arguments += ["--control", f"{LOOPBACK}:0", "--events", "-"]
        child = await children.start(name, arguments, stdout=hub.take)
        await hub._until_ready(child)
        return hub

    def take(self, line: str) -> None:
        """One line of its standard output: its greeting, an event, or its account at the end."""
        said = json.loads(line)
        if "sequence" in said:
            self.story.add([HubEvent.from_fields(said)])
        elif "control_port" in said:
            self.port = said["port"]
            self._control = f"http://{LOOPBACK}:{said['control_port']}"
        elif said.get("truncated"):
            self.story.missed += 1

    async def read(self) -> None:
        """Ask for its account; NotThere when it cannot be had in time."""
        said: Mapping[str, Any] = json.loads(await fetch(self._http, f"{self._control}/summary"))
        self.errors = said["hub_errors"]
        self.causes = said["hub_error_causes"]
        self.unplanned = said["unplanned_disconnects"]
        self.open_connections = said["open_connections"]
        self.connects_peak = said["connects_peak_per_s"]
        self.messages_distinct = said["messages_distinct"]
        self.messages_duplicate = said["messages_duplicate"]
        self.messages_unaccounted = said["messages_unaccounted"]

    def remarks(self) -> list[str]:
        """Its errors by their cause, as far as it has accounted for them."""
        return [f"{self.name} counted {count} of {cause}" for cause, count in self.causes.items()]

    async def count_missing(self, receipted: Mapping[str, set[int]]) -> int:
        """How many messages that devices have receipts for are not here."""
        text = await fetch(self._http, f"{self._control}/message-ids", within=ACCOUNT_SECONDS)
        here: dict[str, list[str]] = json.loads(text)
        missing = 0
        for device, numbers in receipted.items():
            ids = set(here.get(device, ()))
            missing += sum(message_id(device, number) not in ids for number in numbers)
        return missing

    async def drop_one(self) -> None:
        """Close the connection of the first device, as a failing network does."""
        await self._order("drop", {"identity": device_name(0)})

    async def withhold_receipts(self) -> None:
        """Take messages and never acknowledge them, from now on."""
        await self._order("faults", {"kind": "puback_drop"})

    async def _order(self, what: str, wanted: Mapping[str, object]) -> None:
        async with self._http.post(f"{self._control}/{what}", json=wanted) as answer:
            answer.raise_for_status()

    async def _until_ready(self, child: Child) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not self._control:
                    child.check()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            problem = f"was not ready within {READY_SECONDS:g} s"
            raise ChildFailed(self.name, problem, child.last_words) from None
