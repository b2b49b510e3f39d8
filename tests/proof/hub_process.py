"""The emulated hub in a process of its own, and its account of what came: the oracle of the proofs.

    async with hub_process(folder, names) as hub:
        site = GatewaySite.make(folder, hub, names)
        ...
        await hub.catch_up()
        judge(fleet.records, hub.records)

Its ledger keeps the newest messages whole; they are read while the run goes on, each once. What it should have
forgotten before it was read makes the account worthless, and that is an error.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from gatewayd.demo.processes import Child, Children
from tests.proof.beside import beside
from tests.proof.custody import HubRecord
from tests.proof.keeping_fleet import number_in, telemetry
from tests.support.emulated_hub import HOSTNAME, device_key_text
from tests.support.gateway_files import free_port, second_key_text

HOST = "127.0.0.1"
READY_SECONDS = 30.0
ANSWER_SECONDS = 30.0
LOOK_SECONDS = 0.25
AT_ONCE = 5_000


class HubProcess:
    """A running hub; `records` is its account as far as it has been read."""

    def __init__(self, port: int, authority: Path, http: aiohttp.ClientSession) -> None:
        self.host = HOST
        self.port = port
        self.hostname = HOSTNAME
        self.records: dict[str, HubRecord] = {}
        self._arrivals: list[float] = []  # of every message, doubles too, monotonic seconds
        self._authority = authority
        self._http = http
        self._control = ""
        self._read = 0
        self._reading = asyncio.Lock()

    @property
    def received(self) -> int:
        """Messages that came, as far as read."""
        return self._read

    # What a gateway's files are made from

    @property
    def certificate(self) -> HubProcess:
        return self

    def write_authority(self, path: Path) -> None:
        """A copy of the root to trust."""
        shutil.copy(self._authority, path)

    # What can be done to it

    async def go_away(self, seconds: float) -> None:
        """Close every connection and refuse new ones for so long."""
        await self._order("restart", {"seconds": seconds})

    async def come_back(self) -> None:
        """Be there again, however long it was to be away."""
        await self.go_away(0.05)

    async def be_silent(self, seconds: float) -> None:
        """Accept TCP and say nothing for so long; connections that are open stay."""
        await self._order("blackhole", {"seconds": seconds})

    async def drop_all(self) -> None:
        """Close every connection without a word."""
        await self._order("drop", {})

    async def arm(self, kind: str, seconds: float, *, value: float = 0.0, count: int | None = None) -> None:
        await self._order("faults", {"kind": kind, "seconds": seconds, "value": value, "count": count})

    async def forget_faults(self) -> None:
        """Nothing that was armed acts any more."""
        async with self._http.delete(f"{self._control}/faults") as answer:
            answer.raise_for_status()

    async def summary(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(await self._fetch("/summary"))
        return said

    # Its account

    async def catch_up(self) -> None:
        """Read all that has come up to now."""
        async with self._reading:
            more = True
            while more:
                lines = json.loads(await self._fetch(f"/messages?since={self._read}&limit={AT_ONCE}"))
                for line in lines:
                    self._take(line)
                more = len(lines) == AT_ONCE

    def first(self, identity: str) -> Mapping[int, float]:
        """When each of its messages came first."""
        record = self.records.get(identity)
        return record.first if record is not None else {}

    def sends_peak(self, since: float, window: float) -> float:
        """The most messages a second over any `window` seconds, of those that came from `since` on."""
        times = self._arrivals[bisect_left(self._arrivals, since) :]
        return (
            max((bisect_left(times, when + window) - at for at, when in enumerate(times)), default=0) / window
        )

    async def keep_reading(self) -> None:
        """Until cancelled."""
        while True:
            await self.catch_up()
            await asyncio.sleep(LOOK_SECONDS)

    def _take(self, line: dict[str, Any]) -> None:
        if line["sequence"] != self._read:
            raise AssertionError(
                f"the hub forgot messages {self._read} to {line['sequence']} before they were read"
            )
        self._read += 1
        self._arrivals.append(line["monotonic"])
        name = line["identity"]
        record = self.records.setdefault(name, HubRecord())
        message_id = line["bag"].removeprefix("%24.mid=")
        number = number_in(name, message_id)
        if number is None:
            record.invented += 1
            return
        if number in record.first:
            record.duplicates += 1
        else:
            record.first[number] = line["monotonic"]
        if (line["bag"], base64.b64decode(line["payload"])) != telemetry(name, number):
            record.damaged.append(number)

    # Within

    def greeted(self, line: str) -> None:
        said = json.loads(line)
        if "control_port" in said:
            self._control = f"http://{HOST}:{said['control_port']}"

    async def until_ready(self, child: Child) -> None:
        async with asyncio.timeout(READY_SECONDS):
            while not self._control:
                child.check()
                await asyncio.sleep(0.02)

    async def _order(self, what: str, wanted: dict[str, Any]) -> None:
        async with self._http.post(f"{self._control}/{what}", json=wanted) as answer:
            answer.raise_for_status()

    async def _fetch(self, path: str) -> str:
        async with self._http.get(f"{self._control}{path}") as answer:
            answer.raise_for_status()
            return await answer.text()


@asynccontextmanager
async def hub_process(folder: Path, identities: Sequence[str]) -> AsyncIterator[HubProcess]:
    """Start it with these identities; it is read all the time, and ended at the end of the block."""
    devices = folder / "hub-devices.csv"
    devices.write_text(
        "id,primary_key,secondary_key\n"
        + "".join(f"{name},{device_key_text(name)},{second_key_text(name)}\n" for name in identities)
    )
    authority = folder / "hub-root.pem"
    port = free_port(HOST)
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http, Children() as children:
        hub = HubProcess(port, authority, http)
        child = await children.start(
            "hub",
            [
                *("gatewayd", "emulator", "--json"),
                *("--listen", f"{HOST}:{port}", "--control", f"{HOST}:{free_port(HOST)}"),
                *("--hostname", HOSTNAME, "--devices", str(devices), "--write-ca", str(authority)),
                *("--connect-rate", "0"),
            ],
            stdout=hub.greeted,
        )
        await hub.until_ready(child)
        async with beside(hub.keep_reading()):
            yield hub
        child.check()
