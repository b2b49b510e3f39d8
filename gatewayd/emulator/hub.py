"""The emulated hub: one registry, one event log, one front, and everything that can be done to it.

    hub = HubEmulator(registry, HubSettings("hub.test"), make_certificate("hub.test", wall=...))
    await hub.start("127.0.0.1", 0)
    ...
    await hub.stop()

Made and used on one event loop. What it promises: it refuses and closes what the service would, when the service would,
and says so in the log with the service's code and text; a connection's token is enforced within 100 ms of its expiry
plus the grace, as far as one core can: closing a socket costs some 0.3 ms, so a thousand tokens that end in the same
instant take longer. What it leaves out: AMQP, HTTPS, X.509 identities, message quotas, routing, files.
"""

from __future__ import annotations

import asyncio
import contextlib

from gatewayd.clock import Clock, SystemClock
from gatewayd.emulator.certificate import HubCertificate
from gatewayd.emulator.connect_counts import ConnectCounts
from gatewayd.emulator.connect_throttle import ConnectThrottle, OverRate
from gatewayd.emulator.event_log import EventLog, HubCode, Operation
from gatewayd.emulator.faults import FaultBoard, FaultKind
from gatewayd.emulator.front import Front
from gatewayd.emulator.hub_state import HubSettings, HubState
from gatewayd.emulator.ledger import Ledger
from gatewayd.emulator.mqtt_face import MqttFace
from gatewayd.emulator.rates import PerSecond
from gatewayd.emulator.registry import Registry
from gatewayd.emulator.send_throttle import SendThrottle
from gatewayd.emulator.service_side import ServiceSide
from gatewayd.emulator.summary import HubSummary, summarize
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.transport.stream import Stream, StreamOwner

# Longer than a stream waits for its peer's end (StreamLimits.linger): what is left then is held by a fault switch.
STOP_SECONDS = 3.0


class HubEmulator(ServiceSide):
    """A hub. `faults`, `events`, `ledger`, `registry`, `settings` and the throttles may be used while it runs."""

    def __init__(
        self,
        registry: Registry,
        settings: HubSettings,
        certificate: HubCertificate,
        *,
        clock: Clock | None = None,
        connects_per_second: int = 100,
        over_rate: OverRate = OverRate.DROP,
        tls13: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.clock = clock or SystemClock()
        self.certificate = certificate
        self._tls13 = tls13
        self._started_at = self.clock.monotonic()
        state = HubState(
            settings=settings,
            registry=registry,
            clock=self.clock,
            wheel=DeadlineWheel(loop.time, loop.call_at),
            throttle=ConnectThrottle(connects_per_second, over_rate),
            faults=FaultBoard(),
            events=EventLog(),
            ledger=Ledger(),
            counts=ConnectCounts(self._started_at),
            sends=PerSecond(self._started_at),
        )
        super().__init__(state)
        self._front = Front(loop, self._meet, self._admit, self._handshake_failed)

    # Its parts

    @property
    def registry(self) -> Registry:
        return self.state.registry

    @property
    def settings(self) -> HubSettings:
        return self.state.settings

    @property
    def events(self) -> EventLog:
        return self.state.events

    @property
    def ledger(self) -> Ledger:
        return self.state.ledger

    @property
    def faults(self) -> FaultBoard:
        return self.state.faults

    @property
    def throttle(self) -> ConnectThrottle:
        return self.state.throttle

    @property
    def send_throttle(self) -> SendThrottle:
        return self.state.send_throttle

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is the real one also when 0 was asked for."""
        return self._front.address

    @property
    def websocket_address(self) -> tuple[str, int] | None:
        """Where MQTT over WebSocket is served; None when it is not."""
        return self._front.websocket_address

    @property
    def open_identities(self) -> frozenset[str]:
        return frozenset(self.state.open)

    # Life

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, websocket_port: int | None = None
    ) -> None:
        context = self.certificate.server_context(tls13=self._tls13)
        await self._front.open(host, port, websocket_port, context)
        host, port = self.address
        self.state.log(Operation.HUB, cause="started", detail=f"{self.settings.hostname} on {host}:{port}")

    async def stop(self) -> None:
        """Close every connection and the listening sockets."""
        await self._front.close()
        self.state.empty.clear()
        if self._end_all("hub_stopped", "The hub was stopped"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self.state.empty.wait()
        self.state.wheel.close()

    # Faults that are verbs, and settings that must be told to open connections

    def arm(
        self,
        kind: FaultKind,
        *,
        identity: str | None = None,
        count: int | None = None,
        seconds: float = 3600.0,
        value: float = 0.0,
    ) -> int:
        """Switch a fault on; its number takes it back."""
        fault = self.faults.arm(
            kind, now=self.state.now(), identity=identity, count=count, seconds=seconds, value=value
        )
        return fault.number

    def drop(self, identity: str | None = None) -> int:
        """Close the connection of one identity, or all, as a failing network does: no packet, no code of its own."""
        names = list(self.state.open) if identity is None else [identity]
        connections = [self.state.open[name] for name in names if name in self.state.open]
        for connection in connections:
            connection.end(HubCode.CONNECTION_CLOSED, "dropped", "The connection was dropped", "fault")
        return len(connections)

    async def restart(self, seconds: float = 0.0, *, lose_sessions: bool = False) -> int:
        """Close every connection as an upgrade does, and refuse TCP for `seconds`.

        Stored sessions survive unless `lose_sessions`; the queues of cloud messages do in any case.
        """
        if seconds > 0:
            await self._front.be_away(seconds)
        ended = self._end_all("restart", "The hub has moved")
        if lose_sessions:
            for session in self.state.sessions.values():
                session.lose()
        return ended

    async def blackhole(self, seconds: float) -> None:
        """Accept TCP and never answer, for so long. Open connections stay."""
        await self._front.be_silent(seconds)

    async def rotate_certificate(self, certificate: HubCertificate) -> None:
        """Show another chain to new connections."""
        self.certificate = certificate
        await self._front.use(certificate.server_context(tls13=self._tls13))

    def set_grace(self, seconds: float) -> None:
        self.settings.grace_seconds = seconds
        self._plan_expiries()

    def set_clock_offset(self, seconds: float) -> None:
        """Let the hub's clock be ahead of ours by so much."""
        self.settings.clock_offset = seconds
        self._plan_expiries()

    # The account

    def summary(self) -> HubSummary:
        return summarize(self.state, self._started_at)

    # Within

    def _meet(self, _stream: Stream) -> StreamOwner:
        self.state.connections += 1
        return MqttFace(self.state, self.state.connections).owner

    def _admit(self, _host: str) -> bool:
        return self.state.take_fault(FaultKind.REFUSE_ALL, None) is None

    def _handshake_failed(self, _peer: tuple[str, int], error: Exception) -> None:
        self.state.handshakes_failed += 1
        self.state.log(Operation.HUB, cause="handshake_failed", detail=str(error))

    def _end_all(self, cause: str, text: str) -> int:
        connections = list(self.state.all)
        for connection in connections:
            connection.end(HubCode.HUB_MOVED, cause, text)
        return len(connections)

    def _plan_expiries(self) -> None:
        for connection in list(self.state.open.values()):
            connection.plan_expiry()
