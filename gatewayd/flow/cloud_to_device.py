"""Cloud messages and module inputs: from the hub to the device, and the hub may forget one when the device has it.

Each identity has a ledger (`deliveries`) and a memory: the MQTT session state of what the device has not acknowledged,
which outlives its connection. A device that comes back gets that again, same packet ids, DUP set, before anything new.

Promises: the hub gets PUBACK only for what the device has acknowledged, or for what was written to a device that asked
for QoS 0; in the hub's order. A device's own bounds hold: at most a window of messages is with it, and nothing more
goes out while it takes bytes more slowly than we send. What finds no room here stays with the hub, unacknowledged.

While a device is away its ledger lives as long as its hub session; then the hub has it all again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from gatewayd.errors import Bounded
from gatewayd.flow.deliveries import Deliveries, Offer
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.protocol.mqtt.session import Session
from gatewayd.upstream.hub_message import HubMessage

_LOG: Final = logging.getLogger(__name__)

C2D = "cloud_to_device"


class Receiver(Protocol):
    """What is needed of a device session."""

    @property
    def congested(self) -> bool: ...

    def publish(self, topic: str, payload: bytes, qos: int) -> int:
        """Send; the packet id, 0 for QoS 0. Raises Bounded when too many are under way."""


class Sender(Protocol):
    """What is needed of a hub session."""

    def acknowledge(self, message: HubMessage) -> bool:
        """PUBACK; False when the connection it came on can carry it no more."""


class _Place:
    """One identity's."""

    __slots__ = ("device", "hub", "ledger", "memory", "pumping")

    def __init__(self) -> None:
        self.ledger = Deliveries()
        self.memory = Session()
        self.device: Receiver | None = None
        self.hub: Sender | None = None
        self.pumping = False


class CloudToDevice:
    """The cloud messages of all identities."""

    def __init__(self, qos_of: Callable[[Identity, str], int | None], metrics: Metrics) -> None:
        """`qos_of`: the QoS with which a device has subscribed to a topic, None when it has not."""
        self._qos_of = qos_of
        self._places: dict[Identity, _Place] = {}
        self._received = metrics.messages.labels(C2D, "received")
        self._sent = metrics.messages.labels(C2D, "sent")
        self._acknowledged = metrics.messages.labels(C2D, "acknowledged")

    def __len__(self) -> int:
        """How many identities something is kept of."""
        return len(self._places)

    def memory(self, identity: Identity, *, fresh: bool) -> Session:
        """What the device has not acknowledged, for its new connection; `fresh` when it does not continue a session."""
        place = self._place(identity)
        if fresh:
            self._begin_anew(place)
        return place.memory

    # The device

    def device_arrived(self, identity: Identity, device: Receiver) -> None:
        place = self._place(identity)
        place.device = device
        self.pump(identity)

    def device_left(self, identity: Identity, *, comes_back: bool) -> None:
        place = self._places.get(identity)
        if place is None:
            return
        place.device = None
        if not comes_back:
            self._begin_anew(place)
        if place.hub is None and not len(place.ledger):
            del self._places[identity]

    def delivered(self, identity: Identity, packet_id: int) -> None:
        """The device has acknowledged what it was sent under this id."""
        place = self._places.get(identity)
        if place is not None and place.ledger.acknowledged(packet_id):
            self._settle(place)
            self.pump(identity)

    def pump(self, identity: Identity) -> None:
        """Send what the device can take, in order."""
        place = self._places.get(identity)
        if place is None or place.pumping:
            return
        place.pumping = True
        try:
            while self._send_next(identity, place):
                pass
        finally:
            place.pumping = False
        self._settle(place)

    def _send_next(self, identity: Identity, place: _Place) -> bool:
        device = place.device
        if device is None or device.congested:
            return False
        entry = place.ledger.next_to_send()
        if entry is None:
            return False
        message = entry.message
        qos = self._qos_of(identity, message.topic)
        if qos is None:
            return False
        try:
            packet_id = device.publish(message.topic, message.payload, min(qos, message.qos))
        except Bounded:
            return False
        place.ledger.sent(entry, packet_id)
        self._sent.inc()
        return True

    # The hub

    def hub_up(self, identity: Identity, hub: Sender) -> None:
        """A connection of the hub session is up: the first, or another than before."""
        place = self._place(identity)
        place.hub = hub
        place.ledger.new_connection()

    def hub_down(self, identity: Identity) -> None:
        place = self._places.get(identity)
        if place is not None:
            place.hub = None

    def forget(self, identity: Identity) -> None:
        """The hub session is gone for good."""
        place = self._places.get(identity)
        if place is None:
            return
        place.hub = None
        if place.device is None:
            del self._places[identity]

    def received(self, identity: Identity, message: HubMessage) -> None:
        """The hub sent a message."""
        place = self._place(identity)
        match place.ledger.offer(message):
            case Offer.NEW:
                self._received.inc()
                self.pump(identity)
            case Offer.JOINED:
                self._settle(place)
            case Offer.NO_ROOM:
                _LOG.debug(
                    "a cloud message finds no room and stays with the hub", extra={"device_id": str(identity)}
                )

    # Within

    def _settle(self, place: _Place) -> None:
        hub = place.hub
        if hub is not None:
            self._acknowledged.inc(place.ledger.settle(hub.acknowledge))

    def _begin_anew(self, place: _Place) -> None:
        place.memory = Session()
        place.ledger.device_forgot()

    def _place(self, identity: Identity) -> _Place:
        place = self._places.get(identity)
        if place is None:
            place = self._places[identity] = _Place()
        return place
