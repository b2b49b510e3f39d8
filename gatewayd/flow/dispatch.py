"""From what devices offered to what hub sessions carry, and receipts back.

A *lane* joins one identity's device session, its ledger of unreceipted messages and its hub session. Any of the two
sessions may be absent. Whenever something changes (a message came, the hub acknowledged, a session opened), the lane is
pumped: it hands the hub session as many waiting messages as its window allows, in order.

Promises (*bounded*): one device holds at most its own bounds, all together at most `max_bytes_in_all`; at a bound the
device is not read until there is room again, which is counted. At the bound of all a device is still read when nothing
of it waits for the hub, so that those whose messages get through go on, one read at a time, beside any number of those
whose messages do not. A QoS 0 message that finds no room is dropped, counted.

A device that is read again speaks at once, from inside the call: whatever is booked is booked before that.
This module keeps nothing on disk and knows no topic: `intake` has already decided that a message is telemetry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from gatewayd.flow.in_flight import InFlight, Offer
from gatewayd.message import DropReason, Identity, Telemetry
from gatewayd.metrics import Metrics

D2C = "device_to_cloud"


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
    """One identity's way from its device to the hub."""

    __slots__ = ("comes_back", "device", "hub", "identity", "in_flight", "paused")

    def __init__(self, identity: Identity, in_flight: InFlight) -> None:
        self.identity = identity
        self.in_flight = in_flight
        self.device: DeviceLink | None = None
        self.hub: HubLink | None = None
        self.paused = False
        self.comes_back = False  # the device keeps its session (CleanSession 0) and will resend


class Dispatch:
    """All lanes, and the bound they share."""

    def __init__(self, bounds: LaneBounds, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self._bounds = bounds
        self._monotonic = monotonic
        self._lanes: dict[Identity, Lane] = {}
        self._paused: dict[Identity, Lane] = {}
        self._held_bytes = 0
        self._received = metrics.messages.labels(D2C, "received")
        self._sent = metrics.messages.labels(D2C, "sent")
        self._acknowledged = metrics.messages.labels(D2C, "acknowledged")
        self._receipted = metrics.messages.labels(D2C, "receipted")
        self._no_room = metrics.messages_dropped.labels(DropReason.QOS0_NO_ROOM.value)
        self._latency = metrics.message_latency
        self._pauses = metrics.read_pauses
        metrics.messages_unreceipted.set_function(lambda: float(self.unreceipted))

    def lane(self, identity: Identity) -> Lane:
        """The lane of an identity, made at its first use."""
        lane = self._lanes.get(identity)
        if lane is None:
            ledger = InFlight(max_messages=self._bounds.max_messages, max_bytes=self._bounds.max_bytes)
            lane = self._lanes[identity] = Lane(identity, ledger)
        return lane

    def retune(self, bounds: LaneBounds) -> None:
        """Use other bounds from now on; who is over them is paused at its next message."""
        self._bounds = bounds
        for lane in self._lanes.values():
            lane.in_flight.retune(max_messages=bounds.max_messages, max_bytes=bounds.max_bytes)
        self._read_again(tuple(self._paused.values()))

    def forget(self, identity: Identity) -> None:
        """Drop the lane of an identity whose device and hub session are gone; what it held is the device's again."""
        lane = self._lanes.pop(identity, None)
        if lane is not None:
            self._paused.pop(identity, None)
            self._read_again(self._book(lane, -lane.in_flight.held_bytes))

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    @property
    def unreceipted(self) -> int:
        """Messages held, of all lanes."""
        return sum(len(lane.in_flight) for lane in self._lanes.values())

    def offered(self, lane: Lane, packet_id: int, message: Telemetry, *, dup: bool) -> None:
        """The device of `lane` published with QoS 1."""
        before = lane.in_flight.held_bytes
        outcome = lane.in_flight.offer(packet_id, message, dup=dup, now=self._monotonic())
        roomy = self._book(lane, lane.in_flight.held_bytes - before)
        if outcome is Offer.NEW:
            self._received.inc()
        self.pump(lane)
        self._hand_out_receipts(lane)
        self._pause_if_full(lane)
        self._read_again(roomy)

    def offered_qos0(self, lane: Lane, message: Telemetry) -> None:
        """The device of `lane` published with QoS 0: no receipt, and no claim to room that is not there."""
        self._received.inc()
        hub = lane.hub
        before = lane.in_flight.held_bytes
        held = False
        if hub is not None and (hub.can_publish or (hub.opens_soon and not self._at_bound_of_all)):
            held = lane.in_flight.hold_qos0(message, now=self._monotonic())
        roomy = self._book(lane, lane.in_flight.held_bytes - before)
        if not held:
            self._no_room.inc()
        self.pump(lane)
        self._read_again(roomy)

    def pump(self, lane: Lane) -> None:
        """Hand the hub session what it can take, oldest first."""
        hub = lane.hub
        if hub is None:
            return
        while hub.can_publish and (held := lane.in_flight.next_to_send()) is not None:
            handle = hub.publish(held.message)
            before = lane.in_flight.held_bytes
            lane.in_flight.sent(held, handle)
            self._sent.inc()
            self._read_again(self._book(lane, lane.in_flight.held_bytes - before))

    def acknowledged(self, lane: Lane, handle: int) -> None:
        """The hub acknowledged the message it was sent under `handle`."""
        self._acknowledged.inc()
        lane.in_flight.acknowledged(handle)
        self._hand_out_receipts(lane)
        self.pump(lane)

    def device_arrived(self, lane: Lane, device: DeviceLink) -> None:
        """`device` speaks for the lane from now on."""
        lane.device = device
        lane.paused = False
        self._paused.pop(lane.identity, None)
        self._pause_if_full(lane)

    def device_left(self, lane: Lane, device: DeviceLink, *, comes_back: bool) -> None:
        """`device` is gone; nothing happens when another one has taken over already."""
        if lane.device is not device:
            return
        lane.device = None
        lane.paused = False
        self._paused.pop(lane.identity, None)
        before = lane.in_flight.held_bytes
        lane.in_flight.device_left(comes_back=comes_back)
        if self._at_bound_of_all:
            lane.in_flight.forget_strays()
        self._read_again(self._book(lane, lane.in_flight.held_bytes - before))

    def hub_forgot(self, lane: Lane) -> None:
        """The hub session is gone for good, with its memory of what it had sent."""
        lane.hub = None
        lane.in_flight.unsend()

    def _hand_out_receipts(self, lane: Lane) -> None:
        device, before = lane.device, lane.in_flight.held_bytes
        due = tuple(lane.in_flight.receipts()) if device is not None else ()
        if self._at_bound_of_all:
            lane.in_flight.forget_strays()
        roomy = self._book(lane, lane.in_flight.held_bytes - before)
        now = self._monotonic()
        for receipt in due:
            if device is None or lane.device is not device:
                break  # it left while it was told; what it was not told it sends again
            device.receipt(receipt.packet_id)
            self._receipted.inc()
            self._latency.observe(now - receipt.received_at)
        self._read_again(roomy)

    @property
    def _at_bound_of_all(self) -> bool:
        return self._held_bytes >= self._bounds.max_bytes_in_all

    def _may_be_read(self, lane: Lane) -> bool:
        ledger = lane.in_flight
        return not ledger.is_full and (not self._at_bound_of_all or ledger.is_settled)

    def _pause_if_full(self, lane: Lane) -> None:
        if lane.paused or lane.device is None or self._may_be_read(lane):
            return
        lane.paused = True
        self._paused[lane.identity] = lane
        self._pauses.inc()
        lane.device.pause_reading()

    def _book(self, lane: Lane, more: int) -> tuple[Lane, ...]:
        """`lane` holds `more` bytes than before; the lanes that may have room now."""
        was_at_bound = self._at_bound_of_all
        self._held_bytes += more
        if was_at_bound and not self._at_bound_of_all:
            return tuple(self._paused.values())
        return (lane,)

    def _read_again(self, lanes: tuple[Lane, ...]) -> None:
        """Let those of `lanes` be read that are paused and have room. Each may speak at once, so each is asked anew."""
        for lane in lanes:
            if lane.paused and lane.device is not None and self._may_be_read(lane):
                del self._paused[lane.identity]
                lane.paused = False
                lane.device.resume_reading()
