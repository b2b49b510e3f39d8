"""The way from the hub to the device: who gets what the hub says, and what the hub is asked for.

What the hub sends goes by its topic to `cloud_to_device`, to the desk of methods or to the desk of twins; this is also
the `Ways` over which the desks speak. The hub session of an identity wants what its present device has subscribed to.
While the device is absent it wants nothing, so that the hub itself queues cloud messages and answers method calls with
404103.

Promises: nothing goes to a device that it has not subscribed to; what is not of this identity, or of no known kind, is
acknowledged and dropped with a word in the log, or the hub would send it for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from gatewayd.errors import Bounded
from gatewayd.flow.cloud_to_device import CloudToDevice
from gatewayd.flow.grants import Grants
from gatewayd.flow.subscriptions import Subscriptions
from gatewayd.flow.ways import MethodDesk, Reach, TwinDesk, Ways
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.protocol.iothub.operations import METHOD_REPLY_PREFIX, Operation, TopicFault, parse_from_hub
from gatewayd.protocol.mqtt.session import Session
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.upstream.hub_message import HubMessage

_LOG: Final = logging.getLogger(__name__)

_NOTHING_WANTED: Final[Mapping[str, int]] = {}
_NOTHING_REFUSED: Final[frozenset[str]] = frozenset()


class PresentDevice(Protocol):
    """What is needed of a device session."""

    @property
    def identity(self) -> Identity: ...
    @property
    def congested(self) -> bool: ...
    def publish(self, topic: str, payload: bytes, qos: int) -> int: ...
    def grant(self, packet_id: int, codes: tuple[int, ...]) -> None: ...
    def confirm_unsubscribe(self, packet_id: int) -> None: ...


class PresentHub(Protocol):
    """What is needed of a hub session."""

    @property
    def can_say(self) -> bool: ...
    @property
    def subscriptions_confirmed(self) -> bool: ...
    @property
    def subscriptions_refused(self) -> frozenset[str]: ...
    def say(self, topic: str, payload: bytes) -> bool: ...
    def acknowledge(self, message: HubMessage) -> bool: ...
    def want_subscriptions(self, wanted: Mapping[str, int]) -> None: ...


class WayBack:
    """All identities' ways back."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        wheel: DeadlineWheel,
        monotonic: Callable[[], float],
        metrics: Metrics,
        *,
        opening: Callable[[Identity], bool],
        methods: Callable[[Ways], MethodDesk],
        twins: Callable[[Ways], TwinDesk],
    ) -> None:
        """`opening`: whether a hub session that is not up is about to be. `methods` and `twins` make the desks."""
        self._subscriptions = subscriptions
        self._opening = opening
        self._grants = Grants(self, wheel, monotonic, self._turn_away)
        self._cloud = CloudToDevice(self._qos_of, metrics)
        self._devices: dict[Identity, PresentDevice] = {}
        self._hubs: dict[Identity, PresentHub] = {}
        self._replies_sent = metrics.messages.labels("device_to_cloud", "sent")
        self.methods = methods(self)
        self.twins = twins(self)

    def load(self, kept: Mapping[Identity, Mapping[str, int]]) -> None:
        """The subscriptions an earlier run kept, before any device connects."""
        self._subscriptions.load(kept)

    # The device side

    def session_present(self, identity: Identity, clean_session: bool) -> bool:
        """A device is about to get CONNACK 0; whether its subscriptions are kept."""
        present = self._subscriptions.arrived(identity, clean_session=clean_session)
        self._cloud.memory(identity, fresh=not present)
        return present

    def memory(self, identity: Identity) -> Session:
        """What the device has not acknowledged, for the connection that begins."""
        return self._cloud.memory(identity, fresh=False)

    def device_arrived(self, device: PresentDevice) -> None:
        """The device has CONNACK 0, and again what it did not acknowledge."""
        identity = device.identity
        self._devices[identity] = device
        self._want(identity)
        self._cloud.device_arrived(identity, device)

    def device_left(self, device: PresentDevice, *, comes_back: bool) -> None:
        """The device is gone. Nothing happens when another one has taken over."""
        identity = device.identity
        if self._devices.get(identity) is not device:
            return
        del self._devices[identity]
        self._grants.left(identity)
        self._subscriptions.left(identity)
        self._want(identity)
        self._cloud.device_left(identity, comes_back=comes_back)
        self.methods.device_left(identity)
        self.twins.device_left(identity)

    def subscribe(self, device: PresentDevice, packet_id: int, filters: tuple[tuple[str, int], ...]) -> None:
        """The device asks for topics of its own; it is answered by `grant`, perhaps later."""
        identity = device.identity
        kept = self._grants.ask(identity, device, packet_id, filters)

        def done() -> None:
            self._want(identity)  # the hub has not answered what it was not yet asked
            kept()

        self._subscriptions.subscribe(identity, filters, done)
        self._want(identity)
        self._cloud.pump(identity)

    def unsubscribe(self, device: PresentDevice, packet_id: int, filters: tuple[str, ...]) -> None:
        """The device gives topics up; it is answered when they are kept no more."""
        identity = device.identity
        self._subscriptions.unsubscribe(identity, filters, lambda: device.confirm_unsubscribe(packet_id))
        self._want(identity)

    def delivered(self, identity: Identity, packet_id: int) -> None:
        """The device has acknowledged what it was sent under this id."""
        self._cloud.delivered(identity, packet_id)

    def writable(self, identity: Identity) -> None:
        """The device takes bytes again."""
        self._cloud.pump(identity)

    # The hub side

    def hub_up(self, identity: Identity, hub: PresentHub) -> None:
        """A connection to the hub is up: the first, or another than before."""
        self._hubs[identity] = hub
        self._cloud.hub_up(identity, hub)
        self._want(identity)
        self.methods.hub_up(identity)
        self.twins.hub_up(identity)

    def hub_down(self, identity: Identity) -> None:
        """There is no connection, or an attempt at one has failed."""
        self._hubs.pop(identity, None)
        self._cloud.hub_down(identity)
        self._grants.look(identity)
        self.methods.hub_down(identity)
        self.twins.hub_down(identity)

    def hub_forgotten(self, identity: Identity) -> None:
        """Nobody needs the hub session any more."""
        self._hubs.pop(identity, None)
        self._cloud.forget(identity)

    def hub_writable(self, identity: Identity) -> None:
        """The hub session takes what it did not a moment ago."""
        self.methods.hub_writable(identity)
        self.twins.hub_writable(identity)

    def subscribed(self, identity: Identity) -> None:
        """The hub has answered all that is wanted."""
        self._grants.look(identity)

    def received(self, identity: Identity, message: HubMessage) -> None:
        """The hub sent something."""
        topic = parse_from_hub(identity, message.topic)
        if isinstance(topic, TopicFault):
            _LOG.warning(
                "the hub sends what is not known: dropped",
                extra={"device_id": str(identity), "reason": topic.value},
            )
            self._acknowledge(identity, message)
            return
        match topic.operation:
            case Operation.CLOUD_MESSAGE | Operation.MODULE_INPUT:
                self._cloud.received(identity, message)
                return
            case Operation.METHOD_CALL:
                self.methods.called(identity, topic, message)
            case Operation.TWIN_REPLY:
                self.twins.answered(identity, topic, message.payload)
            case _:
                self.twins.desired(identity, topic, message.payload)
        self._acknowledge(identity, message)

    # The ways of the desks

    def to_hub(self, identity: Identity, topic: str, payload: bytes) -> bool:
        hub = self._hubs.get(identity)
        said = hub is not None and hub.say(topic, payload)
        if said and topic.startswith(METHOD_REPLY_PREFIX):
            self._replies_sent.inc()
        return said

    def to_device(self, identity: Identity, topic_filter: str, topic: str, payload: bytes, qos: int) -> bool:
        device = self._devices.get(identity)
        asked = self._subscriptions.of(identity).get(topic_filter)
        if device is None or asked is None or device.congested:
            return False
        try:
            device.publish(topic, payload, min(qos, asked))
        except Bounded:
            return False
        return True

    def listens(self, identity: Identity, topic_filter: str) -> bool:
        return identity in self._devices and topic_filter in self._subscriptions.of(identity)

    def reach(self, identity: Identity) -> Reach:
        hub = self._hubs.get(identity)
        if hub is not None:
            return Reach.UP if hub.can_say else Reach.OPENING
        return Reach.OPENING if self._opening(identity) else Reach.DOWN

    # What grants ask

    def hub_has_answered(self, identity: Identity) -> bool:
        hub = self._hubs.get(identity)
        return hub is None or not hub.can_say or hub.subscriptions_confirmed

    def refused_by_hub(self, identity: Identity) -> frozenset[str]:
        hub = self._hubs.get(identity)
        return _NOTHING_REFUSED if hub is None else hub.subscriptions_refused

    # Within

    def _want(self, identity: Identity) -> None:
        hub = self._hubs.get(identity)
        if hub is not None:
            present = identity in self._devices
            hub.want_subscriptions(self._subscriptions.at_hub(identity) if present else _NOTHING_WANTED)

    def _qos_of(self, identity: Identity, topic: str) -> int | None:
        """The highest QoS of the filters that match [MQTT-3.3.5-1]; every filter of IoT Hub ends with `/#`."""
        asked = [
            qos
            for name, qos in self._subscriptions.of(identity).items()
            if topic.startswith(name[:-1]) or topic == name[:-2]
        ]
        return max(asked, default=None)

    def _turn_away(self, identity: Identity, filters: tuple[str, ...]) -> None:
        self._subscriptions.unsubscribe(identity, filters, _nobody_waits)

    def _acknowledge(self, identity: Identity, message: HubMessage) -> None:
        hub = self._hubs.get(identity)
        if hub is not None and message.qos:
            hub.acknowledge(message)


def _nobody_waits() -> None:
    """The device has its answer."""
