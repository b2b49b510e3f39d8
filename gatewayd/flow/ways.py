"""The two ways a desk has, and what a desk is.

A *desk* answers for one kind of traffic between the hub and a device: direct methods, or the twin. It knows neither
connections nor subscriptions; it says things on a way, now or not at all, and hears when the ways change.
"""

from __future__ import annotations

import enum
from typing import Protocol

from gatewayd.message import Identity
from gatewayd.protocol.iothub.operations import Topic
from gatewayd.upstream.hub_message import HubMessage


class Reach(enum.Enum):
    """How near the hub is for one identity."""

    UP = "up"  # what is said now goes out now
    OPENING = "opening"  # connects, or hands over to another connection: soon
    DOWN = "down"


class Ways(Protocol):
    """What a desk may ask for."""

    def to_hub(self, identity: Identity, topic: str, payload: bytes) -> bool:
        """QoS 0, now or not at all; False when there is no connection, or a handover holds it."""

    def to_device(self, identity: Identity, topic_filter: str, topic: str, payload: bytes, qos: int) -> bool:
        """To a device that has subscribed to `topic_filter`, at most with the QoS it asked for; False when it is
        absent, has not subscribed, or takes nothing more."""

    def listens(self, identity: Identity, topic_filter: str) -> bool:
        """Whether the device is present and has subscribed to `topic_filter`."""

    def reach(self, identity: Identity) -> Reach:
        """How near the hub is."""


class Desk(Protocol):
    """What every desk hears."""

    def hub_up(self, identity: Identity, /) -> None:
        """A connection to the hub is up: the first one, or another than before."""

    def hub_down(self, identity: Identity, /) -> None:
        """There is no connection to the hub."""

    def hub_writable(self, identity: Identity, /) -> None:
        """`to_hub` may succeed where it did not a moment ago."""

    def device_left(self, identity: Identity, /) -> None:
        """The device is gone; it does not wait for answers any more."""


class MethodDesk(Desk, Protocol):
    """Direct methods, both ways."""

    def called(self, identity: Identity, topic: Topic, message: HubMessage, /) -> None:
        """The hub calls a method of the device."""

    def replied(self, identity: Identity, topic: Topic, payload: bytes, /) -> None:
        """The device answers a call."""


class TwinDesk(Desk, Protocol):
    """Twin requests and their answers, and desired changes."""

    def asked(self, identity: Identity, topic: Topic, payload: bytes, /) -> None:
        """The device reads its twin or reports properties."""

    def answered(self, identity: Identity, topic: Topic, payload: bytes, /) -> None:
        """The hub answers."""

    def desired(self, identity: Identity, topic: Topic, payload: bytes, /) -> None:
        """The hub tells a change of desired properties."""
