"""What the desks of the way back need of the world: a way to the hub, a way to the device, and how far the hub is.

A desk is handed hub messages and device messages of one kind (cloud messages, methods, twins) and answers over these
ways. So a desk needs no socket, and its tests none either.
"""

from __future__ import annotations

import enum
from typing import Protocol

from gatewayd.message import Identity


class Reach(enum.Enum):
    """How far the hub is for one identity."""

    UP = "up"
    OPENING = "opening"  # it connects or hands over: soon
    DOWN = "down"


class Ways(Protocol):
    """The two ways of every identity."""

    def to_hub(self, identity: Identity, topic: str, payload: bytes) -> bool:
        """Say it to the hub with QoS 0, now or not at all: False when not connected or held by a handover."""

    def to_device(self, identity: Identity, topic_filter: str, topic: str, payload: bytes, qos: int) -> bool:
        """Say it to the device at most with the QoS it subscribed `topic_filter` with; False: absent or not
        subscribed.
        """

    def listens(self, identity: Identity, topic_filter: str) -> bool:
        """True when the device is present and subscribed to `topic_filter`."""

    def reach(self, identity: Identity) -> Reach:
        """How far the hub is now."""
