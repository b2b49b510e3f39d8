"""What a cloud application asks of the hub: messages to devices, methods, desired properties, twins.

The service side names identities of the registry only; another name is 404001. Nothing here waits but `call_method`,
whose waits are bounded.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from urllib.parse import quote

from gatewayd.emulator.cloud_queue import CloudMessage, Delivery
from gatewayd.emulator.hub_state import HubState
from gatewayd.emulator.property_bag import CloudProperties
from gatewayd.emulator.registry import resource_of
from gatewayd.emulator.topics import DESIRED, DEVICEBOUND, METHODS
from gatewayd.emulator.twin import Section

MAX_METHOD_CALLS = 1024
MAX_METHOD_BYTES = 128 * 1024
# "responseTimeoutInSeconds" and "connectTimeoutInSeconds" (Understand and invoke direct methods, Microsoft).
LONGEST_CALL_SECONDS = 300.0


class NotOnline(Exception):
    """404103: the device is not connected, or has not subscribed to what was asked of it."""


class NoSuchIdentity(Exception):
    """404001: the registry does not have it."""


@dataclass(frozen=True, slots=True)
class TwinView:
    """A twin as the service side reads it."""

    desired: Section
    desired_version: int
    reported: Section
    reported_version: int
    connected: bool


@dataclass(frozen=True, slots=True)
class SessionView:
    """Whether a device is there, and what it listens for when it is."""

    connected: bool
    subscriptions: dict[str, int]


class ServiceSide:
    """The verbs of the service, on the state of one hub."""

    def __init__(self, state: HubState) -> None:
        self.state = state
        self._request_ids = itertools.count(1)

    # Messages to a device

    def send_to_device(
        self,
        identity: str,
        payload: bytes,
        bag: str | None = None,
        *,
        properties: CloudProperties | None = None,
        module_input: str = "",
    ) -> int:
        """Queue a message; its number, 0 when the queue is full.

        `bag` goes out as it is, for properties in any spelling; `properties` are written as the hub writes them. A
        module takes messages at its inputs, as from an edge hub; a device has none.
        """
        if ("/" in identity) != bool(module_input):
            raise ValueError(f"{identity}: a module takes messages at an input, a device has none")
        if bag is not None and properties is not None:
            raise ValueError("a bag or properties, not both")
        state, session = self.state, self.state.session(self._known(identity))
        place = f"inputs/{quote(module_input, safe='')}" if module_input else DEVICEBOUND
        properties = properties or CloudProperties()
        expires_at = None if properties.lifetime is None else state.wall() + properties.lifetime
        if bag is None:
            bag = properties.bag(f"/{resource_of(identity)}/{place}", state.wall())
        session.sweep(state.now(), state.wall())
        number = session.queue.enqueue(CloudMessage(bag, payload, place, expires_at))
        connection = state.open.get(identity)
        if connection is not None:
            connection.send_cloud_messages()
        return number

    def delivery(self, identity: str, number: int) -> Delivery | None:
        """Where the message of this number is; None when it is not known any more."""
        session = self.state.session(self._known(identity))
        session.sweep(self.state.now(), self.state.wall())
        return session.queue.delivery(number)

    def queued(self, identity: str) -> int:
        """How many messages the device's queue holds, invisible ones included."""
        session = self.state.session(self._known(identity))
        session.sweep(self.state.now(), self.state.wall())
        return len(session.queue)

    def purge(self, identity: str) -> int:
        """Let go of the queue, but for what the device has; how many messages that were."""
        return self.state.session(self._known(identity)).purge()

    # Twins

    def desire(self, identity: str, patch: Section) -> bool:
        """Change desired properties; says whether the device was told."""
        twin = self.state.twin(self._known(identity))
        body = twin.desire(patch)
        topic = f"$iothub/twin/PATCH/properties/desired/?$version={twin.desired_version}"
        connection = self.state.open.get(identity)
        return connection is not None and connection.publish(DESIRED, topic, body)

    def read_twin(self, identity: str) -> TwinView:
        twin = self.state.twin(self._known(identity))
        return TwinView(
            twin.desired,
            twin.desired_version,
            twin.reported,
            twin.reported_version,
            connected=identity in self.state.open,
        )

    def session_of(self, identity: str) -> SessionView:
        session = self.state.session(self._known(identity))
        return SessionView(identity in self.state.open, dict(session.subscriptions))

    # Methods

    async def call_method(
        self,
        identity: str,
        method: str,
        payload: bytes = b"null",
        *,
        within: float = 30.0,
        connect_within: float = 0.0,
    ) -> tuple[int, bytes]:
        """Status and body of the device's answer; TimeoutError without one.

        NotOnline when the device is not there and subscribed, nor comes `connect_within` seconds.
        """
        calls = self.state.method_calls
        if len(calls) >= MAX_METHOD_CALLS:
            raise ValueError(f"{MAX_METHOD_CALLS} method calls at once is the bound")
        if len(payload) > MAX_METHOD_BYTES:
            raise ValueError(f"a method's payload has at most {MAX_METHOD_BYTES} bytes")
        if not 0 < within <= LONGEST_CALL_SECONDS or not 0 <= connect_within <= LONGEST_CALL_SECONDS:
            raise ValueError(f"a method call waits at most {LONGEST_CALL_SECONDS:g} s")
        await self._reachable(self._known(identity), connect_within)
        rid = f"{next(self._request_ids):x}"
        reply: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        calls[rid] = identity, reply
        try:
            connection = self.state.open.get(identity)
            topic = f"$iothub/methods/POST/{quote(method, safe='')}/?$rid={rid}"
            if connection is None or not connection.publish(METHODS, topic, payload):
                raise NotOnline(f"{resource_of(identity)} is not online")
            async with asyncio.timeout(within):
                return await reply
        finally:
            del calls[rid]

    async def _reachable(self, identity: str, within: float) -> None:
        """Until the device is there for a method, or time is up."""
        state = self.state

        def is_it(name: str) -> bool:
            return name == identity and name in state.open and METHODS in state.session(name).subscriptions

        if within > 0 and not is_it(identity):
            try:
                await state.reached.first((), is_it, within)
            except TimeoutError:
                raise NotOnline(f"{resource_of(identity)} did not come online") from None

    def _known(self, identity: str) -> str:
        if self.state.registry.find(identity) is None:
            raise NoSuchIdentity(f"{resource_of(identity)} is not registered")
        return identity
