"""The rooms the heartbeat and the status look at, under virtual time, with a hub that never answers a dial.

Real: conductor, hub sessions, key ring, budget, wheel, progress, metrics. The dialer waits until its attempt is given
up, so a wanted identity is being opened or backing off, for ever. `up` puts one at the hub by telling the conductor so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from gatewayd.clock import RELEASE_EPOCH_SECONDS, ClockWatch
from gatewayd.daemon.heartbeat import Heartbeat
from gatewayd.daemon.keyring import Keyring
from gatewayd.daemon.progress import Progress
from gatewayd.daemon.status import DaemonStatus
from gatewayd.flow.dispatch import Dispatch
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.flow.hub_tokens import HubTokens
from gatewayd.flow.lane import LaneBounds
from gatewayd.flow.renewal import Renewal
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.tokens.renewal_timetable import RenewalTimetable
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.transport.stream import Stream, StreamOwner
from gatewayd.upstream.budget import ConnectBudget
from gatewayd.upstream.mqtt_link import Carrier, MqttSettings
from gatewayd.upstream.session import HubSession
from tests.support.emulated_hub import HOSTNAME, device_key_text
from tests.support.virtual_loop import VirtualLoop

LIFETIME = 3600.0
WALL = RELEASE_EPOCH_SECONDS + 1_000_000.0


class LoopClock:
    """The loop's virtual time, and a wall clock that may be set."""

    def __init__(self, loop: VirtualLoop, wall: float) -> None:
        self._loop = loop
        self.offset = wall

    def monotonic(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return self._loop.time() + self.offset

    def asleep(self) -> float:
        return 0.0


class SilentDialer:
    """A hub that never answers."""

    async def dial(self, owner: StreamOwner) -> Stream:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets this event")


class DevicesHere:
    """The listener, as far as the status asks: who is connected."""

    def __init__(self) -> None:
        self.present: set[Identity] = set()

    def session(self, identity: Identity) -> object | None:
        return self if identity in self.present else None

    def __len__(self) -> int:
        return len(self.present)


class DaemonRooms:
    """The rooms. `looked` and `became_good` are what the heartbeat told."""

    def __init__(self, folder: Path, loop: VirtualLoop, wall: float, names: tuple[str, ...]) -> None:
        self.loop = loop
        self.here = DevicesHere()
        self.clock = LoopClock(loop, wall)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.progress = Progress()
        self.watch = ClockWatch(self.clock)
        self.looked: list[float] = []
        self.became_good = 0
        self._tasks: set[asyncio.Task[None]] = set()
        wheel = DeadlineWheel(loop.time, loop.call_at)
        devices = folder / "devices.csv"
        devices.write_text("".join(f"{name},{device_key_text(name)},\n" for name in names))
        self.keyring = Keyring(HOSTNAME, capacity=len(names))
        self.keyring.load(devices, check_permissions=False)
        self.budget: ConnectBudget[HubSession[Identity]] = ConnectBudget(10)
        self.conductor: Renewal[Identity] = Renewal(
            timetable=RenewalTimetable(0.7, 0.85),
            budget=self.budget,
            lifetime=LIFETIME,
            uniform=lambda low, high: high,
            trusted=self.watch.trusted,
        )
        self.hub_sessions = HubSessions(
            self.conductor,
            Dispatch(LaneBounds(), self.metrics, self.clock.monotonic),
            HubTokens(
                self.keyring.signer,
                self.keyring.by_identity,
                self.clock,
                lambda: self.watch.trusted,
                LIFETIME,
                self.metrics,
            ),
            Carrier(
                SilentDialer(),
                wheel,
                self.clock,
                lambda: self.watch.trusted,
                self._spawn,
                MqttSettings(HOSTNAME, "tests"),
            ),
            self.clock,
            wheel,
            self.metrics,
            linger=60.0,
        )
        self.heartbeat = Heartbeat(
            self.clock,
            self.watch,
            wheel,
            self.hub_sessions,
            self.progress,
            self.metrics,
            on_trusted=self._good,
            on_look=self.looked.append,
        )
        self.status = DaemonStatus(
            HOSTNAME,
            self.clock,
            self.watch,
            self.keyring,
            self.hub_sessions,
            self.budget,
            self.progress,
            self.here,
        )
        self.status.bind(self.metrics)

    def up(self, name: str) -> HubSession[Identity]:
        """Put an identity at the hub, with a token signed now."""
        identity, now = Identity.parse(name), self.clock.monotonic()
        self.conductor.want(identity, now)
        assert self.conductor.next_command(now) is not None
        self.conductor.connecting(identity, now)
        self.conductor.opened(identity, now, now + LIFETIME, now)
        session = self.conductor.session(identity)
        assert session is not None
        return session

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            self.loop.run_until_complete(asyncio.wait(self._tasks))
        self.keyring.close()

    def _good(self) -> None:
        self.became_good += 1

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self.loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@contextmanager
def daemon_rooms(folder: Path, *names: str, wall: float = WALL) -> Iterator[DaemonRooms]:
    """Rooms on a virtual loop of their own."""
    loop = VirtualLoop()
    try:
        rooms = DaemonRooms(folder, loop, wall, names)
        try:
            yield rooms
        finally:
            rooms.close()
    finally:
        loop.close()
