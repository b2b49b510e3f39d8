"""From what devices offered to what hub sessions carry, and receipts back.

Whenever something changes (a message came, the hub acknowledged, a session opened), the identity's lane is pumped: the
hub session gets as many waiting messages as its window allows, in order, and nothing new while something of the device
is stored that comes before it.

Promises (*bounded*): one device holds at most its own bounds, all together at most `max_bytes_in_all`; at a bound the
device is not read until there is room again, which is counted. At the bound of all a device is still read when nothing
of it waits for the hub, so that those whose messages get through go on, one read at a time, beside any number of those
whose messages do not. A QoS 0 message that finds no room is dropped, counted.

A device that is read again speaks at once, from inside the call: whatever is booked is booked before that.
This module knows neither the disk (`custody` does) nor topics: `intake` has decided that a message is telemetry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gatewayd.flow.custody import Custody
from gatewayd.flow.in_flight import Held, InFlight, Offer, Stage
from gatewayd.flow.lane import DeviceLink, HubLink, Lane, LaneBounds
from gatewayd.message import DropReason, Identity, Telemetry
from gatewayd.metrics import Metrics
from gatewayd.store.messages import StoredMessage

D2C = "device_to_cloud"

_NEW = Offer.NEW  # a look into an Enum class is dear on Python 3.11


class Dispatch:
    """All lanes, and the bound they share."""

    def __init__(self, bounds: LaneBounds, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self.custody: Custody | None = None  # who spills and drains; without it all stays in memory
        self._bounds = bounds
        self._monotonic = monotonic
        self._lanes: dict[Identity, Lane] = {}
        self._paused: dict[Identity, Lane] = {}
        self._roomy: dict[Lane, None] = {}  # may be read once those whose messages were stored know it
        self._held_bytes = 0
        self._received = metrics.messages.labels(D2C, "received")
        self._sent = metrics.messages.labels(D2C, "sent")
        self._acknowledged = metrics.messages.labels(D2C, "acknowledged")
        self._receipted = metrics.messages.labels(D2C, "receipted")
        self._will_said = metrics.messages_dropped.labels(DropReason.WILL_SAID.value)
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

    def find(self, identity: Identity) -> Lane | None:
        """The lane of an identity, if there is one."""
        return self._lanes.get(identity)

    def retune(self, bounds: LaneBounds) -> None:
        """Use other bounds from now on; who is over them is paused at its next message."""
        self._bounds = bounds
        for lane in self._lanes.values():
            lane.in_flight.retune(max_messages=bounds.max_messages, max_bytes=bounds.max_bytes)
        self._read_again(tuple(self._paused.values()))

    def forget(self, identity: Identity) -> None:
        """Drop the lane of an identity whose device and hub session are gone and that owes the hub nothing."""
        lane = self._lanes.get(identity)
        if lane is not None and (self.custody is None or not lane.owes_the_hub):
            del self._lanes[identity]
            self._paused.pop(identity, None)
            self._read_again(self._book(lane, -lane.in_flight.held_bytes))

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    @property
    def unreceipted(self) -> int:
        """Messages held, of all lanes."""
        return sum(len(lane.in_flight) for lane in self._lanes.values())

    def offered(self, lane: Lane, packet_id: int, message: Telemetry, *, dup: bool) -> None:
        """The device of `lane` published with QoS 1.

        One that is not read and speaks all the same had written this before its connection ended. At its bound it is
        not taken: without a receipt it is the device's, and a device that comes and goes would know no bound.
        """
        ledger = lane.in_flight
        if lane.paused and ledger.is_full:
            return
        before = ledger.held_bytes
        outcome = ledger.offer(packet_id, message, dup=dup, now=self._monotonic())
        roomy = self._book(lane, ledger.held_bytes - before)
        if outcome is _NEW:
            self._received.inc()
        self.pump(lane)
        if self.custody is not None:
            self.custody.watch(lane)
        if outcome is not _NEW:  # it may be in custody already
            self._hand_out_receipts(lane)
        self._pause_if_full(lane)
        self._read_again(roomy)

    def offered_qos0(self, lane: Lane, message: Telemetry) -> None:
        """The device of `lane` published with QoS 0: no receipt, and no claim to room that is not there."""
        self._received.inc()
        hub = lane.hub
        before = lane.in_flight.held_bytes
        held = False
        stores = self.custody is not None and self.custody.policy.store_qos0
        soon = (stores or (hub is not None and hub.opens_soon)) and not self._at_bound_of_all
        if soon or (hub is not None and hub.can_publish):
            held = lane.in_flight.hold_qos0(message, now=self._monotonic())
        roomy = self._book(lane, lane.in_flight.held_bytes - before)
        if not held:
            self._no_room.inc()
        self.pump(lane)
        if held and stores and self.custody is not None:
            self.custody.watch(lane)
        self._read_again(roomy)

    def said_for(self, lane: Lane, message: Telemetry) -> None:
        """A message that nobody sends again: the will of a device that is gone. It is in our custody from now on.

        A device at its bound that comes and goes without a word between is said to be gone once: else its wills would
        have no bound.
        """
        self._received.inc()
        before = lane.in_flight.held_bytes
        if not lane.in_flight.entrust(message, now=self._monotonic()):
            (self._will_said if message.qos else self._no_room).inc()
        roomy = self._book(lane, lane.in_flight.held_bytes - before)
        self.pump(lane)
        if self.custody is not None:
            self.custody.watch(lane)
        self._read_again(roomy)

    def pump(self, lane: Lane) -> None:
        """Hand the hub session what it can take, oldest first, and let the outbox have its turn."""
        hub = lane.hub
        if hub is None:
            return
        custody, backlog, ledger = self.custody, lane.backlog, lane.in_flight
        while (held := ledger.next_to_send()) is not None and hub.can_publish:
            message = held.message
            if custody is not None:
                if backlog.waits and backlog.holds_back(custody.priority(message.topic)):
                    break
                custody.sent_live()
            handle = hub.publish(message)
            before = ledger.held_bytes
            ledger.sent(held, handle)
            self._sent.inc()
            self._read_again(self._book(lane, ledger.held_bytes - before))
        if custody is not None and backlog.waits:
            custody.turn(lane)

    def hand_over(self, lane: Lane, hub: HubLink, message: StoredMessage) -> None:
        """Publish what the outbox leased; `hub.can_publish` holds."""
        handle = hub.publish(message.message)
        self._sent.inc()
        lane.backlog.sent(handle)
        if not handle and self.custody is not None:
            self.custody.gone(message)

    def acknowledged(self, lane: Lane, handle: int) -> None:
        """The hub acknowledged the message it was sent under `handle`."""
        self._acknowledged.inc()
        if self.custody is None or not self.custody.acknowledged(lane, handle):
            before = lane.in_flight.held_bytes
            lane.in_flight.acknowledged(handle)
            roomy = self._book(lane, lane.in_flight.held_bytes - before)
            self._hand_out_receipts(lane)
            self._read_again(roomy)
        self.pump(lane)

    def stored(self, lane: Lane, held: Held) -> Stage:
        """The outbox has `held`; what it was until now. Receipts and reading follow with `in_custody`."""
        before = lane.in_flight.held_bytes
        was = lane.in_flight.stored(held)
        self._roomy.update(dict.fromkeys(self._book(lane, lane.in_flight.held_bytes - before)))
        return was

    def in_custody(self, lane: Lane) -> None:
        """Messages of `lane` were stored, and its backlog knows of them: receipts may be due."""
        roomy, self._roomy = tuple(self._roomy), {}
        self._hand_out_receipts(lane)
        self._read_again(roomy)
        # The outbox may have answered so late that the lane is forgotten, and another one has its name.
        if lane.device is None and lane.hub is None and self._lanes.get(lane.identity) is lane:
            self.forget(lane.identity)

    def hub_opened(self, lane: Lane) -> None:
        """The hub session of `lane` takes messages."""
        lane.hub_is_down = False
        self.pump(lane)

    def hub_went_down(self, lane: Lane) -> None:
        """The hub session of `lane` is down and was not meant to be."""
        lane.hub_is_down = True
        if self.custody is not None:
            self.custody.hub_went_down(lane)

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
        if self.custody is not None:
            self.custody.hub_forgot(lane)
            if not lane.in_flight.is_settled:
                self.custody.watch(lane)

    def _hand_out_receipts(self, lane: Lane) -> None:
        device, ledger = lane.device, lane.in_flight
        before = ledger.held_bytes
        due = ledger.receipts() if device is not None else ()
        if self._at_bound_of_all:
            ledger.forget_strays()
        roomy = self._book(lane, ledger.held_bytes - before)
        if due:
            now = self._monotonic()
            for held in due:
                if device is None or lane.device is not device:
                    break  # it left while it was told; what it was not told it sends again
                device.receipt(held.packet_id)
                self._receipted.inc()
                self._latency.observe(now - held.received_at)
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
        if not self._paused:
            return ()
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
