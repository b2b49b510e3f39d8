"""One simulated device: connects, keeps its token fresh by its policy, publishes by its schedule.

It keeps every message until it has the receipt and sends it again after a reconnect, so what it calls receipted is
what a device may forget. It promises to be no better than the SDKs: no stagger, no look at the fleet, and with the
policy CUT no thought of its token before the hub has acted.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gatewayd.clock import Clock
from gatewayd.demo.connection import ConnectFailed, Connection, ConnectionLost
from gatewayd.demo.identity import message_id, telemetry_topic, token, user_name
from gatewayd.demo.schedule import Schedule
from gatewayd.demo.settings import Policy

FIXED_SHARE = 0.85  # of the token's life: azure-iot-sdk-csharp and -java, over AMQP
# Pauses after a failed connect, doubled up to the last (azure-iot-sdk-csharp ExponentialBackoff: 100 ms to 10 s).
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
MAX_WAITING = 1000

Connect = Callable[[str, str, str], Awaitable[Connection]]


@dataclass(slots=True)
class Tally:
    """What the devices of one process have done so far."""

    connected: int = 0
    due: int = 0
    sent: int = 0
    receipted: int = 0
    connects: int = 0
    losses: int = 0
    dropped: int = 0
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Role:
    """What all devices of a fleet have in common."""

    hub: str
    policy: Policy
    token_lifetime: float


class Device:
    """One device."""

    def __init__(
        self,
        name: str,
        key: bytes,
        role: Role,
        schedule: Schedule,
        connect: Connect,
        clock: Clock,
        tally: Tally,
    ) -> None:
        self.name = name
        self.schedule = schedule
        self.receipted: set[int] = set()
        self.sent = 0
        self._key = key
        self._role = role
        self._connect = connect
        self._clock = clock
        self._tally = tally
        self._tasks = asyncio.TaskGroup()
        self._connection: Connection | None = None
        self._waiting: dict[int, asyncio.Task[None] | None] = {}  # message number -> its publish under way

    async def run(self, start: float) -> None:
        """Play the schedule, counted from `start` on the loop's clock, and stay connected until cancelled."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(start + self.schedule.boot - loop.time())
        async with self._tasks:
            self._tasks.create_task(self._stay_connected(), name=f"{self.name} connection")
            for number in range(self.schedule.count):
                await asyncio.sleep(start + self.schedule.due(number) - loop.time())
                self._offer(number)

    def _offer(self, number: int) -> None:
        self._tally.due += 1
        if len(self._waiting) >= MAX_WAITING:
            self._tally.dropped += 1
            return
        self._waiting[number] = None
        self.sent += 1  # until it is receipted it is sent at every chance
        self._tally.sent += 1
        if self._connection is not None:
            self._publish(self._connection, number)

    async def _stay_connected(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            lifetime = self._role.token_lifetime
            # As azure-iot-device counts it: whole seconds, cut.
            expiry = int(self._clock.wall() + lifetime)
            password = token(self._role.hub, self.name, self._key, expiry)
            try:
                connection = await self._connect(self.name, user_name(self._role.hub, self.name), password)
            except ConnectFailed as failure:
                self._tally.failures[str(failure)] += 1
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
                continue
            pause = FIRST_PAUSE_SECONDS
            self._tally.connects += 1
            await self._serve(connection, lifetime)

    async def _serve(self, connection: Connection, lifetime: float) -> None:
        """Until the connection is lost or the token is to be replaced."""
        self._tally.connected += 1
        self._connection = connection
        try:
            for number in sorted(self._waiting):
                self._publish(connection, number)
            leave_after = FIXED_SHARE * lifetime if self._role.policy is Policy.FIXED else None
            try:
                async with asyncio.timeout(leave_after):
                    await connection.lost()
                self._tally.losses += 1
            except TimeoutError:
                pass  # the token's time has come; the close below is the planned one
        finally:
            self._tally.connected -= 1
            self._connection = None
            self._end_publishes()
            await connection.close()

    def _publish(self, connection: Connection, number: int) -> None:
        self._waiting[number] = self._tasks.create_task(self._publish_one(connection, number))

    async def _publish_one(self, connection: Connection, number: int) -> None:
        mid = message_id(self.name, number)
        body = json.dumps({"number": number, "temperature": 20 + number % 7})
        try:
            await connection.publish(telemetry_topic(self.name, mid), body)
        except ConnectionLost:
            return  # it stays among the waiting and goes again
        del self._waiting[number]
        self.receipted.add(number)
        self._tally.receipted += 1

    def _end_publishes(self) -> None:
        for number, task in self._waiting.items():
            if task is not None:
                task.cancel()
                self._waiting[number] = None
