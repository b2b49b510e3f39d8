"""Brings the queue of one identity to its open connection: deliveries, locks, receipts.

A lock that runs out while the device is connected and subscribed offers the message again: with QoS 1 under the packet
id it has, DUP set. Messages to a module's inputs, which an edge hub carries and the cloud does not, go the same way.
"""

from __future__ import annotations

from collections.abc import Callable

from gatewayd.emulator.cloud_queue import Receipt
from gatewayd.emulator.hub_state import HubState
from gatewayd.emulator.topics import IdentityTopics
from gatewayd.protocol.mqtt.server import ServerConnection
from gatewayd.transport.deadline_wheel import Deadline


class CloudDelivery:
    """Of one accepted connection, from before the CONNACK to its end."""

    __slots__ = ("_core", "_deadline", "_flush", "_hub", "_stored", "_topics")

    def __init__(
        self, hub: HubState, core: ServerConnection, topics: IdentityTopics, flush: Callable[[], None]
    ) -> None:
        self._hub = hub
        self._core = core
        self._topics = topics
        self._stored = hub.session(topics.name)
        self._flush = flush
        self._deadline = Deadline(self._lock_ended)

    def resumed(self) -> None:
        """The core has sent again what was in flight: these are deliveries too."""
        for entry in self._stored.queue.in_flight():
            self._stored.queue.delivered(entry, entry.packet_id, self._locked_until())
        self.offer()

    def offer(self) -> None:
        """Send what is enqueued and subscribed to. The caller flushes."""
        hub, queue, core = self._hub, self._stored.queue, self._core
        self._stored.sweep(hub.now(), hub.wall())
        for entry in queue.enqueued():
            message = entry.message
            qos = self._topics.granted(self._stored.subscriptions, message.place)
            if qos is None:
                continue
            if entry.packet_id:
                core.publish_again(entry.packet_id)
                queue.delivered(entry, entry.packet_id, self._locked_until())
                continue
            topic = f"{self._topics.base}/{message.place}/{message.bag}"
            packet_id = core.publish(topic, message.payload, qos)
            if qos:
                queue.delivered(entry, packet_id, self._locked_until())
            else:
                queue.written(entry)
        hub.wheel.set(self._deadline, queue.next_unlock())

    def receipt(self, packet_id: int) -> Receipt:
        """The device has acknowledged a message."""
        receipt = self._stored.queue.acknowledged(packet_id)
        if receipt is Receipt.LOCK_LOST:
            self.offer()
        return receipt

    def closed(self) -> None:
        """The connection is over."""
        self._hub.wheel.set(self._deadline, None)
        self._stored.closed()

    def _lock_ended(self, _now: float) -> None:
        self.offer()
        self._flush()

    def _locked_until(self) -> float:
        return self._hub.now() + self._hub.settings.lock_seconds
