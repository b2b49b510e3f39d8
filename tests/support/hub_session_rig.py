"""One hub session of ours at the emulated hub: a real dialer through a line with faults, time that a test moves, and an
owner that writes down what it is told and knows what it may be told.

    async with hub_session_rig() as rig:
        await rig.open()
        rig.owner.offer(3)
        rig.session.renew()
        await rig.until_told("renewed")

On leaving, nothing may have been told out of turn, and no exception may have reached the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gatewayd.clock import Clock, SystemClock
from gatewayd.emulator.event_log import HubCode, HubEvent, Operation
from gatewayd.errors import GatewaydError
from gatewayd.message import Identity, Telemetry
from gatewayd.protocol.iothub.refusals import Inference
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.transport.tls_stream import StreamLimits
from gatewayd.transport.worker import Worker
from gatewayd.upstream.dialer import Dialer, Endpoint
from gatewayd.upstream.handover import HandoverTimeouts, Mode, Stage
from gatewayd.upstream.hub_message import HubMessage
from gatewayd.upstream.mqtt_link import Carrier, MqttSettings
from gatewayd.upstream.mqtt_session import MqttHubSession
from gatewayd.upstream.outcome import Failure, HandoverReport, SignedToken
from tests.support.delay_line import DelayLine, Flow
from tests.support.emulated_hub import DeskHub, device_key, emulated_hub
from tests.support.virtual_time import VirtualTime

WITHIN_SECONDS = 10.0
DEVICE = "dev-01"

# What an owner that has asked for something may hear, and where that leads. `ended`, `acknowledged`, `writable`,
# `received` and `subscribed` may come at any time.
LEGAL: Final = {
    ("opening", "opened"): "up",
    ("opening", "open_failed"): "down",
    ("renewing", "renewed"): "up",
    ("renewing", "renewal_failed"): "up",
    ("renewing", "lost"): "down",
    ("up", "lost"): "down",
    ("closing", "closed"): "down",
    ("opening", "connecting"): "opening",
    ("renewing", "connecting"): "renewing",
    ("opening", "sign"): "opening",
    ("renewing", "sign"): "renewing",
}
OUTCOMES: Final = frozenset({"opened", "open_failed", "renewed", "renewal_failed", "lost", "closed"})


class Time(Protocol):
    """Where a session's time comes from."""

    @property
    def clock(self) -> Clock: ...
    @property
    def wheel(self) -> DeadlineWheel: ...


class RealTime:
    """The machine's clock and the loop's timers."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.clock: Clock = SystemClock()
        self.wheel = DeadlineWheel(loop.time, loop.call_at)


@dataclass(frozen=True, slots=True)
class Ended:
    """An accepted connection is over."""

    planned: bool
    reason: str
    inference: Inference | None

    @property
    def code(self) -> int | None:
        return None if self.inference is None else self.inference.refusal.code


class RecordingOwner:
    """Signs, publishes what it was offered as soon as it may, and writes everything down."""

    def __init__(self, desk: DeskHub, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self.state = "down"
        self.told: list[str] = []
        self.faults: list[str] = []
        self.failures: list[Failure] = []
        self.reports: list[HandoverReport] = []
        self.ends: list[Ended] = []
        self.tokens: list[SignedToken] = []
        self.lifetime = 3600.0
        self.key: bytes | None = None  # another key than the device's own
        self.sign_error: GatewaydError | None = None
        self.reactions: dict[str, Callable[[MqttHubSession], None]] = {}
        self.waiting: deque[Telemetry] = deque()
        self.unacknowledged: deque[int] = deque()
        self.offered = 0
        self.acknowledgements = 0
        self.messages: list[HubMessage] = []

    def outcomes(self) -> list[str]:
        return [what for what in self.told if what in OUTCOMES]

    def offer(self, session: MqttHubSession, count: int, *, qos: int = 1, size: int = 0) -> None:
        """Messages to publish; each carries its number."""
        for _ in range(count):
            number = str(self.offered)
            topic = f"devices/{session.identity.device_id}/messages/events/%24.mid={number}"
            payload = number.encode().ljust(size, b" ")
            self.waiting.append(Telemetry(session.identity, topic, payload, qos))
            self.offered += 1
        self._pump(session)

    # What the session says

    def sign(self, session: MqttHubSession) -> SignedToken:
        self._hear("sign", session)
        if self.sign_error is not None:
            raise self.sign_error
        key = self.key or device_key(f"{session.identity}:2" if session.secondary else str(session.identity))
        text = self._desk.token(str(session.identity), self.lifetime, key=key)
        now = self._clock.monotonic()
        token = SignedToken(text.encode(), now, now + self.lifetime)
        self.tokens.append(token)
        return token

    def connecting(self, session: MqttHubSession) -> None:
        self._hear("connecting", session)

    def opened(self, session: MqttHubSession, token: SignedToken) -> None:
        assert token is self.tokens[-1]
        self._hear("opened", session)
        self._pump(session)

    def open_failed(self, session: MqttHubSession, failure: Failure) -> None:
        self.failures.append(failure)
        self._hear("open_failed", session)

    def renewed(self, session: MqttHubSession, token: SignedToken, report: HandoverReport) -> None:
        assert token is self.tokens[-1]
        self.reports.append(report)
        self._hear("renewed", session)

    def renewal_failed(self, session: MqttHubSession, failure: Failure) -> None:
        self.failures.append(failure)
        self._hear("renewal_failed", session)
        self._pump(session)

    def lost(self, session: MqttHubSession, failure: Failure) -> None:
        self.failures.append(failure)
        self._hear("lost", session)

    def closed(self, session: MqttHubSession) -> None:
        self._hear("closed", session)

    def ended(self, session: MqttHubSession, planned: bool, reason: str, inference: Inference | None) -> None:
        self.told.append("ended")
        self.ends.append(Ended(planned, reason, inference))

    def acknowledged(self, session: MqttHubSession, handle: int) -> None:
        if not self.unacknowledged or self.unacknowledged[0] != handle:
            self.faults.append(f"{handle} acknowledged, awaited are {list(self.unacknowledged)}")
            return
        self.unacknowledged.popleft()
        self.acknowledgements += 1
        self._pump(session)

    def writable(self, session: MqttHubSession) -> None:
        self.told.append("writable")
        self._pump(session)

    def received(self, session: MqttHubSession, message: HubMessage) -> None:
        self.messages.append(message)

    def subscribed(self, session: MqttHubSession) -> None:
        self.told.append("subscribed")

    def _hear(self, what: str, session: MqttHubSession) -> None:
        self.told.append(what)
        then = LEGAL.get((self.state, what))
        if then is None:
            self.faults.append(f"{what} while {self.state}")
            return
        self.state = then
        reaction = self.reactions.pop(what, None)
        if reaction is not None:
            reaction(session)

    def _pump(self, session: MqttHubSession) -> None:
        while self.waiting and session.can_publish:
            message = self.waiting.popleft()
            handle = session.publish(message)
            if message.qos:
                self.unacknowledged.append(handle)


class HubSessionRig:
    """The session and everything around it."""

    def __init__(
        self, desk: DeskHub, line: DelayLine, time: Time, owner: RecordingOwner, session: MqttHubSession
    ) -> None:
        self.desk = desk
        self.hub = desk.hub
        self.line = line
        self.time = time
        self.owner = owner
        self.session = session

    # What the owner asks

    async def open(self) -> None:
        self.ask_open()
        await self.until_told("opened")

    async def open_again(self) -> None:
        """Open, at a hub that serves and without the faults of before."""
        self.hub.faults.clear()
        if self.hub._front._mqtt._server is None:
            await self.hub.blackhole(0.001)
            await self.until(lambda: self.hub._front._mqtt._server is not None)
        before = self.owner.told.count("opened")
        self.ask_open()
        await self.until_told("opened", before + 1)

    def ask_open(self) -> None:
        self.owner.state = "opening"
        self.session.open()

    def renew(self, not_before: float = 0.0) -> None:
        self.owner.state = "renewing"
        self.session.renew(not_before)

    def close(self, reason: str = "linger") -> None:
        self.owner.state = "closing"
        self.session.close(reason)

    # What is going on

    @property
    def stage(self) -> Stage | None:
        """Of the attempt that runs."""
        return self.session._attempt.stage if self.session._attempt else None

    @property
    def old(self) -> Flow:
        """The line's flow of the first connection."""
        return self.line.flows[0]

    @property
    def new(self) -> Flow:
        """The line's flow of the newest connection."""
        return self.line.flows[-1]

    def pass_seconds(self, seconds: float) -> None:
        assert isinstance(self.time, VirtualTime)
        self.time.pass_seconds(seconds)

    def hub_log(self, operation: Operation | None = None) -> list[HubEvent]:
        return [
            event
            for event in self.hub.events.since()
            if event.identity == DEVICE and (operation is None or event.operation is operation)
        ]

    def hub_errors(self) -> dict[int, int]:
        """What the hub held against us, by code."""
        return {
            int(code): count for code, count in self.hub.events.errors.items() if code is not HubCode.NONE
        }

    def numbers_at_hub(self) -> list[int]:
        """The numbers of the messages at the hub, in the order of their first coming."""
        return list(dict.fromkeys(int(message.payload) for message in self.hub.ledger.of(DEVICE)))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, bounded, while the loop turns, until `condition` holds."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while not condition():  # noqa: ASYNC110 - what is waited for lies inside, and nothing tells of it
                await asyncio.sleep(0.0005)

    async def until_told(self, what: str, times: int = 1) -> None:
        await self.until(lambda: self.owner.told.count(what) >= times)

    async def until_stage(self, stage: Stage) -> None:
        await self.until(lambda: self.stage is stage)

    async def until_settled(self) -> None:
        """Until everything offered is acknowledged, and nothing of it is lost or out of order at the hub."""
        await self.until(lambda: not self.owner.waiting and not self.owner.unacknowledged)
        assert self.numbers_at_hub() == list(range(self.owner.offered))


@asynccontextmanager
async def hub_session_rig(
    *,
    mode: Mode = Mode.STRICT,
    one_way: float = 0.0,
    real_time: bool = False,
    window: int = 16,
    clock_trusted: Callable[[], bool] = lambda: True,
    timeouts: HandoverTimeouts | None = None,
    stream_limits: StreamLimits | None = None,
    limits: Limits | None = None,
    **hub: Any,
) -> AsyncIterator[HubSessionRig]:
    """A session of DEVICE. Its deadlines come by `pass_seconds` unless `real_time` is asked for."""
    loop = asyncio.get_running_loop()
    troubles: list[str] = []
    loop.set_exception_handler(lambda _loop, context: troubles.append(str(context)))
    time: Time = RealTime() if real_time else VirtualTime(SystemClock().wall())
    worker = Worker(loop)
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = loop.create_task(work, name=name)
        tasks.add(task)
        return task

    async with emulated_hub(DEVICE, **hub) as desk, await DelayLine.open(desk.port, one_way=one_way) as line:
        dialer = Dialer(
            loop,
            Endpoint("127.0.0.1", line.port, desk.hostname),
            desk.client_context(),
            worker,
            limits=stream_limits,
        )
        settings = MqttSettings(
            desk.hostname,
            "gatewayd/test",
            window=window,
            mode=mode,
            timeouts=timeouts or HandoverTimeouts(),
            limits=limits or Limits(),
        )
        carrier = Carrier(dialer, time.wheel, time.clock, clock_trusted, spawn, settings)
        owner = RecordingOwner(desk, time.clock)
        session = MqttHubSession(Identity.parse(DEVICE), carrier, owner)
        rig = HubSessionRig(desk, line, time, owner, session)
        try:
            yield rig
            if owner.state != "down":
                if owner.state != "closing":
                    rig.close("shutdown")
                await rig.until(lambda: owner.state == "down")
        finally:
            line.reset()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await worker.stop(within=WITHIN_SECONDS)
    assert owner.faults == []
    assert not troubles, troubles
    assert [task for task in tasks if not task.cancelled() and task.exception()] == []
