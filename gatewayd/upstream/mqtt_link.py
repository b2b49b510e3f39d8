"""One MQTT connection to the hub: made, used for CONNECT, publishes and DISCONNECT, and over.

A link knows when it wrote CONNECT, when the hub accepted it and with which token. What its events mean for the identity
is `mqtt_session`'s affair; a link never outlives its stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from gatewayd.clock import Clock
from gatewayd.errors import LocalProtocolError
from gatewayd.message import Identity, Telemetry
from gatewayd.protocol.iothub.addresses import build_username, client_id
from gatewayd.protocol.mqtt.client import ClientConnection, ClientSession
from gatewayd.protocol.mqtt.events import ClientEvent, Closed
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect
from gatewayd.protocol.mqtt.transitions import ClientState
from gatewayd.transport.conversation import Conversation
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.transport.stream import Stream, StreamOwner
from gatewayd.upstream.handover import HandoverTimeouts, Mode
from gatewayd.upstream.outcome import SignedToken


class HubDialer(Protocol):
    """Makes the TLS connection; `upstream.dialer.Dialer` is the one."""

    async def dial(self, owner: StreamOwner) -> Stream: ...


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How hub sessions behave; replaced whole on a reload, and used from the next connection on."""

    hostname: str
    client_type: str
    keep_alive: int = 230  # seconds
    window: int = 16  # publishes of one identity that may be unacknowledged
    mode: Mode = Mode.STRICT
    timeouts: HandoverTimeouts = field(default_factory=HandoverTimeouts)
    limits: Limits = field(default_factory=Limits)


class Carrier:
    """What all hub sessions share."""

    __slots__ = ("clock", "clock_trusted", "dialer", "settings", "spawn", "wheel")

    def __init__(
        self,
        dialer: HubDialer,
        wheel: DeadlineWheel,
        clock: Clock,
        clock_trusted: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        settings: MqttSettings,
    ) -> None:
        """`spawn` starts a named task in the daemon's task group."""
        self.dialer = dialer
        self.wheel = wheel
        self.clock = clock
        self.clock_trusted = clock_trusted
        self.spawn = spawn
        self.settings = settings


class LinkOwner(Protocol):
    """Who hears what a link says."""

    def link_event(self, link: MqttLink, event: ClientEvent) -> None: ...

    def link_closed(self, link: MqttLink, closed: Closed) -> None: ...

    def link_writable(self) -> None: ...


class MqttLink:
    """A connection. `conversation` is the owner of the stream that a dial makes."""

    __slots__ = (
        "_automaton",
        "_carrier",
        "accepted_at",
        "connect_sent",
        "conversation",
        "reason",
        "session_present",
        "token",
    )

    def __init__(self, owner: LinkOwner, carrier: Carrier, memory: ClientSession) -> None:
        """`memory` is what the identity has unacknowledged; it moves to this link once the hub accepts it."""
        self._carrier = carrier
        self._automaton = ClientConnection(memory, carrier.settings.limits)
        self.conversation = Conversation[ClientEvent, Closed](
            self._automaton,
            carrier.wheel,
            carrier.clock,
            partial(owner.link_event, self),
            partial(owner.link_closed, self),
            closed=Closed,
            on_writable=owner.link_writable,
        )
        self.token: SignedToken | None = None
        self.connect_sent = False
        self.accepted_at: float | None = None  # monotonic seconds of CONNACK 0
        self.session_present = False  # what CONNACK said
        self.reason = "closed"  # why it will have ended

    @property
    def is_open(self) -> bool:
        """Accepted and not yet left: what is said now stands before DISCONNECT."""
        return self._automaton.state is ClientState.OPEN

    @property
    def can_publish(self) -> bool:
        """Accepted, open, and the hub takes our bytes as fast as we send."""
        conversation = self.conversation
        return self.accepted_at is not None and not conversation.congested and not conversation.is_closed

    def connect(self, identity: Identity) -> None:
        """Write CONNECT with the token."""
        if self.token is None:
            raise LocalProtocolError(f"{identity}: CONNECT without a token")
        settings = self._carrier.settings
        self.connect_sent = True
        self._automaton.connect(
            Connect(
                client_id=client_id(identity),
                keep_alive=settings.keep_alive,
                clean_session=False,
                username=build_username(settings.hostname, identity, settings.client_type),
                password=self.token.text,
                will=None,
            ),
            self._carrier.clock.monotonic(),
        )
        self.conversation.flush()

    def publish(self, message: Telemetry) -> int:
        """Write PUBLISH; its packet id, 0 for QoS 0."""
        now = self._carrier.clock.monotonic()
        handle = self._automaton.publish(message.topic, message.payload, message.qos, now, message.retain)
        self.conversation.flush()
        return handle

    def say(self, topic: str, payload: bytes) -> None:
        """Write PUBLISH with QoS 0."""
        self._automaton.publish(topic, payload, 0, self._carrier.clock.monotonic())
        self.conversation.flush()

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> int:
        """Write SUBSCRIBE; its packet id."""
        packet_id = self._automaton.subscribe(filters, self._carrier.clock.monotonic())
        self.conversation.flush()
        return packet_id

    def unsubscribe(self, filters: tuple[str, ...]) -> int:
        """Write UNSUBSCRIBE; its packet id."""
        packet_id = self._automaton.unsubscribe(filters, self._carrier.clock.monotonic())
        self.conversation.flush()
        return packet_id

    def acknowledge(self, packet_id: int) -> bool:
        """Write PUBACK, in the order of the hub's messages; False when nothing can be said on this connection."""
        if not self.is_open:
            return False
        self._automaton.acknowledge(packet_id)
        self.conversation.flush()
        return True

    def disconnect(self, reason: str) -> None:
        """Write DISCONNECT and wait for the hub's end. One that is being left, or never was, is left as it is."""
        if self._automaton.state is ClientState.OPEN:
            self.reason = reason
            self._automaton.disconnect(self._carrier.clock.monotonic())
            self.conversation.finish()
