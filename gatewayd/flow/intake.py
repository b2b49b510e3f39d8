"""What devices say, on its way in: telemetry to its lane, all that belongs to the way back to `way_back` and its desks.

It is the listener's `DeviceTraffic`. A twin request or a method reply with QoS 1 is receipted when its desk has it: the
answer the device waits for is a message of its own, or nothing it can do anything about.

A will is said for a device that went without DISCONNECT: telemetry with one property more, in the words of IoT Hub. It
is ours from that instant, because nobody sends it again. A gateway that stops says none: its devices have not gone, and
MQTT allows to defer a will over a restart (3.1.2.5).
"""

from __future__ import annotations

from typing import Final

from gatewayd.downstream.device_session import DeviceEnd, DeviceSession
from gatewayd.flow.dispatch import D2C, Dispatch
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.flow.way_back import WayBack
from gatewayd.message import Identity, Telemetry
from gatewayd.metrics import Metrics
from gatewayd.protocol.iothub.operations import Operation, Topic, events_prefix, telemetry_topic
from gatewayd.protocol.mqtt.packets import Publish, Will
from gatewayd.protocol.mqtt.session import Session

# "Communicate with an IoT hub using the MQTT protocol" (Microsoft): what the hub adds to a will.
WILL_PROPERTY: Final = "iothub-MessageType=Will"


class Intake:
    """Joins the listener to the lanes, the hub sessions and the way back."""

    def __init__(
        self, dispatch: Dispatch, hub_sessions: HubSessions, way_back: WayBack, metrics: Metrics
    ) -> None:
        self._dispatch = dispatch
        self._hub_sessions = hub_sessions
        self._way_back = way_back
        self._received = metrics.messages.labels(D2C, "received")

    # A device comes and goes

    def session_present(self, identity: Identity, clean_session: bool) -> bool:
        self._dispatch.lane(identity).comes_back = not clean_session
        return self._way_back.session_present(identity, clean_session)

    def memory(self, identity: Identity) -> Session:
        return self._way_back.memory(identity)

    def device_arrived(self, session: DeviceSession) -> None:
        self._dispatch.device_arrived(self._dispatch.lane(session.identity), session)
        self._way_back.device_arrived(session)
        self._hub_sessions.device_arrived(session.identity)

    def device_left(self, session: DeviceSession, planned: bool, end: DeviceEnd) -> None:
        identity = session.identity
        lane = self._dispatch.lane(identity)
        self._dispatch.device_left(lane, session, comes_back=lane.comes_back)
        self._way_back.device_left(session, comes_back=lane.comes_back)
        if session.owed_will is not None and end is not DeviceEnd.SHUTDOWN:
            self._dispatch.said_for(lane, will_message(identity, session.owed_will))
        if lane.device is None:
            self._hub_sessions.device_left(identity)

    # What it says

    def telemetry(self, session: DeviceSession, packet_id: int, publish: Publish) -> None:
        identity = session.identity
        lane = self._dispatch.lane(identity)
        message = Telemetry(identity, publish.topic, publish.payload, publish.qos, publish.retain)
        if publish.qos == 0:
            self._dispatch.offered_qos0(lane, message)
        else:
            self._dispatch.offered(lane, packet_id, message, dup=publish.dup)

    def asked(self, session: DeviceSession, publish: Publish, topic: Topic) -> None:
        if topic.operation is Operation.METHOD_REPLY:
            self._received.inc()
            self._way_back.methods.replied(session.identity, topic, publish.payload)
        else:
            self._way_back.twins.asked(session.identity, topic, publish.payload)
        if publish.qos:
            session.receipt(publish.packet_id)

    def subscribe(self, session: DeviceSession, packet_id: int, filters: tuple[tuple[str, int], ...]) -> None:
        self._way_back.subscribe(session, packet_id, filters)

    def unsubscribe(self, session: DeviceSession, packet_id: int, filters: tuple[str, ...]) -> None:
        self._way_back.unsubscribe(session, packet_id, filters)

    def delivered(self, session: DeviceSession, packet_id: int) -> None:
        self._way_back.delivered(session.identity, packet_id)

    def writable(self, session: DeviceSession) -> None:
        self._way_back.writable(session.identity)


def will_message(identity: Identity, will: Will) -> Telemetry:
    """The telemetry that a will is at IoT Hub."""
    bag = will.topic.removeprefix(events_prefix(identity)).removeprefix("/")
    bag = f"{bag}&{WILL_PROPERTY}" if bag else WILL_PROPERTY
    return Telemetry(identity, telemetry_topic(identity, bag), will.payload, min(will.qos, 1), will.retain)
