"""What devices say, on its way in: telemetry to its lane; everything else is answered here.

It is the listener's `DeviceTraffic`. This version carries telemetry. A subscription is refused (0x80), because a filter
that is granted and never delivers would be a lie; a twin request or method reply is receipted, counted as dropped with
the reason `not_carried`, and said once per device.
"""

from __future__ import annotations

import logging
from typing import Final

from gatewayd.downstream.device_session import DeviceEnd, DeviceSession
from gatewayd.flow.dispatch import D2C, Dispatch
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.flow.router import Way, route
from gatewayd.message import DropReason, Identity, Telemetry
from gatewayd.metrics import Metrics
from gatewayd.protocol.mqtt.packets import SUBSCRIPTION_REFUSED, Publish

_LOG: Final = logging.getLogger(__name__)


class Intake:
    """Joins the listener to the lanes and the hub sessions."""

    def __init__(self, dispatch: Dispatch, hub_sessions: HubSessions, metrics: Metrics) -> None:
        self._dispatch = dispatch
        self._hub_sessions = hub_sessions
        self._received = metrics.messages.labels(D2C, "received")
        self._not_carried = metrics.messages_dropped.labels(DropReason.NOT_CARRIED.value)
        self._told: set[Identity] = set()

    def session_present(self, identity: Identity, clean_session: bool) -> bool:
        """No subscriptions are kept, and saying otherwise would silence an SDK that counts on them."""
        self._dispatch.lane(identity).comes_back = not clean_session
        return False

    def device_arrived(self, session: DeviceSession) -> None:
        self._dispatch.device_arrived(self._dispatch.lane(session.identity), session)
        self._hub_sessions.device_arrived(session.identity)

    def telemetry(self, session: DeviceSession, packet_id: int, publish: Publish) -> None:
        identity = session.identity
        if route(identity, publish.topic).way is not Way.TELEMETRY:
            self._drop_uncarried(session, packet_id, publish.qos)
            return
        lane = self._dispatch.lane(identity)
        message = Telemetry(identity, publish.topic, publish.payload, publish.qos, publish.retain)
        if publish.qos == 0:
            self._dispatch.offered_qos0(lane, message)
        else:
            self._dispatch.offered(lane, packet_id, message, dup=publish.dup)

    def subscribe(self, session: DeviceSession, topic_filter: str, qos: int) -> int:
        self._tell_once(session.identity)
        return SUBSCRIPTION_REFUSED

    def unsubscribe(self, session: DeviceSession, topic_filter: str) -> None:
        """Nothing was granted, so nothing is given up."""

    def delivered(self, session: DeviceSession, packet_id: int) -> None:
        """Nothing is sent to devices, so nothing is acknowledged."""

    def device_left(self, session: DeviceSession, planned: bool, end: DeviceEnd) -> None:
        identity = session.identity
        lane = self._dispatch.lane(identity)
        self._dispatch.device_left(lane, session, comes_back=lane.comes_back)
        if lane.device is None:
            self._told.discard(identity)
            self._hub_sessions.device_left(identity)

    def _drop_uncarried(self, session: DeviceSession, packet_id: int, qos: int) -> None:
        self._received.inc()
        self._not_carried.inc()
        self._tell_once(session.identity)
        if qos:
            session.receipt(packet_id)

    def _tell_once(self, identity: Identity) -> None:
        if identity not in self._told:
            self._told.add(identity)
            _LOG.warning(
                "a device asks for cloud messages, methods or its twin, which this version does not carry",
                extra={"device_id": str(identity)},
            )
