"""Devices, a hub and an outbox around real lanes and real custody, moved one step at a time, and what must be true.

The world keeps its own books: what each device offered and was receipted for, what arrived at the hub, what is on disk.
`check` compares them after any step; `come_to_rest` makes everything well and asks that nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from gatewayd.flow.custody import Custody, CustodyPolicy
from gatewayd.flow.dispatch import Dispatch
from gatewayd.flow.in_flight import Stage
from gatewayd.flow.lane import LaneBounds
from gatewayd.flow.storing_rules import StoringRules, TopicRule
from gatewayd.message import DropReason, Identity, Telemetry
from gatewayd.metrics import Metrics
from gatewayd.store.messages import Health
from tests.support.stepped_store import SteppedStore
from tests.support.virtual_time import VirtualTime

ALARM = "level=alarm"
RULES = StoringRules((TopicRule(f"*{ALARM}*", 5),))
SPILL_AFTER = 5.0  # at most


@dataclass(eq=False)
class Connection:
    """A device's connection: what it sent while it was not read waits in it."""

    world: World
    site: Site
    reading: bool = True
    unread: list[tuple[int, Telemetry, bool]] = field(default_factory=list)

    def receipt(self, packet_id: int) -> None:
        self.site.owns.remove(next(one for one in self.site.owns if one[0] == packet_id))
        payload = self.site.of_packet[packet_id]
        self.world.receipted.add(payload)
        self.world.check_custody(payload)

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True
        while self.unread and self.reading and self.site.connection is self:
            self.world.read(self, *self.unread.pop(0))

    def send(self, packet_id: int, message: Telemetry, *, dup: bool) -> None:
        self.unread.append((packet_id, message, dup))
        while self.unread and self.reading and self.site.connection is self:
            self.world.read(self, *self.unread.pop(0))


@dataclass(eq=False)
class Session:
    """A hub session: a window, a wire that may be cut, a memory that outlives the wire."""

    world: World
    site: Site
    window: int
    up: bool = True
    held: bool = False  # by a handover
    unacknowledged: list[tuple[int, Telemetry]] = field(default_factory=list)
    wire: list[tuple[int, Telemetry]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)  # at the hub, its acknowledgement on the way
    handles: int = 0

    @property
    def can_publish(self) -> bool:
        return self.up and not self.held and len(self.unacknowledged) < self.window

    @property
    def opens_soon(self) -> bool:
        return self.up

    def publish(self, message: Telemetry) -> int:
        assert self.can_publish
        if message.qos == 0:
            self.world.qos0_sent += 1
            self.wire.append((0, message))
            return 0
        self.handles += 1
        self.unacknowledged.append((self.handles, message))
        self.wire.append((self.handles, message))
        return self.handles

    def cut(self) -> None:
        self.up = self.held = False
        self.wire, self.taken = [], []

    def connect_again(self) -> None:
        self.up = True
        self.wire = list(self.unacknowledged)


@dataclass(eq=False)
class Site:
    """One device and what the world knows of it."""

    identity: Identity
    connection: Connection | None = None
    keeps_session: bool = True
    owns: list[tuple[int, Telemetry]] = field(default_factory=list)
    of_packet: dict[int, bytes] = field(default_factory=dict)
    packets: int = 0
    session: Session | None = None
    offered: list[tuple[int, bytes]] = field(default_factory=list)  # priority and payload, in order


class World:
    """`store` is stepped by whoever drives the world."""

    def __init__(
        self,
        store: SteppedStore,
        bounds: LaneBounds,
        policy: CustodyPolicy,
        *,
        devices: int,
        window: int,
    ) -> None:
        self.store = store
        self.window = window
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.time = VirtualTime(wall=1_800_000_000.0)
        self.clock = self.time.clock
        self.dispatch = Dispatch(bounds, self.metrics, self.clock.monotonic)
        self._soon: list[Callable[[], None]] = []
        self.custody = Custody(
            self.dispatch,
            store,
            policy,
            clock=self.clock,
            clock_trusted=lambda: True,
            wheel=self.time.wheel,
            soon=self._soon.append,
            metrics=self.metrics,
        )
        self.dispatch.custody = self.custody
        store.on_dropped = self._dropped
        store.on_health = self._health
        self.sites = [Site(Identity(f"d{number}")) for number in range(devices)]
        self.receipted: set[bytes] = set()
        self.arrived: dict[bytes, None] = {}  # in order of first arrival
        self.wills: set[bytes] = set()
        self.qos0_sent = 0
        self.serial = 0
        self.rule_dropped = 0

    def _dropped(self, identity: Identity, messages: int, size: int, reason: DropReason) -> None:
        self.rule_dropped += messages
        self.custody.dropped(identity, messages, size, reason)

    def _health(self, health: Health) -> None:
        if health in (Health.OK, Health.AT_BOUND):
            self.custody.store_is_well()

    # What may happen

    def arrive(self, number: int, *, keeps_session: bool) -> None:
        """A device connects, or takes over its own older connection, and sends again what it was not receipted for."""
        site = self.sites[number]
        if site.connection is not None:
            self.leave(number)
        site.keeps_session = keeps_session
        connection = site.connection = Connection(self, site)
        self.dispatch.device_arrived(self.dispatch.lane(site.identity), connection)
        if not keeps_session:
            site.owns.clear()
        for packet_id, message in tuple(site.owns):
            connection.send(packet_id, message, dup=True)

    def leave(self, number: int, *, will: bool = False) -> None:
        site = self.sites[number]
        connection = site.connection
        if connection is None:
            return
        while connection.unread:  # what was read of it and not looked at is told as it ends
            self.read(connection, *connection.unread.pop(0))
        site.connection = None
        lane = self.dispatch.lane(site.identity)
        self.dispatch.device_left(lane, connection, comes_back=site.keeps_session)
        if will:
            message = self._message(site, qos=1, alarm=False)
            drops = self.drops
            self.dispatch.said_for(lane, message)
            if self.drops == drops:
                site.offered.append((0, message.payload))
                self.wills.add(message.payload)

    def publish(self, number: int, *, qos: int = 1, alarm: bool = False, size: int = 0) -> None:
        site = self.sites[number]
        if site.connection is None or len(site.owns) > 12:
            return
        message = self._message(site, qos=qos, alarm=alarm, size=size)
        packet_id = 0
        if qos:
            site.packets += 1
            packet_id = site.packets
            site.owns.append((packet_id, message))
            site.of_packet[packet_id] = message.payload
        site.connection.send(packet_id, message, dup=False)

    def read(self, connection: Connection, packet_id: int, message: Telemetry, dup: bool) -> None:
        """The gateway reads what a device sent."""
        site = connection.site
        lane = self.dispatch.lane(site.identity)
        if message.qos == 0:
            self.dispatch.offered_qos0(lane, message)
            return
        new = not any(payload == message.payload for _, payload in site.offered)
        if new and not (lane.paused and lane.in_flight.is_full):
            site.offered.append((RULES.of(message.topic).priority, message.payload))
        self.dispatch.offered(lane, packet_id, message, dup=dup)

    def hub_opens(self, number: int) -> None:
        """A session is made or connects again."""
        site = self.sites[number]
        lane = self.dispatch.lane(site.identity)
        if site.session is None:
            site.session = lane.hub = Session(self, site, self.window)
        elif not site.session.up:
            site.session.connect_again()
        else:
            return
        self.dispatch.hub_opened(lane)

    def hub_lost(self, number: int) -> None:
        site = self.sites[number]
        if site.session is not None:
            site.session.cut()
            self.dispatch.hub_went_down(self.dispatch.lane(site.identity))

    def hub_forgotten(self, number: int) -> None:
        site = self.sites[number]
        if site.session is not None:
            site.session.cut()
            site.session = None
            lane = self.dispatch.lane(site.identity)
            self.dispatch.hub_forgot(lane)
            if lane.device is None:
                self.dispatch.forget(site.identity)

    def handover(self, number: int, *, held: bool) -> None:
        session = self.sites[number].session
        if session is not None and session.up:
            session.held = held
            self.dispatch.pump(self.dispatch.lane(self.sites[number].identity))

    def hub_takes(self, number: int, most: int = 1000) -> None:
        session = self.sites[number].session
        if session is not None:
            for handle, message in session.wire[:most]:
                self.arrived.setdefault(message.payload)
                if handle:
                    session.taken.append(handle)
            del session.wire[:most]

    def hub_acknowledges(self, number: int, most: int = 1000) -> None:
        site = self.sites[number]
        session = site.session
        for _ in range(most):
            if session is None or session is not site.session or not session.taken:
                return
            handle = session.taken.pop(0)
            assert session.unacknowledged.pop(0)[0] == handle
            self.dispatch.acknowledged(self.dispatch.lane(site.identity), handle)

    def turn(self) -> None:
        """The end of a turn of the loop."""
        soon, self._soon = self._soon, []
        for call in soon:
            call()

    def wait(self, seconds: float) -> None:
        self.turn()
        self.time.pass_seconds(seconds)
        self.turn()

    def _message(self, site: Site, *, qos: int, alarm: bool, size: int = 0) -> Telemetry:
        self.serial += 1
        topic = f"devices/{site.identity}/messages/events/{ALARM if alarm else ''}"
        return Telemetry(site.identity, topic, b"%d" % self.serial + b"." * size, qos)

    # What must be true

    def check_custody(self, payload: bytes) -> None:
        assert payload in self.arrived or payload in self.on_disk() or payload in self.dropped(), payload

    def on_disk(self) -> set[bytes]:
        return {one.message.payload for one in self.store.kept.values()}

    def dropped(self) -> set[bytes]:
        return {one.message.payload for one in self.store.dropped}

    def check(self) -> None:
        disk, dropped = self.on_disk(), self.dropped()
        lost = self.receipted - self.arrived.keys() - disk - dropped
        assert not lost, f"receipted, and nowhere: {lost}"
        held = {one.message.payload for lane in self.dispatch for one in lane.in_flight._held}
        wills = self.wills - self.arrived.keys() - disk - dropped - held
        assert not wills, f"wills nowhere: {wills}"
        for site in self.sites:
            for priority in (0, 5):
                mine = [
                    payload for rank, payload in site.offered if rank == priority and payload not in dropped
                ]
                came = [payload for payload in self.arrived if payload in set(mine)]
                assert came == [payload for payload in mine if payload in set(came)], f"order {came}"
                # What came later may have arrived only if all before it did.
                if came:
                    before = mine[: mine.index(came[-1])]
                    assert set(before) <= set(came), f"{came[-1]!r} overtook {set(before) - set(came)}"
        assert self.dispatch._held_bytes == sum(lane.in_flight.held_bytes for lane in self.dispatch)
        leased = sum(
            lease.size for lane in self.dispatch for lease in lane.backlog._under_way.values()
        ) + sum(one.message.size for lane in self.dispatch for one in lane.backlog._ready or ())
        assert self.custody._leased_bytes == leased
        present = {lane.identity: lane for lane in self.dispatch}
        for site in self.sites:
            if site.connection is not None:
                assert present[site.identity].device is site.connection
            if site.session is not None:
                assert present[site.identity].hub is site.session

    def check_count(self) -> None:
        """Whatever was received is somewhere; asked when the store has nothing to say."""
        memory = sum(
            1
            for lane in self.dispatch
            for held in lane.in_flight._held
            if held.stage not in (Stage.AT_HUB, Stage.STORED)
        )
        value = self.value
        known = value("acknowledged") + self.qos0_sent + self.stored + memory + self.drops
        assert value("received") == known, (
            value("received"), value("acknowledged"), self.qos0_sent, self.stored, memory, self.drops
        )  # fmt: skip

    @property
    def stored(self) -> int:
        return len(self.store.kept)

    @property
    def drops(self) -> float:
        return sum(
            self.registry.get_sample_value("gatewayd_messages_dropped_total", {"reason": reason.value}) or 0.0
            for reason in DropReason
        )

    def value(self, stage: str) -> float:
        labels = {"direction": "device_to_cloud", "stage": stage}
        value = self.registry.get_sample_value("gatewayd_messages_total", labels)
        assert value is not None
        return value

    def flush(self) -> None:
        """The store answers all that it was asked, and what is asked meanwhile."""
        for _ in range(1000):
            self.turn()
            self.store.work()
            self.store.deliver()
            if self.store.is_idle and not self._soon:
                return
        raise AssertionError("the store is asked for ever")

    def come_to_rest(self, seconds: float = 400.0) -> None:
        """All is well from now on: nothing may be left behind."""
        for number in range(len(self.sites)):
            self.handover(number, held=False)
            self.hub_opens(number)
        for _ in range(int(seconds / 0.5)):
            self.flush()
            for number in range(len(self.sites)):
                self.hub_takes(number)
                self.hub_acknowledges(number)
            self.flush()
            self.check()
            self.check_count()
            if self.rests:
                break
            self.wait(0.5)
        assert self.rests, "something is left behind"
        self.wait(SPILL_AFTER)
        for site in self.sites:
            waits = [payload for _, payload in site.owns] if site.connection is not None else []
            assert not waits, f"no receipt for {waits}"
        for number in range(len(self.sites)):
            self.leave(number)
            self.hub_forgotten(number)
        self.flush()
        self.wait(2 * SPILL_AFTER)
        assert not list(self.dispatch), "a lane is left"
        assert self.dispatch._held_bytes == self.custody._leased_bytes == 0
        assert not self.custody._waiting
        assert not self.custody._order
        assert not self.custody._spilling

    @property
    def rests(self) -> bool:
        return (
            not self.stored
            and self.store.is_idle
            and all(not lane.owes_the_hub for lane in self.dispatch)
            and all(not (site.connection and site.connection.unread) for site in self.sites)
        )
