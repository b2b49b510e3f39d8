"""Where devices come in: accepts, limits, knows who is present, and closes in good order.

Promises:
- One session per identity: a newer one that proved itself ends the older.
- What a stranger can hold is bounded: connections in all, handshakes in progress, connects per address, the time to
  CONNECT, the time to an answer. Beyond `max_connections`, or when an address is more than `hold` behind its limit,
  the socket is closed before any TLS.
- A device whose own token has run out stays for a grace and is then closed, at most `expired_closes_per_second` of
  them, so that a fleet does not come back in one second. One that was let in while our clock was not trusted is
  checked once it is.
- Nothing here waits without a bound, and every refusal is counted by reason.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from gatewayd.clock import Clock
from gatewayd.downstream.admission import (
    Admission,
    Admitted,
    Decision,
    HeldBecause,
    Hold,
    Refused,
    RefusedBecause,
)
from gatewayd.downstream.connect_limits import RateLimit, RefusalPacing
from gatewayd.downstream.device_session import DeviceEnd, DeviceSession, DeviceTraffic, Phase
from gatewayd.downstream.repeats import Repeats
from gatewayd.downstream.token_expiry import ExpiryQueue
from gatewayd.errors import LocalProtocolError
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.protocol.iothub.sas import MAX_CLOCK_SKEW_SECONDS
from gatewayd.protocol.mqtt.events import Closed, ServerEvent
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect
from gatewayd.transport.conversation import Conversation
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel
from gatewayd.transport.stream import Stream
from gatewayd.transport.stream_server import OwnerFactory
from gatewayd.transport.tls_transport import StreamServer, serve_streams
from gatewayd.transport.websocket_transport import WebSocketDoor

_LOG: Final = logging.getLogger(__name__)

# Expired tokens are looked for this often; a grace is minutes long.
SWEEP_SECONDS: Final = 1.0
# Those who wait are asked again in groups, so that a whole fleet held during start does not hold the loop.
RECONSIDER_BATCH: Final = 64
# Draining closes a share of the sessions this often.
DRAIN_STEP_SECONDS: Final = 0.05
# IoT Hub documents at most 5 subscriptions; 50 leaves room for clients that try others, which are refused one by one.
MAX_FILTERS: Final = 50

# Ends that are a fault of the device: worth a warning.
_FAULTS: Final = frozenset(
    {
        DeviceEnd.MALFORMED,
        DeviceEnd.PROTOCOL_VIOLATION,
        DeviceEnd.TOO_LARGE,
        DeviceEnd.FLOOD,
        DeviceEnd.QOS2,
        DeviceEnd.FOREIGN_TOPIC,
        DeviceEnd.TOO_SLOW,
    }
)
# How a connection can end before it is a device's, beside a refusal that was counted when it was decided.
_BEFORE_CONNACK: Final = (
    DeviceEnd.CLOSED,
    DeviceEnd.CONNECT_TIMEOUT,
    DeviceEnd.MALFORMED,
    DeviceEnd.PROTOCOL_VIOLATION,
    DeviceEnd.TOO_LARGE,
    DeviceEnd.FLOOD,
    DeviceEnd.REFUSED,
    DeviceEnd.SHUTDOWN,
)
_TLS_HANDSHAKE: Final = "tls_handshake"
_WEBSOCKET_UPGRADE: Final = "websocket_upgrade"
_UNFINISHED: Final = {_TLS_HANDSHAKE: "TLS handshake", _WEBSOCKET_UPGRADE: "WebSocket upgrade"}


@dataclass(frozen=True, slots=True)
class ListenerPolicy:
    """The listener's bounds, in seconds, messages and connections."""

    handshake_deadline: float = 15.0
    connect_deadline: float = 15.0
    hold: float = 20.0
    keep_alive_cap: float = 1767.0
    max_connections: int = 10_000
    connects_per_address_per_second: int = 200
    expired_token_grace: float = 600.0
    expired_closes_per_second: int = 50
    max_unreceipted_messages: int = 100

    def mqtt_limits(self) -> Limits:
        """The same bounds as the MQTT core knows them."""
        return Limits(
            connect_timeout=self.connect_deadline,
            max_keep_alive=self.keep_alive_cap,
            max_filters=MAX_FILTERS,
            max_unacknowledged=self.max_unreceipted_messages,
        )


class Listener:
    """Accepts devices from `start` until `close`. It is the front desk of its sessions."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        admission: Admission,
        traffic: DeviceTraffic,
        *,
        wheel: DeadlineWheel,
        clock: Clock,
        clock_trusted: Callable[[], bool],
        metrics: Metrics,
        policy: ListenerPolicy,
    ) -> None:
        self.wheel = wheel
        self.clock = clock
        self.traffic = traffic
        self._loop = loop
        self._context = context
        self._admission = admission
        self._clock_trusted = clock_trusted
        self._metrics = metrics
        self._server: StreamServer | None = None
        self._websocket_server: StreamServer | None = None
        self._door = WebSocketDoor(
            loop,
            self._new_session,
            upgrade_timeout=policy.connect_deadline,
            on_refused=lambda peer, error: self._not_met(_WEBSOCKET_UPGRADE, peer, error),
        )
        self._present: dict[Identity, DeviceSession] = {}
        self._not_in: set[DeviceSession] = set()  # before CONNACK 0
        self._unchecked: set[DeviceSession] = set()  # let in without a look at the expiry
        self._expiries = ExpiryQueue[DeviceSession](lambda session: session.phase is Phase.OVER)
        self._sweep = Deadline(self._sweep_due)
        self._said = Repeats()
        self._draining = False
        self.retune(policy)
        metrics.devices_connected.set_function(lambda: float(len(self._present)))
        for because in (*RefusedBecause, *HeldBecause):
            metrics.device_refusals.labels(because.value)
        for reason in (_TLS_HANDSHAKE, _WEBSOCKET_UPGRADE, *(end.value for end in _BEFORE_CONNACK)):
            metrics.device_refusals.labels(reason)
        for end in DeviceEnd:
            metrics.disconnects.labels("device", _flag(end is DeviceEnd.DISCONNECT), end.value)

    def retune(self, policy: ListenerPolicy) -> None:
        """Take new bounds. Sessions that are here keep what was agreed at CONNECT; connect limits start anew."""
        self._policy = policy
        self._limits = policy.mqtt_limits()
        self._address_limit = RateLimit(policy.connects_per_address_per_second, 1.0)
        self._pacing = RefusalPacing(policy.hold)
        self._door.upgrade_timeout = policy.connect_deadline
        for server in self._servers:
            server.handshake_timeout = policy.handshake_deadline
        for session in (*self._present.values(), *self._not_in):
            session.retune(self._limits)

    # Life

    async def start(self, host: str, port: int, *, sock: socket.socket | None = None) -> None:
        """Listen on a numeric address, or on `sock`. Raises OSError when that is not possible."""
        self._server = await self._serve(host, port, self._new_session, sock)
        self.wheel.set(self._sweep, self.clock.monotonic() + SWEEP_SECONDS)

    async def start_websockets(self, host: str, port: int) -> None:
        """Listen for MQTT over WebSocket too. Same admission, sessions and limits. Raises OSError."""
        self._websocket_server = await self._serve(host, port, self._door, None)

    async def _serve(
        self, host: str, port: int, owner_factory: OwnerFactory, sock: socket.socket | None
    ) -> StreamServer:
        return await serve_streams(
            self._loop,
            host,
            port,
            self._context,
            owner_factory,
            handshake_timeout=self._policy.handshake_deadline,
            sock=sock,
            admit=self._admit_address,
            on_refused=lambda peer, error: self._not_met(_TLS_HANDSHAKE, peer, error),
        )

    @property
    def _servers(self) -> tuple[StreamServer, ...]:
        return tuple(server for server in (self._server, self._websocket_server) if server is not None)

    @property
    def port(self) -> int:
        """Where it listens; the real port also when 0 was asked for."""
        if self._server is None:
            raise LocalProtocolError("a listener has a port once it was started")
        return self._server.port

    @property
    def websocket_port(self) -> int | None:
        """Where it listens for WebSockets; None when it does not."""
        return None if self._websocket_server is None else self._websocket_server.port

    def __len__(self) -> int:
        """How many devices are present."""
        return len(self._present)

    def __iter__(self) -> Iterator[DeviceSession]:
        """The sessions of the devices that are present."""
        return iter(tuple(self._present.values()))

    def session(self, identity: Identity) -> DeviceSession | None:
        """The session of a device that is present."""
        return self._present.get(identity)

    def reconsider(self) -> None:
        """Ask again, soon, about everyone who is held: keys were loaded, a device was unparked.

        Never inside the call: it may come from a session's own turn, which a takeover could not end in order.
        """
        waiting = [session for session in self._not_in if session.phase is Phase.HELD]
        self._loop.call_soon(self._reconsider_some, waiting)

    def stop_accepting(self) -> None:
        """Let nobody new in. Who waits is answered 3: a client that is told so tries again elsewhere or later."""
        self._draining = True
        for server in self._servers:
            server.close()
        self._door.close()
        self.wheel.set(self._sweep, None)
        for session in tuple(self._not_in):
            session.give_up_hold()

    async def drain(self, seconds: float) -> None:
        """Stop accepting, then close every session, spread evenly over `seconds`. Receipts are the traffic's affair."""
        self.stop_accepting()
        steps = max(1, math.ceil(seconds / DRAIN_STEP_SECONDS))
        while remaining := [*self._present.values(), *self._not_in]:
            for session in remaining[: math.ceil(len(remaining) / steps)]:
                session.close(DeviceEnd.SHUTDOWN, "the gateway stops")
            steps = max(1, steps - 1)
            await asyncio.sleep(DRAIN_STEP_SECONDS)
        for server in self._servers:
            await server.wait_closed()

    # What the stream server asks

    def _admit_address(self, host: str) -> bool:
        if len(self._present) + len(self._not_in) + len(self._door) >= self._policy.max_connections:
            self._metrics.device_refusals.labels(HeldBecause.OVERLOAD.value).inc()
            return False
        if self._address_limit.wait(host, self.clock.monotonic()) > self._policy.hold:
            self._metrics.device_refusals.labels(HeldBecause.ADDRESS_CONNECTS.value).inc()
            return False
        return True

    def _new_session(self, stream: Stream) -> Conversation[ServerEvent, Closed]:
        wait = self._address_limit.reserve(stream.peer_address[0], self.clock.monotonic(), self._policy.hold)
        session = DeviceSession(self, stream, self._limits, wait)
        self._not_in.add(session)
        return session.conversation

    def _not_met(self, reason: str, peer: tuple[str, int], error: Exception) -> None:
        self._metrics.device_refusals.labels(reason).inc()
        _LOG.log(
            self._level(f"{reason} {peer[0]}"),
            "a client did not finish its %s: %s",
            _UNFINISHED[reason],
            error,
            extra={"address": peer[0]},
        )

    # What sessions ask

    @property
    def hold_seconds(self) -> float:
        return self._policy.hold

    def decide(self, connect: Connect, now: float, patience: float, counted: bool) -> Decision:
        if self._draining:
            return Hold(HeldBecause.DRAINING)
        return self._admission.decide(
            connect,
            now=now,
            wall=self.clock.wall(),
            clock_trusted=self._clock_trusted(),
            patience=patience,
            counted=counted,
        )

    def held(self, session: DeviceSession, because: HeldBecause) -> None:
        self._metrics.device_refusals.labels(because.value).inc()
        _LOG.debug(
            "a device waits: %s",
            because.value,
            extra={"device_id": session.client_id, "address": session.peer_host, "reason": because.value},
        )

    def refused(self, session: DeviceSession, refused: Refused) -> float:
        self._metrics.device_refusals.labels(refused.because.value).inc()
        _LOG.log(
            self._level(f"{refused.because.value} {session.client_id}"),
            "a device is refused: %s",
            refused.remedy,
            extra={
                "device_id": session.client_id,
                "address": session.peer_host,
                "reason": refused.because.value,
            },
        )
        return self._pacing.refused(session.client_id, self.clock.monotonic())

    def filter_refused(self, session: DeviceSession, topic_filter: str) -> None:
        _LOG.log(
            self._level(f"filter {session.client_id}"),
            "a device subscribes to what is not one of its own topics at IoT Hub: refused",
            extra={
                "device_id": session.client_id,
                "address": session.peer_host,
                "topic_filter": topic_filter,
            },
        )

    def let_in(self, session: DeviceSession, admitted: Admitted) -> None:
        older = self._present.get(admitted.identity)
        if older is not None:
            older.close(DeviceEnd.TAKEOVER, "the same client id connected again")
        self._not_in.discard(session)
        self._present[admitted.identity] = session
        if admitted.expiry_checked:
            self._file_expiry(session, admitted.expiry)
        else:
            self._unchecked.add(session)
        _LOG.info(
            "a device connected",
            extra={
                "device_id": str(admitted.identity),
                "address": session.peer_host,
                "client_type": admitted.client_type or None,
            },
        )

    def left(self, session: DeviceSession, end: DeviceEnd, closed: Closed) -> None:
        self._not_in.discard(session)
        self._unchecked.discard(session)
        admitted = session.admitted
        if admitted is None:
            self._left_before_connack(session, end, closed)
            return
        del self._present[admitted.identity]
        self._metrics.disconnects.labels("device", _flag(closed.planned), end.value).inc()
        _LOG.log(
            self._level(f"{end.value} {session.client_id}") if end in _FAULTS else logging.INFO,
            "a device left: %s",
            closed.detail,
            extra={
                "device_id": str(admitted.identity),
                "address": session.peer_host,
                "reason": end.value,
                "planned": closed.planned,
            },
        )

    def _left_before_connack(self, session: DeviceSession, end: DeviceEnd, closed: Closed) -> None:
        if session.asked and end not in _FAULTS:
            return  # counted and said when it was decided
        self._metrics.device_refusals.labels(end.value).inc()
        _LOG.log(
            logging.DEBUG if end is DeviceEnd.CLOSED else self._level(f"{end.value} {session.peer_host}"),
            "a connection ended before it was a device's: %s",
            closed.detail,
            extra={
                "device_id": session.client_id or None,
                "address": session.peer_host,
                "reason": end.value,
            },
        )

    def _level(self, subject: str) -> int:
        """A warning for what is new, debug for what repeats."""
        return logging.WARNING if self._said.is_first(subject, self.clock.monotonic()) else logging.DEBUG

    # Expiry of the devices' own tokens

    def _file_expiry(self, session: DeviceSession, expiry: int) -> None:
        # Within the skew an expired token is accepted; to close it sooner would be to let it in again at once.
        grace = max(self._policy.expired_token_grace, MAX_CLOCK_SKEW_SECONDS)
        self._expiries.file(session, expiry + grace, len(self._present))

    def _sweep_due(self, now: float) -> None:
        self.wheel.set(self._sweep, now + SWEEP_SECONDS)
        if not self._clock_trusted():
            return
        wall = self.clock.wall()
        self._check_the_unchecked(wall)
        closes = math.ceil(self._policy.expired_closes_per_second * SWEEP_SECONDS)
        for session in self._expiries.take_due(wall, closes):
            session.close(DeviceEnd.TOKEN_EXPIRED, "the device's own token has run out")

    def _check_the_unchecked(self, wall: float) -> None:
        for session in self._unchecked:
            if session.admitted is None:
                continue
            checked = self._admission.recheck(session.admitted, wall=wall)
            if isinstance(checked, Admitted):
                session.admitted = checked
                self._file_expiry(session, checked.expiry)
            else:
                self._expiries.file(session, wall, len(self._present))
        self._unchecked.clear()

    def _reconsider_some(self, waiting: list[DeviceSession]) -> None:
        if rest := waiting[RECONSIDER_BATCH:]:
            self._loop.call_soon(self._reconsider_some, rest)
        for session in waiting[:RECONSIDER_BATCH]:
            session.reconsider()


def _flag(planned: bool) -> str:
    return "true" if planned else "false"
