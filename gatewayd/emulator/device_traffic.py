"""What an accepted connection carries: telemetry and its PUBACKs, twin requests, method replies, subscriptions.

Says no by ending the connection through `end`, as the service does; the log has the reason.
"""

from __future__ import annotations

import json
from typing import Protocol

from gatewayd.emulator.cloud_delivery import CloudDelivery
from gatewayd.emulator.cloud_queue import Receipt
from gatewayd.emulator.event_log import HubCode, Operation
from gatewayd.emulator.faults import FaultKind
from gatewayd.emulator.hub_state import MAX_MESSAGE_BYTES, HubState
from gatewayd.emulator.late_receipts import LateReceipts
from gatewayd.emulator.topics import (
    MAX_SUBSCRIPTIONS,
    TWIN_REPLIES,
    IdentityTopics,
    TopicKind,
    add_property,
    request_id,
)
from gatewayd.protocol.mqtt.packets import SUBSCRIPTION_REFUSED, Publish, Subscribe, Unsubscribe, Will
from gatewayd.protocol.mqtt.server import ServerConnection


class End(Protocol):
    """Closes the connection."""

    def __call__(self, code: HubCode, cause: str, text: str = "", detail: str = "") -> None: ...


class Reading(Protocol):
    """The part of a conversation that can be held up."""

    def suspend(self) -> None: ...
    def resume(self) -> None: ...
    def flush(self) -> None: ...


class DeviceTraffic:
    """Of one connection of `topics.name`, which has the hub's number `connection`."""

    __slots__ = ("_connection", "_core", "_end", "_hub", "_late", "_reading", "_topics", "cloud")

    def __init__(
        self,
        hub: HubState,
        core: ServerConnection,
        reading: Reading,
        topics: IdentityTopics,
        end: End,
        connection: int,
    ) -> None:
        self._hub = hub
        self._core = core
        self._reading = reading
        self._topics = topics
        self._end = end
        self._connection = connection
        self._late = LateReceipts(hub.wheel, core.acknowledge, self._receipts_left)
        self.cloud = CloudDelivery(hub, core, topics, reading.flush)

    def closed(self, will: Will | None) -> None:
        """The connection is over; `will` is what it left to be said, None when its end was planned."""
        self._late.close()
        self.cloud.closed()
        if will is not None:
            bag = add_property(self._topics.bag(will.topic), "iothub-MessageType=Will")
            self._store(bag, will.payload, will.qos, dup=False)

    def send(self, topic_filter: str, topic: str, payload: bytes) -> bool:
        """QoS 0 to the device, if it has subscribed to `topic_filter`."""
        if topic_filter not in self._hub.session(self._topics.name).subscriptions:
            return False
        self._core.publish(topic, payload, 0)
        self._reading.flush()
        return True

    # Packets

    def publish(self, publish: Publish, *, joins: bool) -> None:
        """`joins`: it repeats a message whose PUBACK is still due."""
        hub = self._hub
        if hub.take_fault(FaultKind.DROP_ON_PUBLISH, self._topics.name) is not None:
            self._end(HubCode.CONNECTION_CLOSED, "dropped", "The connection was dropped", "fault")
            return
        kind = self._topics.kind(publish.topic)
        if kind is TopicKind.FOREIGN:
            self._end(HubCode.ARGUMENT_INVALID, "foreign_topic", "The topic is not one of this device")
            return
        late = 0.0
        if kind is TopicKind.TELEMETRY:
            taken = self._telemetry(publish)
            if taken is None:
                return
            late = taken
        else:
            self._answer(kind, publish)
        if publish.qos and not joins:
            self._receipt(publish.packet_id, late)

    def acknowledged(self, packet_id: int) -> None:
        """The device has sent the PUBACK of a cloud message."""
        match self.cloud.receipt(packet_id):
            case Receipt.OUT_OF_ORDER:
                self._end(
                    HubCode.INVALID_PUBACK_ORDER, "puback_order", "PUBACKs must come in the order of messages"
                )
            case Receipt.LOCK_LOST:
                self._log(HubCode.LOCK_LOST, "lock_lost", "The lock of the message had run out")
            case Receipt.COMPLETED:
                pass

    def subscribe(self, subscribe: Subscribe) -> None:
        hub, topics = self._hub, self._topics
        subscriptions = hub.session(topics.name).subscriptions
        codes = []
        for topic_filter, qos in subscribe.filters:
            room = topic_filter in subscriptions or len(subscriptions) < MAX_SUBSCRIPTIONS
            if topic_filter in topics.filters and room:
                if hub.take_fault(FaultKind.SUBACK_REFUSE, topics.name) is not None:
                    codes.append(SUBSCRIPTION_REFUSED)
                    continue
                subscriptions[topic_filter] = min(qos, 1)
                codes.append(min(qos, 1))
            elif hub.settings.close_on_foreign_filter:
                self._end(HubCode.ARGUMENT_INVALID, "foreign_filter", "The filter is not one of the service")
                return
            else:
                self._log(HubCode.ARGUMENT_INVALID, "foreign_filter")
                codes.append(SUBSCRIPTION_REFUSED)
        self._core.grant(subscribe.packet_id, tuple(codes))
        self.cloud.offer()
        hub.reached.tell(topics.name)

    def unsubscribe(self, unsubscribe: Unsubscribe) -> None:
        for topic_filter in unsubscribe.filters:
            self._hub.session(self._topics.name).subscriptions.pop(topic_filter, None)
        self._core.confirm_unsubscribe(unsubscribe.packet_id)

    # Telemetry

    def _telemetry(self, publish: Publish) -> float | None:
        """How late its PUBACK is to be; None when the message ended the connection."""
        hub = self._hub
        bag = self._topics.bag(publish.topic)
        if len(bag.encode()) + len(publish.payload) > MAX_MESSAGE_BYTES:
            self._end(HubCode.TOO_LARGE, "message_too_large", "The message is over 256 KB")
            return None
        hub.sends.count(hub.now())
        late = hub.send_throttle.judge(hub.now())
        if late is None:
            self._end(HubCode.THROTTLED, "send_rate", "Request rate is too high")
            return None
        if publish.retain:
            bag = add_property(bag, "mqtt-retain=true")
        self._store(bag, publish.payload, publish.qos, dup=publish.dup)
        return late

    def _store(self, bag: str, payload: bytes, qos: int, *, dup: bool) -> None:
        hub = self._hub
        hub.ledger.add(
            self._topics.name,
            bag,
            payload,
            qos=qos,
            dup=dup,
            connection=self._connection,
            wall=hub.wall(),
            monotonic=hub.now(),
        )

    def _receipt(self, packet_id: int, late: float) -> None:
        hub, name = self._hub, self._topics.name
        # The core keeps PUBACKs in order, so those behind a dropped one stay away too.
        if hub.take_fault(FaultKind.PUBACK_DROP, name) is None:
            late += hub.take_fault(FaultKind.PUBACK_DELAY, name) or 0.0
            if late > 0 or self._late.waiting:
                self._late.add(packet_id, hub.now() + late)
            else:
                self._core.acknowledge(packet_id)
        if self._core.is_parked:
            self._reading.suspend()

    def _receipts_left(self) -> None:
        if not self._core.is_parked:
            self._reading.resume()
        self._reading.flush()

    # Requests

    def _answer(self, kind: TopicKind, publish: Publish) -> None:
        hub, rid = self._hub, request_id(publish.topic)
        if kind is TopicKind.METHOD_REPLY:
            self._method_reply(publish, rid)
            return
        if hub.take_fault(FaultKind.TWIN_SILENCE, self._topics.name) is not None:
            return
        armed = hub.take_fault(FaultKind.TWIN_STATUS, self._topics.name)
        twin = hub.twin(self._topics.name)
        body, version = b"", ""
        if armed is not None:
            status = int(armed)
            body = json.dumps({"message": "a fault is armed"}).encode()
        elif kind is TopicKind.TWIN_GET:
            status, body = 200, twin.read()
        else:
            status = twin.report(publish.payload)
            version = f"&$version={twin.reported_version}" if status == 204 else ""
        self.send(TWIN_REPLIES, f"$iothub/twin/res/{status}/?$rid={rid}{version}", body)

    def _method_reply(self, publish: Publish, rid: str) -> None:
        name, reply = self._hub.method_calls.get(rid, ("", None))
        status = publish.topic.removeprefix("$iothub/methods/res/").partition("/")[0]
        if reply is None or reply.done() or name != self._topics.name or not status.isdecimal():
            self._log(HubCode.NONE, "method_reply_to_nothing")
        else:
            reply.set_result((int(status), publish.payload))

    def _log(self, code: HubCode, cause: str, text: str = "") -> None:
        self._hub.log(
            Operation.OPERATION,
            code,
            cause=cause,
            identity=self._topics.name,
            text=text,
            connection=self._connection,
        )
