"""One run from beginning to end: the processes in their order, a look every second, the account at the end.

Hub first, then the daemon, then the devices; they end the other way round, so that the hub sees how the daemon leaves.
Both fleets of a comparison run at the same time, each with a hub of its own, so both meet the same machine.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import aiohttp

from gatewayd.clock import SystemClock
from gatewayd.demo.comparison import OtherFleet, OurConnects
from gatewayd.demo.fleet import FleetPlan
from gatewayd.demo.fleets import LEAVE_SECONDS, Fleet
from gatewayd.demo.gateway import Gateway
from gatewayd.demo.hub_story import per_second, sliding_peak, spread_ms, within
from gatewayd.demo.hubs import Hub
from gatewayd.demo.identity import device_name
from gatewayd.demo.processes import ChildFailed, Children
from gatewayd.demo.readings import DaemonReading, NotThere
from gatewayd.demo.settings import HUB_HOSTNAME, RENEWALS_WANTED, Places, Policy, Settings
from gatewayd.demo.stage import LOOPBACK, Stage, free_ports, stage
from gatewayd.demo.summary import Criterion, Proof, Summary, verdict
from gatewayd.demo.table import Glance, Screen

LOOK_SECONDS = 1.0
LOOKS = 200  # at the hub's account, in a long run: making it costs the hub more the longer the run
RECENT_CONNECTS = 1000  # looked through for those of the last second
SETTLE_SECONDS = 10.0  # how long devices wait for their last receipts
LEAD_SECONDS = 0.5  # from the word to begin to the first device
KEEP_ALIVE_SECONDS = 120
# A device's own token towards the gateway: the SDKs' default, or beyond the run. Its renewal is not what is shown.
DEVICE_TOKEN_SECONDS = 3600.0
SABOTAGE_AT = 0.6  # of the duration


class Sabotage(StrEnum):
    """What can be done to a run to see that it fails."""

    DROP = "drop"  # the hub closes one device's connection
    SILENCE = "silence"  # the hub's receipts to every device stay away
    KILL = "kill"  # the daemon is ended


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that is said or drawn after a run."""

    summary: Summary
    criteria: list[Criterion]
    seen: OurConnects
    connects_per_second: list[int]
    remarks: list[str]  # what may explain a bad run
    other: OtherFleet | None = None
    other_connects_per_second: list[int] | None = None


async def perform(settings: Settings, screen: Screen, sabotage: Sabotage | None = None) -> Outcome:
    """Run the demo. ChildFailed when one of its processes fails."""
    with stage(settings.devices, SystemClock().wall()) as ready:
        async with Children() as children, aiohttp.ClientSession() as http:
            return await _Show(settings, screen, sabotage, ready, children, http).perform()


@dataclass(frozen=True, slots=True)
class _Side:
    """A fleet, the hub that judges it, and what to call both."""

    title: str
    hub: Hub
    fleet: Fleet


class _Show:
    """The parts of one run."""

    def __init__(
        self,
        settings: Settings,
        screen: Screen,
        sabotage: Sabotage | None,
        ready: Stage,
        children: Children,
        http: aiohttp.ClientSession,
    ) -> None:
        self._settings = settings
        self._screen = screen
        self._sabotage = sabotage
        self._stage = ready
        self._children = children
        self._http = http
        self._clock = SystemClock()
        self._rss_before = 0
        self._rss_with_most = 0
        self._most_connected = 0
        self._next_account = 0.0
        self._reading = DaemonReading(0, "")

    async def perform(self) -> Outcome:
        settings = self._settings
        ours = _Side("through gatewayd", await self._start_hub("the hub"), self._fleet("fleet"))
        sides = [ours]
        if settings.compare:
            hub = await self._start_hub("the second hub")
            sides.append(_Side("as the SDKs do", hub, self._fleet("second fleet")))
        listener_port, metrics_port = free_ports(2)
        places = Places(
            hub_port=ours.hub.port,
            hub_authority=ours.hub.authority,
            listener_port=listener_port,
            listener_certificate=self._stage.gateway_certificate,
            metrics_port=metrics_port,
            devices_file=self._stage.devices_file,
            outbox_file=self._stage.directory / "outbox.db",
            clock_floor_file=self._stage.directory / "clock-floor",
        )
        self._screen.say("starting the daemon")
        gateway = await Gateway.start(settings, places, self._stage.directory, self._children, self._http)
        self._screen.say(f"starting {settings.devices} devices")
        await ours.fleet.start(self._plans(Policy.GATEWAY, listener_port, self._stage.gateway_authority))
        for other in sides[1:]:
            assert settings.compare is not None
            await other.fleet.start(self._plans(settings.compare, other.hub.port, other.hub.authority))
        self._rss_before = gateway.rss_kib()
        start = self._clock.monotonic() + LEAD_SECONDS
        for side in sides:
            await side.fleet.begin(start)
        await self._watch(start, gateway, sides)
        for side in sides:
            await side.fleet.finished()
        trouble = await gateway.end()
        return await self._account(start, gateway, trouble, sides)

    async def _start_hub(self, name: str) -> Hub:
        self._screen.say(f"starting {name}")
        return await Hub.start(name, self._stage, self._children, self._http)

    def _fleet(self, name: str) -> Fleet:
        return Fleet(name, self._children, self._stage.directory)

    def _plans(self, policy: Policy, port: int, authority: Path) -> list[FleetPlan]:
        settings = self._settings
        lifetime = settings.lifetime
        if policy is Policy.GATEWAY:
            lifetime = max(DEVICE_TOKEN_SECONDS, 2 * settings.duration)
        return [
            FleetPlan(
                host=LOOPBACK,
                port=port,
                authority=str(authority),
                hub=HUB_HOSTNAME,
                devices_file=str(self._stage.devices_file),
                process=process,
                processes=settings.fleet_processes,
                devices=settings.devices,
                policy=policy,
                token_lifetime=lifetime,
                rate=settings.rate,
                boot=settings.boot,
                duration=settings.duration,
                settle=SETTLE_SECONDS,
                keep_alive=KEEP_ALIVE_SECONDS,
            )
            for process in range(settings.fleet_processes)
        ]

    async def _watch(self, start: float, gateway: Gateway, sides: list[_Side]) -> None:
        """Look every second until the devices are done."""
        duration = self._settings.duration
        last = start + duration + SETTLE_SECONDS + LEAVE_SECONDS
        look = start
        while not all(side.fleet.is_done for side in sides):
            now = self._clock.monotonic()
            if now > last:
                raise ChildFailed("the fleet", f"was not done {now - start:.0f} s after its start")
            if now >= start + duration:
                for side in sides:
                    side.fleet.let_end()
            self._children.check()
            if self._sabotage and now >= start + SABOTAGE_AT * duration:
                sabotage, self._sabotage = self._sabotage, None
                await self._spoil(sabotage, gateway, sides[0].hub)
            await self._look(now - start, gateway, sides)
            look = max(look + LOOK_SECONDS, now)
            await asyncio.sleep(look - self._clock.monotonic())

    async def _look(self, elapsed: float, gateway: Gateway, sides: list[_Side]) -> None:
        try:
            self._reading = await gateway.read()
            if elapsed >= self._next_account:
                self._next_account = elapsed + max(LOOK_SECONDS / 2, self._settings.duration / LOOKS)
                for side in sides:
                    await side.hub.read()
        except NotThere:
            self._children.check()  # late is allowed, dead is not
        rss = gateway.rss_kib()
        if (connected := sides[0].fleet.progress.connected) >= self._most_connected:
            self._most_connected, self._rss_with_most = connected, rss
        glances = [self._glance(side, rss if side is sides[0] else None) for side in sides]
        self._screen.show(max(0.0, elapsed), self._settings.duration, glances)

    def _glance(self, side: _Side, rss: int | None) -> Glance:
        progress, hub, story = side.fleet.progress, side.hub, side.hub.story
        now = self._clock.monotonic()
        return Glance(
            title=side.title,
            devices=self._settings.devices,
            connected=progress.connected,
            at_hub=hub.open_connections,
            due=progress.due,
            sent=progress.sent,
            receipted=progress.receipted,
            messages_at_hub=hub.messages_distinct,
            connects_last_second=sum(at > now - 1.0 for at in story.connects[-RECENT_CONNECTS:]),
            connects_peak=hub.connects_peak,
            renewals=len(story.renewals),
            hub_errors=story.error_counts(),
            renewals_failed=None if rss is None else self._reading.renewals_failed,
            rss_kib=rss,
        )

    async def _spoil(self, sabotage: Sabotage, gateway: Gateway, hub: Hub) -> None:
        match sabotage:
            case Sabotage.DROP:
                await hub.drop_one()
            case Sabotage.SILENCE:
                await hub.withhold_receipts()
            case Sabotage.KILL:
                gateway.kill()

    async def _account(
        self, start: float, gateway: Gateway, trouble: str | None, sides: list[_Side]
    ) -> Outcome:
        settings, ours = self._settings, sides[0].hub
        await ours.read()
        story, log, result = ours.story, gateway.log, sides[0].fleet.result
        end = start + settings.duration
        renewals = within(story.renewals, start, end)
        # At the end all devices leave in one moment; what that does to a renewal is not part of the run.
        handovers = [handover for handover in log.handovers if start <= handover.at < end]
        summary = Summary(
            devices=settings.devices,
            duration_s=settings.duration,
            messages_sent=result.sent,
            messages_receipted=result.receipts,
            messages_at_hub=ours.messages_distinct,
            lost=await ours.count_missing(result.receipted),
            duplicates=ours.messages_duplicate,
            renewals=len(renewals),
            renewals_mean_per_s=round(len(renewals) / settings.duration, 2),
            renewals_peak_per_s=sliding_peak(renewals),
            renewal_gap_ms=spread_ms([handover.gap for handover in handovers] or story.gaps),
            renewal_drain_ms=spread_ms(handover.drain for handover in handovers),
            messages_scheduled=result.scheduled,
            hub_errors=ours.errors,
            connects_peak_per_s=ours.connects_peak,
            rss_kib_per_device=round(
                (self._rss_with_most - self._rss_before) / max(1, self._most_connected), 1
            ),
            engine=self._reading.engine,
        )
        times = [story.renewals_of[device_name(number)] for number in range(settings.devices)]
        proof = Proof(
            fewest_renewals=min(times),
            renewed_devices=sum(count >= RENEWALS_WANTED for count in times),
            unplanned_closes=ours.unplanned,
            unread_events=story.missed,
            unaccounted_messages=ours.messages_unaccounted,
        )
        criteria = verdict(summary, proof)
        if trouble:
            criteria.append(Criterion("the daemon ends when asked", trouble, passed=False))
        seconds = int(settings.duration)
        other = other_seconds = None
        for side in sides[1:]:
            other = await self._account_of_other(side)
            other_seconds = per_second(side.hub.story.connects, start, seconds)
        return Outcome(
            summary,
            criteria,
            OurConnects(len(story.connects), sliding_peak(story.returns)),
            per_second(story.connects, start, seconds),
            [*ours.remarks(), *(f"the daemon said: {line}" for line in log.warnings)],
            other,
            other_seconds,
        )

    async def _account_of_other(self, side: _Side) -> OtherFleet:
        hub, result = side.hub, side.fleet.result
        assert self._settings.compare is not None
        await hub.read()
        return OtherFleet(
            policy=self._settings.compare,
            messages_scheduled=result.scheduled,
            messages_sent=result.sent,
            messages_receipted=result.receipts,
            messages_at_hub=hub.messages_distinct,
            lost=await hub.count_missing(result.receipted),
            duplicates=hub.messages_duplicate,
            hub_errors=hub.errors,
            connects=len(hub.story.connects),
            connects_peak_per_s=hub.connects_peak,
            returns_peak_per_s=sliding_peak(hub.story.returns),
        )
