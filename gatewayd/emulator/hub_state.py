"""What all connections of one emulated hub share: registry, log, ledger, faults, settings, who is connected."""

from __future__ import annotations

from asyncio import Event, Future
from dataclasses import dataclass, field
from typing import Protocol

from gatewayd.clock import Clock
from gatewayd.emulator.cloud_queue import LOCK_SECONDS
from gatewayd.emulator.connect_counts import ConnectCounts
from gatewayd.emulator.connect_throttle import ConnectThrottle
from gatewayd.emulator.event_log import EventLog, HubCode, HubEvent, Operation
from gatewayd.emulator.faults import FaultBoard, FaultKind
from gatewayd.emulator.ledger import Ledger
from gatewayd.emulator.rates import PerSecond
from gatewayd.emulator.registry import Registry
from gatewayd.emulator.send_throttle import SendThrottle
from gatewayd.emulator.stored_session import StoredSession
from gatewayd.emulator.twin import Twin
from gatewayd.emulator.watch import Watch
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.transport.deadline_wheel import DeadlineWheel

# The service's D2C limit, topic properties and body together (Send device-to-cloud messages, Microsoft).
MAX_MESSAGE_BYTES = 256 * 1024


@dataclass(slots=True)
class HubSettings:
    """What may be changed while the hub runs.

    `skew_seconds` is how long after its expiry a token still opens a new connection (the service: 5 minutes),
    `grace_seconds` how long it is left on an open one (the service: 5 to 10 minutes). `clock_offset` is what the hub's
    clock is ahead of ours. `lock_seconds` is how long a device has a cloud message to itself. Without `keep_packet_ids`
    what a kept session had in flight comes again as new messages, as from a hub whose front end has changed.
    """

    hostname: str
    skew_seconds: float = 300.0
    grace_seconds: float = 600.0
    clock_offset: float = 0.0
    close_on_foreign_filter: bool = False
    lock_seconds: float = LOCK_SECONDS
    keep_packet_ids: bool = True


class DeviceConnection(Protocol):
    """What the hub asks of a connection."""

    def end(self, code: HubCode, cause: str, text: str = "", detail: str = "") -> None: ...
    def plan_expiry(self) -> None: ...
    def send_cloud_messages(self) -> None: ...
    def publish(self, topic_filter: str, topic: str, payload: bytes) -> bool: ...


@dataclass(slots=True)
class HubState:
    """The parts, and the few lines every user of them would repeat."""

    settings: HubSettings
    registry: Registry
    clock: Clock
    wheel: DeadlineWheel
    throttle: ConnectThrottle
    faults: FaultBoard
    events: EventLog
    ledger: Ledger
    counts: ConnectCounts
    sends: PerSecond
    send_throttle: SendThrottle = field(default_factory=SendThrottle)
    sessions: dict[str, StoredSession] = field(default_factory=dict)
    twins: dict[str, Twin] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    open: dict[str, DeviceConnection] = field(default_factory=dict)  # accepted, by identity
    all: set[DeviceConnection] = field(default_factory=set)  # from the TLS handshake to the end of the stream
    empty: Event = field(default_factory=Event)  # set whenever the last of `all` has gone
    # By request id: who was called, and its answer.
    method_calls: dict[str, tuple[str, Future[tuple[int, bytes]]]] = field(default_factory=dict)
    reached: Watch[str] = field(default_factory=Watch)  # told who has connected or subscribed
    connections: int = 0  # TLS connections so far; each has its number
    without_connect: int = 0  # those that ended before a CONNECT was read
    handshakes_failed: int = 0

    def wall(self) -> float:
        """The hub's own idea of the time."""
        return self.clock.wall() + self.settings.clock_offset

    def now(self) -> float:
        return self.clock.monotonic()

    def forget(self, connection: DeviceConnection) -> None:
        """The stream of a connection has ended."""
        self.all.discard(connection)
        if not self.all:
            self.empty.set()

    def session(self, name: str) -> StoredSession:
        return self.sessions.setdefault(name, StoredSession())

    def twin(self, name: str) -> Twin:
        return self.twins.setdefault(name, Twin())

    def take_fault(self, kind: FaultKind, name: str | None) -> float | None:
        """The value of an armed fault that concerns `name`, counted as used; None when there is none."""
        fault = self.faults.take(kind, name, self.now())
        return None if fault is None else fault.value

    def log(
        self,
        operation: Operation,
        code: HubCode = HubCode.NONE,
        *,
        cause: str = "",
        identity: str = "",
        text: str = "",
        detail: str = "",
        planned: bool | None = None,
        connection: int = 0,
    ) -> HubEvent:
        return self.events.append(
            operation,
            code,
            cause=cause,
            identity=identity,
            text=text,
            detail=detail,
            planned=planned,
            connection=connection,
            wall=self.wall(),
            monotonic=self.now(),
        )
