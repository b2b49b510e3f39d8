"""A lane: one identity's way from its device to the hub, and what it needs of both ends.

It joins the device session, the ledger of what the device still owns, what the outbox holds of it, and the hub session.
Any of the two sessions may be absent. A lane decides nothing: `dispatch` moves messages through it, `custody` spills
and drains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gatewayd.flow.backlog import Backlog
from gatewayd.flow.in_flight import InFlight
from gatewayd.message import Identity, Telemetry


class HubLink(Protocol):
    """What a lane needs of a hub session."""

    @property
    def can_publish(self) -> bool:
        """True when a message may be handed over now: connected, not held by a handover, room in the window."""

    @property
    def opens_soon(self) -> bool:
        """True during a handover or while the window is full: publishing goes on in a moment."""

    def publish(self, message: Telemetry) -> int:
        """Send; the handle by which the acknowledgement will name the message (0 for QoS 0)."""


class DeviceLink(Protocol):
    """What a lane needs of a device session."""

    def receipt(self, packet_id: int) -> None:
        """Send PUBACK: the device may forget the message."""

    def pause_reading(self) -> None:
        """Read nothing from the device; its keep-alive verdict is suspended."""

    def resume_reading(self) -> None:
        """Read again."""


@dataclass(frozen=True, slots=True)
class LaneBounds:
    """How much may be unreceipted: of one device, and of all together."""

    max_messages: int = 64
    max_bytes: int = 1 << 20
    max_bytes_in_all: int = 64 << 20


class Lane:
    """One identity's."""

    __slots__ = ("backlog", "comes_back", "device", "hub", "hub_is_down", "identity", "in_flight", "paused")

    def __init__(self, identity: Identity, in_flight: InFlight) -> None:
        self.identity = identity
        self.in_flight = in_flight
        self.backlog = Backlog()
        self.device: DeviceLink | None = None
        self.hub: HubLink | None = None
        self.hub_is_down = False  # it was tried and there is none: nothing is to be waited for
        self.paused = False
        self.comes_back = False  # the device keeps its session (CleanSession 0) and will resend

    @property
    def owes_the_hub(self) -> bool:
        """Something is held or stored that has not reached the hub."""
        return not self.in_flight.is_settled or not self.backlog.is_empty
