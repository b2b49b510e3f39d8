"""A real listener on a loopback port, with virtual time, known keys, and a traffic that records what it is told.

async with listener_rig(tls, "dev-01") as rig:
    device = await RawDevice.connect(rig, "dev-01")
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from gatewayd.downstream.admission import Admission, HeldBecause
from gatewayd.downstream.device_session import DeviceEnd, DeviceSession
from gatewayd.downstream.listener import Listener, ListenerPolicy
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.protocol.iothub.operations import Topic
from gatewayd.protocol.mqtt.packets import Publish
from gatewayd.protocol.mqtt.session import Session
from gatewayd.transport.tls_contexts import server_context
from tests.support.sas_keys import HUB, KeyRing, key_of, sign, username
from tests.support.tls_material import HUB as SERVER_NAME
from tests.support.tls_material import Tls
from tests.support.virtual_time import VirtualTime

WALL = 1_800_000_000.0
WITHIN_SECONDS = 10.0


@dataclass
class Left:
    """How a device left."""

    identity: str
    planned: bool
    end: DeviceEnd


@dataclass
class RecordingTraffic:
    """Takes everything and remembers it. With `receipts_at_once` each QoS 1 message is receipted when it comes."""

    receipts_at_once: bool = True
    grants_at_once: bool = True
    present: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    arrivals: list[str] = field(default_factory=list)
    messages: list[tuple[str, int, Publish]] = field(default_factory=list)
    requests: list[Topic] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    wills: list[tuple[str, bytes]] = field(default_factory=list)
    granted: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    subscribing: list[tuple[DeviceSession, int, tuple[tuple[str, int], ...]]] = field(default_factory=list)
    memories: dict[str, Session] = field(default_factory=dict)
    became_writable: list[str] = field(default_factory=list)
    deliveries: list[int] = field(default_factory=list)
    sessions: dict[str, DeviceSession] = field(default_factory=dict)
    on_message: Callable[[DeviceSession, Publish], None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def session_present(self, identity: Identity, clean_session: bool) -> bool:
        if clean_session:
            self.memories.pop(str(identity), None)
        return str(identity) in self.kept

    def memory(self, identity: Identity) -> Session:
        return self.memories.setdefault(str(identity), Session())

    def device_arrived(self, session: DeviceSession) -> None:
        who = str(session.identity)
        assert who not in self.present, "a device arrived twice without leaving"
        self.present.add(who)
        self.arrivals.append(who)
        self.sessions[who] = session
        self._changed.set()

    def telemetry(self, session: DeviceSession, packet_id: int, publish: Publish) -> None:
        assert str(session.identity) in self.present
        self.messages.append((str(session.identity), packet_id, publish))
        if self.on_message is not None:
            self.on_message(session, publish)
        if self.receipts_at_once and packet_id:
            session.receipt(packet_id)
        self._changed.set()

    def asked(self, session: DeviceSession, publish: Publish, topic: Topic) -> None:
        self.requests.append(topic)
        self.telemetry(session, publish.packet_id, publish)

    def subscribe(self, session: DeviceSession, packet_id: int, filters: tuple[tuple[str, int], ...]) -> None:
        self.subscribing.append((session, packet_id, filters))
        if self.grants_at_once:
            self.grant()
        self._changed.set()

    def grant(self) -> None:
        """Answer the oldest SUBSCRIBE that waits, each filter with the QoS it asked for."""
        session, packet_id, filters = self.subscribing.pop(0)
        self.granted.extend(name for name, _ in filters)
        session.grant(packet_id, tuple(qos for _, qos in filters))

    def unsubscribe(self, session: DeviceSession, packet_id: int, filters: tuple[str, ...]) -> None:
        self.given_up.extend(filters)
        session.confirm_unsubscribe(packet_id)
        self._changed.set()

    def delivered(self, session: DeviceSession, packet_id: int) -> None:
        self.deliveries.append(packet_id)
        self._changed.set()

    def writable(self, session: DeviceSession) -> None:
        self.became_writable.append(str(session.identity))
        self._changed.set()

    def device_left(self, session: DeviceSession, planned: bool, end: DeviceEnd) -> None:
        self.present.remove(str(session.identity))
        self.left.append(Left(str(session.identity), planned, end))
        if session.owed_will is not None:
            self.wills.append((session.owed_will.topic, session.owed_will.payload))
        self._changed.set()

    async def until(self, condition: Callable[[RecordingTraffic], bool]) -> None:
        """Wait, bounded, until something that was told makes `condition` true."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


@dataclass
class Rig:
    """The listener and everything a device must know to meet it."""

    listener: Listener
    traffic: RecordingTraffic
    time: VirtualTime
    keys: KeyRing
    tls: Tls
    registry: CollectorRegistry
    unready: dict[str, HeldBecause]
    clock_trusted: bool = True
    host: str = "127.0.0.1"
    hostname: str = SERVER_NAME

    @property
    def port(self) -> int:
        return self.listener.port

    def client_context(self) -> ssl.SSLContext:
        return self.tls.their_client()

    def username(self, identity: str) -> str:
        return username(Identity.parse(identity))

    def token(self, identity: str, lifetime: float = 3600.0, key: bytes | None = None) -> str:
        expiry = self.time.clock.wall() + lifetime
        return sign(key or key_of(identity), Identity.parse(identity), expiry).decode()

    def refusals(self) -> Counter[str]:
        """gatewayd_device_refusals_total by reason, those above 0."""
        return self._counts("gatewayd_device_refusals_total", "reason")

    def disconnects(self) -> Counter[str]:
        """gatewayd_disconnects_total of the device side by reason, those above 0."""
        return self._counts("gatewayd_disconnects_total", "reason", side="device")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, bounded, while the loop turns, until `condition` holds."""
        async with asyncio.timeout(WITHIN_SECONDS):
            # What is waited for lies inside the listener, which has no event to tell a test.
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def _counts(self, name: str, label: str, **having: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name == name and having.items() <= sample.labels.items() and sample.value:
                    found[sample.labels[label]] += int(sample.value)
        return found


@asynccontextmanager
async def listener_rig(
    tls: Tls,
    *identities: str,
    policy: ListenerPolicy | None = None,
    connects_per_device: int = 30,
    host: str = "127.0.0.1",
    port: int = 0,
    wall: float = WALL,
) -> AsyncIterator[Rig]:
    """A listener that knows `identities`, each with two keys: `key_of(id)` and `key_of(id + " secondary")`.

    On another `host` than the usual one its certificate is for that address.
    """
    time = VirtualTime(wall)
    keys = KeyRing({Identity.parse(name): (key_of(name), key_of(f"{name} secondary")) for name in identities})
    traffic = RecordingTraffic()
    registry = CollectorRegistry()
    unready: dict[str, HeldBecause] = {}
    admission = Admission(
        keys,
        frozenset({HUB, SERVER_NAME}),
        connects_per_device_per_minute=connects_per_device,
        unready=lambda identity: unready.get(str(identity)),
    )
    listener = Listener(
        asyncio.get_running_loop(),
        tls.our_server() if host == "127.0.0.1" else server_context(tls.authority.server(host).chain),
        admission,
        traffic,
        wheel=time.wheel,
        clock=time.clock,
        clock_trusted=lambda: rig.clock_trusted,
        metrics=Metrics(registry),
        policy=policy or ListenerPolicy(),
    )
    rig = Rig(listener, traffic, time, keys, tls, registry, unready, host=host)
    await listener.start(host, port)
    try:
        yield rig
    finally:
        await listener.drain(0.0)
        assert not traffic.present
