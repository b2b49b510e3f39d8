"""Everything a proof of custody needs: a hub and a daemon in processes of their own, and devices that keep messages.

    async with proof_rig(folder, devices=24, habit=HABIT) as rig:
        async with rig.daemon() as daemon:
            ...
            daemon.tell(signal.SIGKILL)
        async with rig.daemon():
            assert await rig.settled()
        assert rig.verdict().holds

Hub and devices outlive every daemon of the rig.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from tests.proof.custody import Verdict, judge
from tests.proof.hub_process import HubProcess, hub_process
from tests.proof.keeping_fleet import Habit, KeepingFleet, keeping_fleet
from tests.support.daemon_process import GATEWAYD, DaemonProcess, daemon_process
from tests.support.gateway_files import GatewaySite

ROOT: Final = Path(__file__).parent.parent.parent

HABIT: Final = Habit(rate=30.0, window=6, resets_per_minute=6.0)
SETTLE_SECONDS = 60.0
# With a hub that is well nobody pauses longer than the ceiling below: where nothing moves for so long nothing will.
STUCK_SECONDS = 6.0
QUIET_SECONDS = 0.6
STEP_SECONDS = 0.05
WITHIN_SECONDS = 20.0
# Longer than any test: they say themselves when the hub comes back.
OUTAGE_SECONDS = 300.0

# Devices and hub sessions come back by the dozen each second, and a message is spilled as soon as the bounds allow.
CONFIG = """
[hub.budget]
connects_per_second = {connects_per_second}
sends_per_second = {sends_per_second}
[tokens.backoff]
first = "100ms"
ceiling = "{longest_pause}"
"""
LISTENER = "connects_per_device_per_minute = 10000\nconnects_per_address_per_second = 10000"


@dataclass(slots=True)
class ProofRig:
    """`complaints` are what all daemons together said of themselves that they should never say."""

    hub: HubProcess
    site: GatewaySite
    fleet: KeepingFleet
    program: Sequence[str]
    complaints: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def daemon(self, *, ready: bool = True) -> AsyncIterator[DaemonProcess]:
        """Run it for a block; it is ended at the end of it, if it has not ended already."""
        running = daemon_process(self.site, ready=ready, program=self.program, PYTHONPATH=str(ROOT))
        async with running as daemon:
            try:
                yield daemon
            finally:
                self.complaints += complaints(daemon.output)

    def verdict(self) -> Verdict:
        """As things stand at the hub, as far as it has been read."""
        return judge(self.fleet.records, self.hub.records)

    async def until(self, condition: Callable[[], bool], within: float = WITHIN_SECONDS) -> None:
        """Until devices or the hub's account make it true; nothing tells."""
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - see above
                await asyncio.sleep(STEP_SECONDS)

    async def until_all_talk(self, within: float = WITHIN_SECONDS) -> None:
        """Until every device is connected and the hub has heard of it."""
        devices = len(self.fleet.devices)
        await self.until(lambda: self.fleet.connected == devices and len(self.hub.records) == devices, within)

    async def outage(self) -> None:
        """The hub is away from now on, and receipts come from the outbox."""
        await self.until_all_talk()
        await self.hub.go_away(OUTAGE_SECONDS)
        await self.receipts(2 * len(self.fleet.devices))

    async def receipts(self, count: int, within: float = WITHIN_SECONDS) -> None:
        """Until so many more receipts have come."""
        wanted = self.fleet.receipted + count
        await self.until(lambda: self.fleet.receipted >= wanted, within)

    async def receipts_cease(self, within: float = WITHIN_SECONDS, quiet: float = 1.0) -> None:
        """Until every device waits with a full window, and no receipt comes for a while."""
        async with asyncio.timeout(within):
            seen, since = -1, monotonic()
            while monotonic() - since < quiet:
                if self.fleet.receipted != seen or not self.fleet.all_wait:
                    seen, since = self.fleet.receipted, monotonic()
                await asyncio.sleep(STEP_SECONDS)

    async def settled(self, within: float = SETTLE_SECONDS) -> bool:
        """Devices say nothing new. Until each has all its receipts, the hub has what they promise, and all is quiet."""
        self.fleet.stop_talking()
        moved_at, seen = monotonic(), (-1, -1)
        by = moved_at + within
        while monotonic() < by:
            await self.hub.catch_up()
            now = (self.hub.received, self.fleet.receipted)
            if now != seen:
                seen, moved_at = now, monotonic()
            still = monotonic() - moved_at
            if still > QUIET_SECONDS and not (self.fleet.unreceipted or self.verdict().lost):
                return True
            if still > STUCK_SECONDS:
                return False
            await asyncio.sleep(STEP_SECONDS)
        return False


@asynccontextmanager
async def proof_rig(
    folder: Path,
    *,
    devices: int,
    habit: Habit = HABIT,
    seed: int = 1,
    program: Sequence[str] = GATEWAYD,
    connects_per_second: int = 1000,
    sends_per_second: int = 5000,
    longest_pause: str = "1s",
    outbox: str = 'spill_after = "200ms"',
    config: str = "",
) -> AsyncIterator[ProofRig]:
    """Hub, files and devices. `outbox` and `config` are lines of the configuration; no daemon runs yet."""
    names = [f"dev-{number:03}" for number in range(devices)]
    more = config + CONFIG.format(
        connects_per_second=connects_per_second,
        sends_per_second=sends_per_second,
        longest_pause=longest_pause,
    )
    async with hub_process(folder, names) as hub:
        site = GatewaySite.make(folder, hub, names, more=more, listener=LISTENER, outbox=outbox)
        async with keeping_fleet(site, names, habit, seed) as fleet:
            yield ProofRig(hub, site, fleet, program)


def complaints(output: Sequence[str]) -> list[str]:
    """Lines in which a daemon speaks of a fault of its own."""
    return [line for line in output if "Traceback" in line or "fault of gatewayd" in line]
