"""Several identities at the emulated hub, kept there by the real conductor, signer, dialer and lanes.

Time on our side moves only by `pass_seconds`; sockets are real. Devices are stand-ins that offer messages and take
receipts, or real ones through `listening`.
"""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from gatewayd.backoff import BackoffPolicy
from gatewayd.clock import SystemClock
from gatewayd.downstream.admission import Admission
from gatewayd.downstream.listener import Listener, ListenerPolicy
from gatewayd.flow.dispatch import Dispatch
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.flow.hub_tokens import HubTokens, KeyIndices
from gatewayd.flow.intake import Intake
from gatewayd.flow.lane import LaneBounds
from gatewayd.flow.methods import Methods
from gatewayd.flow.renewal import Renewal
from gatewayd.flow.subscriptions import Subscriptions
from gatewayd.flow.twins import Twins
from gatewayd.flow.way_back import WayBack
from gatewayd.message import Identity, Telemetry
from gatewayd.metrics import Metrics
from gatewayd.protocol.iothub.sas import resource
from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.renewal_timetable import RenewalTimetable
from gatewayd.tokens.signer import Signer
from gatewayd.transport.worker import Worker
from gatewayd.upstream.budget import ConnectBudget
from gatewayd.upstream.dialer import Dialer, Endpoint
from gatewayd.upstream.handover import Mode, Stage
from gatewayd.upstream.mqtt_link import Carrier, MqttSettings
from gatewayd.upstream.mqtt_session import MqttHubSession
from gatewayd.upstream.session import HubSession, SessionPolicy, State
from tests.support.delay_line import DelayLine
from tests.support.emulated_hub import DeskHub, device_key, emulated_hub
from tests.support.kept_subscriptions import KeptSubscriptions
from tests.support.sas_keys import KeyRing, key_of, sign, username
from tests.support.tls_material import HUB as LISTENER_NAME
from tests.support.tls_material import Tls
from tests.support.virtual_time import VirtualTime

WITHIN_SECONDS = 10.0
LIFETIME = 3600.0
LINGER = 60.0


class Device:
    """A device that is present: offers numbered messages, takes receipts."""

    def __init__(self, fleet: HubFleetRig, name: str) -> None:
        self.identity = Identity.parse(name)
        self.receipts: list[int] = []
        self.offered = 0
        self._fleet = fleet

    def offer(self, count: int = 1, *, qos: int = 1) -> None:
        lane = self._fleet.dispatch.lane(self.identity)
        for _ in range(count):
            self.offered += 1
            topic = f"devices/{self.identity.device_id}/messages/events/"
            message = Telemetry(self.identity, topic, str(self.offered).encode(), qos)
            if qos:
                self._fleet.dispatch.offered(lane, self.offered, message, dup=False)
            else:
                self._fleet.dispatch.offered_qos0(lane, message)

    def leave(self, *, comes_back: bool = True) -> None:
        self._fleet.dispatch.device_left(
            self._fleet.dispatch.lane(self.identity), self, comes_back=comes_back
        )
        self._fleet.hub_sessions.device_left(self.identity)

    def receipt(self, packet_id: int) -> None:
        self.receipts.append(packet_id)

    def pause_reading(self) -> None:
        """It offers when the test says so."""

    def resume_reading(self) -> None:
        """As above."""


class HubFleetRig:
    """The hub, the line to it, and everything of ours on this side."""

    def __init__(self, desk: DeskHub, line: DelayLine, parts: _Parts) -> None:
        self.desk = desk
        self.hub = desk.hub
        self.line = line
        self.time = parts.time
        self.registry = parts.registry
        self.metrics = parts.metrics
        self.tokens = parts.tokens
        self.budget = parts.budget
        self.conductor = parts.conductor
        self.dispatch = parts.dispatch
        self.hub_sessions = parts.hub_sessions
        self.subscriptions = parts.subscriptions
        self.way_back = parts.way_back

    def arrive(self, name: str) -> Device:
        device = Device(self, name)
        self.dispatch.device_arrived(self.dispatch.lane(device.identity), device)
        self.hub_sessions.device_arrived(device.identity)
        return device

    async def at_hub(self, *names: str) -> list[Device]:
        """Devices, each with its session up."""
        devices = [self.arrive(name) for name in names]
        await self.until_state(State.UP, *names)
        return devices

    def state(self, name: str) -> State:
        return self.conductor.state(Identity.parse(name))

    async def until_state(self, state: State, *names: str) -> None:
        await self.until(lambda: all(self.state(name) is state for name in names))

    async def until_down(self, name: str) -> None:
        await self.until(lambda: self.state(name) in {State.BACKOFF, State.PARKED, State.STOPPED})

    async def until_receipted(self, *devices: Device) -> None:
        await self.until(lambda: all(len(device.receipts) == device.offered for device in devices))
        for device in devices:
            assert device.receipts == list(range(1, device.offered + 1))

    def pass_seconds(self, seconds: float) -> None:
        self.time.pass_seconds(seconds)

    async def live_through(self, seconds: float, *, step: float = 1.0) -> None:
        """Let time pass in steps; after each of them nobody waits for a socket any more."""
        for _ in range(int(seconds / step)):
            self.pass_seconds(step)
            await self.until(lambda: not any(map(self._awaits_the_hub, self.hub_sessions._sessions.values())))

    async def renew_all(self) -> None:
        """Until every session that is up has been renewed once more."""
        before = self.renewals("ok")
        wanted = before + len(self.hub.open_identities)
        async with asyncio.timeout(WITHIN_SECONDS):
            while self.renewals("ok") < wanted:
                await self.live_through(20.0, step=5.0)

    def renewals(self, result: str) -> int:
        return int(self.value("gatewayd_token_renewals_total", transport="mqtt", result=result))

    def _awaits_the_hub(self, session: MqttHubSession) -> bool:
        attempt, link = session._attempt, session._link
        if attempt is not None and attempt.stage is not Stage.POISED:
            return True
        return link is not None and link._automaton._answer_by is not None

    def value(self, name: str, **labels: str) -> float:
        """A metric's sample; 0 for a series that is not there."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def errors(self) -> dict[tuple[str, str], int]:
        """gatewayd_hub_errors_total by code and cause, those above 0."""
        return self._samples("gatewayd_hub_errors_total", "code", "cause")

    def disconnects(self) -> dict[tuple[str, str], int]:
        """gatewayd_disconnects_total of the hub side by planned and reason, those above 0."""
        return self._samples("gatewayd_disconnects_total", "planned", "reason", side="hub")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, bounded, while the loop turns, until `condition` holds."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not condition():  # noqa: ASYNC110 - what is waited for lies inside, and nothing tells of it
                await asyncio.sleep(0.0005)

    def _samples(self, name: str, *keys: str, **having: str) -> dict[tuple[str, str], int]:
        found = {}
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name == name and having.items() <= sample.labels.items() and sample.value:
                    found[sample.labels[keys[0]], sample.labels[keys[1]]] = int(sample.value)
        return found


class _Parts:
    """What assembly builds for the hub side."""

    def __init__(
        self,
        desk: DeskHub,
        names: tuple[str, ...],
        dialer: Dialer,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        *,
        mode: Mode,
        budget: int,
        trusted: Callable[[], bool],
        policy: SessionPolicy,
    ) -> None:
        self.time = VirtualTime(SystemClock().wall())
        clock = self.time.clock
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.table = KeyTable(max(1, 2 * len(names)))
        self.keys: dict[Identity, KeyIndices] = {}
        for name in names:
            identity = Identity.parse(name)
            audience = resource(desk.hostname, identity)
            self.keys[identity] = KeyIndices(
                *(
                    self.table.add(name, bytearray(base64.b64encode(device_key(owner))), audience)
                    for owner in (name, f"{name}:2")
                )
            )
        self.tokens = HubTokens(Signer(self.table), self.keys, clock, trusted, LIFETIME, self.metrics)
        self.budget: ConnectBudget[HubSession[Identity]] = ConnectBudget(budget)
        self.conductor: Renewal[Identity] = Renewal(
            timetable=RenewalTimetable(0.7, 0.85),
            budget=self.budget,
            lifetime=LIFETIME,
            uniform=random.Random(7).uniform,
            policy=policy,
        )
        self.dispatch = Dispatch(LaneBounds(), self.metrics, clock.monotonic)
        settings = MqttSettings(desk.hostname, "gatewayd/test", mode=mode)
        self.hub_sessions = HubSessions(
            self.conductor,
            self.dispatch,
            self.tokens,
            Carrier(dialer, self.time.wheel, clock, trusted, spawn, settings),
            clock,
            self.time.wheel,
            self.metrics,
            linger=LINGER,
        )
        self.subscriptions = KeptSubscriptions()
        self.way_back = WayBack(
            Subscriptions(self.subscriptions),
            self.time.wheel,
            clock.monotonic,
            self.metrics,
            opening=self.hub_sessions.opens_soon,
            methods=lambda ways: Methods(ways, clock, self.time.wheel, self.metrics),
            twins=lambda ways: Twins(ways, clock, self.time.wheel, self.metrics, None, timeout=10.0),
        )
        self.hub_sessions.way_back = self.way_back


@asynccontextmanager
async def hub_fleet_rig(
    *names: str,
    strangers: tuple[str, ...] = (),
    mode: Mode = Mode.STRICT,
    budget: int = 50,
    trusted: Callable[[], bool] = lambda: True,
    **hub: Any,
) -> AsyncIterator[HubFleetRig]:
    """Identities that both sides know; the hub does not know `strangers`."""
    loop = asyncio.get_running_loop()
    troubles: list[str] = []
    loop.set_exception_handler(lambda _loop, context: troubles.append(str(context)))
    worker = Worker(loop)
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = loop.create_task(work, name=name)
        tasks.add(task)
        return task

    async with emulated_hub(*names, **hub) as desk, await DelayLine.open(desk.port) as line:
        dialer = Dialer(loop, Endpoint("127.0.0.1", line.port, desk.hostname), desk.client_context(), worker)
        parts = _Parts(
            desk,
            (*names, *strangers),
            dialer,
            spawn,
            mode=mode,
            budget=budget,
            trusted=trusted,
            policy=SessionPolicy(retry=BackoffPolicy(first=1.0, ceiling=60.0)),
        )
        rig = HubFleetRig(desk, line, parts)
        try:
            yield rig
            rig.hub.faults.clear()
            rig.hub_sessions.stop()
            await rig.until(lambda: rig.hub_sessions.open_sessions == 0)
            assert len(rig.conductor) == 0
        finally:
            line.reset()
            parts.table.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await worker.stop(within=WITHIN_SECONDS)
    assert not troubles, troubles
    assert [task for task in tasks if not task.cancelled() and task.exception()] == []


class ListenerDesk:
    """What a real device must know to meet our listener."""

    host = "127.0.0.1"
    hostname = LISTENER_NAME

    def __init__(self, fleet: HubFleetRig, listener: Listener, tls: Tls) -> None:
        self._fleet = fleet
        self._listener = listener
        self._tls = tls

    @property
    def port(self) -> int:
        return self._listener.port

    def client_context(self) -> ssl.SSLContext:
        return self._tls.their_client()

    def username(self, identity: str) -> str:
        return username(Identity.parse(identity), self._fleet.desk.hostname)

    def token(self, identity: str, lifetime: float = 3600.0) -> str:
        expiry = self._fleet.time.clock.wall() + lifetime
        key = key_of(identity)
        return sign(key, Identity.parse(identity), expiry, host=self._fleet.desk.hostname).decode()


@asynccontextmanager
async def listening(fleet: HubFleetRig, tls: Tls, *names: str) -> AsyncIterator[ListenerDesk]:
    """A real listener whose traffic is a real intake of the fleet."""
    listener = Listener(
        asyncio.get_running_loop(),
        tls.our_server(),
        Admission(
            KeyRing({Identity.parse(name): (key_of(name),) for name in names}),
            frozenset({fleet.desk.hostname}),
            connects_per_device_per_minute=60,
        ),
        Intake(fleet.dispatch, fleet.hub_sessions, fleet.way_back, fleet.metrics),
        wheel=fleet.time.wheel,
        clock=fleet.time.clock,
        clock_trusted=lambda: True,
        metrics=fleet.metrics,
        policy=ListenerPolicy(),
    )
    await listener.start("127.0.0.1", 0)
    try:
        yield ListenerDesk(fleet, listener, tls)
    finally:
        await listener.drain(0.0)
