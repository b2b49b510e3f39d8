"""A fleet under virtual time: the real conductor, sessions, handovers, budget and timetable against a model hub.

Events lie in one heap; time jumps from one to the next, so a week of 5,000 devices takes minutes. `VirtualFleet`
plays the part of the daemon's shells (it dials, signs and reports, nothing more) and the part of IoT Hub: that one
takes CONNECT, checks the token against its own clock, keeps one connection per identity, and cuts a connection the
instant its token ends. The hub keeps its own counts; nothing it counts is taken from our side.

Faults are attributes that may be set at any virtual instant (`at`). Everything random comes from one seed.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable

from gatewayd.flow.renewal import Close, CloseReason, Open, Renew, Renewal, Timetable
from gatewayd.protocol.iothub.refusals import Ask, classify_close, classify_connack
from gatewayd.tokens.renewal_timetable import RenewalTimetable
from gatewayd.upstream.budget import ConnectBudget
from gatewayd.upstream.handover import Command, Handover, HandoverTimeouts, Mode, Stage
from gatewayd.upstream.session import HubSession, SessionPolicy
from tests.support.fleet_parts import (
    ConnectFault,
    Connection,
    Device,
    DialFault,
    HubCounts,
    Network,
    SlidingPeak,
)

SWEEP_EVERY = 60.0


class VirtualFleet:
    """N devices behind one gateway. `run(until)` lets time pass; all checks raise AssertionError where they fail."""

    def __init__(
        self,
        devices: int,
        lifetime: float,
        *,
        seed: int = 0,
        per_second: int = 50,
        window: tuple[float, float] = (0.70, 0.85),
        timetable: Timetable | None = None,
        mode: Mode = Mode.STRICT,
        timeouts: HandoverTimeouts | None = None,
        policy: SessionPolicy | None = None,
        network: Network | None = None,
        busy_share: float = 0.0,
        sweep_every: float = SWEEP_EVERY,
        start_wall: float = 1_800_000_000.25,
        secondary_keys: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.lifetime = lifetime
        self.window = window
        self.per_second = per_second
        self.mode = mode
        self.timeouts = HandoverTimeouts() if timeouts is None else timeouts
        self.network = Network() if network is None else network
        self.busy_share = busy_share  # of handovers that begin with messages in flight
        self.sweep_every = sweep_every
        self.secondary_keys = secondary_keys
        budget: ConnectBudget[HubSession[int]] = ConnectBudget(per_second)
        self.budget = budget
        self.conductor: Renewal[int] = Renewal(
            timetable=RenewalTimetable(*window) if timetable is None else timetable,
            budget=budget,
            lifetime=lifetime,
            uniform=self.random.uniform,
            policy=policy,
        )
        spread = self.network
        self.devices = [
            Device(identity, self.random.uniform(spread.rtt_least, spread.rtt_most))
            for identity in range(devices)
        ]
        # Clocks: the hub's wall clock is true; ours may be off, and our monotonic one stops while asleep.
        self.start_wall = start_wall
        self.wall_error = 0.0
        self.slept = 0.0
        self._asleep_until = -math.inf
        # Faults.
        self.dial_fault = DialFault.NONE
        self.connect_fault = ConnectFault.NONE
        self.hub_connects_per_second: int | None = None
        self.disconnect_delayed = 0.0  # a fault switch on the old flow of a handover
        self.close_answered = True  # the hub closes after our DISCONNECT
        self.sign_fails = False
        self.grace = 0.0  # how long past its end the hub still takes a token
        self.bad: set[int] = set()  # identities whose credential the hub refuses
        # What was seen.
        self.hub = HubCounts()
        self.connects = SlidingPeak()
        self.renewal_connects = SlidingPeak()
        self.first_cycle = SlidingPeak()
        self.steady = SlidingPeak()
        self.renewed = 0
        self.lateness_most = 0.0
        self.outcomes: Counter[str] = Counter()
        self.closes: Counter[CloseReason] = Counter()
        self.gap_most = 0.0
        self.last_first_connect = 0.0
        self._hub_recent: deque[float] = deque()
        self._heap: list[tuple[float, int, Callable[..., None], object]] = []
        self._serial = 0
        self._next_sweep = sweep_every
        self._stirred = True  # the conductor was told something since it was last asked

    # -- driving --------------------------------------------------------------------------------------------------

    def want_all(self) -> None:
        """Every device appears now."""
        for device in self.devices:
            self.conductor.want(device.identity, self.mono, has_secondary=self.secondary_keys)
        self._stirred = True

    def at(self, instant: float, action: Callable[[], None]) -> None:
        """Do `action` at virtual time `instant`: set a fault, step a clock."""
        self._after(instant - self.now, self._act, action)

    def run(self, until: float) -> None:
        """Let virtual time pass."""
        heap = self._heap
        conductor = self.conductor
        self._stirred = True
        due = None
        while True:
            if self._stirred and self.now >= self._asleep_until:
                self._stirred = False
                self._obey()
                due = conductor.deadline()
                if due is not None:
                    due = max(self._world(due), self.now)
            if due is not None and due < self._asleep_until:
                due = self._asleep_until
            if heap and (due is None or heap[0][0] <= due):
                instant, _, action, subject = heap[0]
                if instant > until:
                    break
                heapq.heappop(heap)
                self.now = instant
                action(subject)
            elif due is not None and due <= until:
                self.now = due
                self._stirred = True
                conductor.handle_deadline(self.mono)
            else:
                break
            if self.now >= self._next_sweep:
                self.check()
        self.now = until
        self.check()

    def check(self) -> None:
        """The invariants that look at the whole fleet."""
        self._next_sweep = self.now + self.sweep_every
        if self.now < self._asleep_until:
            return
        offenders = self.conductor.sweep(self.mono)
        assert not offenders, f"t={self.now}: no next action: {offenders[:5]}"
        assert self.conductor.expired_in_use(self.mono) == 0, f"t={self.now}: expired in use"
        assert self.budget.out <= self.per_second

    @property
    def mono(self) -> float:
        """The gateway's monotonic clock."""
        return self.now - self.slept

    def _world(self, mono: float) -> float:
        """When, in the world's time, the gateway's monotonic clock shows at least `mono`."""
        return mono + self.slept + 1e-6 if self.slept else mono  # the sum may round down

    @property
    def hub_wall(self) -> float:
        return self.start_wall + self.now

    @property
    def our_wall(self) -> float:
        return self.start_wall + self.now + self.wall_error

    @property
    def up(self) -> int:
        """Devices connected, as the hub sees it."""
        return sum(1 for device in self.devices if device.at_hub is not None)

    # -- clocks ---------------------------------------------------------------------------------------------------

    def step_clock(self, seconds: float) -> None:
        """The gateway's wall clock is set."""
        self.wall_error += seconds
        self.conductor.replan(self.mono, seconds)

    def suspend(self, seconds: float) -> None:
        """The gateway sleeps; the hub does not. The monotonic clock stands still, what arrives waits."""
        self._asleep_until = self.now + seconds
        self._after(seconds, self._wake_up, seconds)

    def _wake_up(self, seconds: object) -> None:
        assert isinstance(seconds, float)
        self.slept += seconds
        self._stirred = True
        self.conductor.replan(self.mono, seconds)

    # -- faults that strike once ----------------------------------------------------------------------------------

    def cut(self, share: float = 1.0) -> None:
        """The hub closes a share of all connections: an upgrade, a failover."""
        for device in self.devices:
            connection = device.at_hub
            if connection is not None and (share >= 1.0 or self.random.random() < share):
                self._hub_closes(connection, "404104")

    def half_open(self, share: float = 1.0, noticed_after: float = 300.0) -> None:
        """Connections die without a word; our keep-alive notices later."""
        for device in self.devices:
            connection = device.at_hub
            if connection is not None and (share >= 1.0 or self.random.random() < share):
                device.at_hub = None
                connection.hubs_open = False
                self._after(noticed_after, self._ours_closed, connection)

    # -- the shells' part -----------------------------------------------------------------------------------------

    def _obey(self) -> None:
        conductor = self.conductor
        while (command := conductor.next_command(self.mono)) is not None:
            device = self.devices[command.identity]
            match command:
                case Open():
                    self._start(device, renewing=False)
                case Renew():
                    self._start(device, renewing=True, not_before=command.not_before)
                case Close():
                    self.closes[command.reason] += 1
                    self._close(device)

    def _start(self, device: Device, *, renewing: bool, not_before: float = 0.0) -> None:
        assert device.handover is None, f"{device.identity}: two attempts at once"
        in_flight = 1 if renewing and self.busy_share and self.random.random() < self.busy_share else 0
        old_alive = device.current is not None and device.current.ours_open
        assert renewing or device.current is None, f"{device.identity}: opens beside an open connection"
        device.renewing, device.reported = renewing, False
        device.handover = Handover(
            self.mode,
            self.timeouts,
            self.mono,
            old_alive=old_alive,
            in_flight=in_flight,
            not_before=not_before,
        )
        if in_flight:
            idle = (device, device.handover, lambda handover, now: handover.in_flight(0, now))
            self._after(self.random.expovariate(1.0), self._tell, idle)
        self._pump(device)

    def _pump(self, device: Device) -> None:
        handover = device.handover
        assert handover is not None
        while (command := handover.next_command()) is not None:
            if command is Command.DIAL:
                self._dial(device)
            elif command is Command.SIGN:
                if self.sign_fails:
                    handover.sign_failed(self.mono)
                else:
                    device.signed_at = self.mono
                    device.se = math.ceil(self.our_wall + self.lifetime)
                    handover.signed(self.mono)
            elif command is Command.SEND_DISCONNECT:
                if device.current is not None and device.current.ours_open:
                    self._disconnect(device, device.current)
            elif command is Command.SEND_CONNECT:
                self._connect(device)
            elif command is Command.ABORT_NEW:
                self._abort(device.fresh)
            elif command is Command.ABORT_OLD:
                self._abort(device.current)
        self._report(device, handover)
        due = handover.deadline()
        if due is not None and self._world(due) < device.filed:
            device.filed = self._world(due)
            self._after(device.filed - self.now, self._handover_deadline, device)

    def _report(self, device: Device, handover: Handover) -> None:
        identity, stage = device.identity, handover.stage
        if handover.connected and not device.reported:
            device.reported = self._stirred = True
            expires = device.se - self.our_wall + self.mono
            if device.renewing:
                late = self.conductor.renewed(identity, device.signed_at, expires, self.mono)
                self.renewed += 1
                self.lateness_most = max(self.lateness_most, late)
                if handover.gap is not None:
                    self.gap_most = max(self.gap_most, handover.gap)
            else:
                self.conductor.opened(identity, device.signed_at, expires, self.mono)
        if not handover.finished:
            return
        self._stirred = True
        self.outcomes[f"{'renew' if device.renewing else 'open'} {stage.name.lower()}"] += 1
        device.handover = None
        if stage is Stage.DONE:
            device.current, device.fresh = device.fresh, None
            if device.closing:
                self._close(device)
            return
        fresh, device.fresh = device.fresh, None
        if fresh is not None:
            fresh.ours_open = False
        if stage is Stage.DOWN:
            device.current = None
        if device.closing:
            self._close(device)
        elif stage is Stage.FAILED:
            self.conductor.renewal_failed(identity, Ask.WAIT, self.mono)
        elif device.renewing:
            self.conductor.lost(identity, self._ask(handover), self.mono)
        else:
            self.conductor.open_failed(identity, self._ask(handover), self.mono)

    def _ask(self, handover: Handover) -> Ask:
        code = handover.connack_code
        if not code:
            return Ask.WAIT
        if code == 3:
            self.conductor.throttled(self.mono)
        return classify_connack(code, clock_trusted=True, token_fresh=True).refusal.ask

    def _dial(self, device: Device) -> None:
        device.fresh = Connection(device)
        fault, handover = self.dial_fault, device.handover
        if fault is DialFault.NONE:  # three round trips: TCP, TLS 1.2
            self._after(3 * self._rtt(device), self._tell, (device, handover, Handover.dialed))
        elif fault is DialFault.REFUSED:
            self._after(self._rtt(device), self._tell, (device, handover, Handover.dial_failed))
        elif fault is DialFault.DNS_GONE:
            self._after(5.0, self._tell, (device, handover, Handover.dial_failed))

    def _connect(self, device: Device) -> None:
        connection = device.fresh
        assert connection is not None
        self._stirred = True
        self.conductor.connecting(device.identity, self.mono)
        connection.expires = device.se
        now = self.now
        assert self.connects.add(now) <= self.per_second, f"t={now}: over the budget"
        if device.renewing:
            self.renewal_connects.add(now)
            first_cycle_ends = self.last_first_connect + self.window[1] * self.lifetime
            (self.first_cycle if now <= first_cycle_ends else self.steady).add(now)
        else:
            session = self.conductor.session(device.identity)
            if session is not None and not session.seen_up:
                self.last_first_connect = now
        delay = self._leg_time(device)
        if not self.disconnect_delayed:  # two flows of one moment stay in order
            delay = max(delay, device.disconnect_arrives + 1e-6 - now)
        self._after(delay, self._hub_connect, connection)

    def _disconnect(self, device: Device, connection: Connection) -> None:
        delay = self._leg_time(device) + self.disconnect_delayed
        device.disconnect_arrives = self.now + delay
        self._after(delay, self._hub_disconnect, connection)

    def _close(self, device: Device) -> None:
        """Carry out a Close: abandon what runs, DISCONNECT what is open, report when nothing is."""
        device.closing = True
        handover = device.handover
        if handover is not None:
            handover.abandon(self.mono)
            self._pump(device)
            return
        current = device.current
        if current is None or not current.ours_open:
            self._closed(device)
            return
        self._disconnect(device, current)
        self._after(self.timeouts.close, self._close_deadline, current)

    def _closed(self, device: Device) -> None:
        self._stirred = True
        device.closing = False
        device.current = None
        self.conductor.closed(device.identity, self.mono)

    def _abort(self, connection: Connection | None) -> None:
        if connection is not None and connection.ours_open:
            connection.ours_open = False
            self._leg(connection.device, self._hub_eof, connection)

    # -- what reaches us ------------------------------------------------------------------------------------------

    def _tell(self, subject: object) -> None:
        """A report for a handover. It carries the handover along: one that ended meanwhile is not told."""
        assert isinstance(subject, tuple)
        device, handover, report = subject
        if self._waits_for_wake(self._tell, subject) or device.handover is not handover:
            return
        report(handover, self.mono)
        self._pump(device)

    def _handover_deadline(self, subject: object) -> None:
        assert isinstance(subject, Device)
        if self._waits_for_wake(self._handover_deadline, subject):
            return
        if self.now >= subject.filed:
            subject.filed = math.inf
        if subject.handover is not None:
            subject.handover.handle_deadline(self.mono)
            self._pump(subject)

    def _close_deadline(self, subject: object) -> None:
        assert isinstance(subject, Connection)
        if subject.ours_open and not self._waits_for_wake(self._close_deadline, subject):
            self._abort(subject)
            self._closed(subject.device)

    def _ours_closed(self, subject: object) -> None:
        """The end of the stream reaches us."""
        assert isinstance(subject, Connection)
        if not subject.ours_open or self._waits_for_wake(self._ours_closed, subject):
            return
        subject.ours_open = False
        device = subject.device
        handover = device.handover
        if handover is not None:
            if subject is device.fresh:
                handover.new_closed(self.mono)
            else:
                handover.old_closed(self.mono)
            self._pump(device)
        elif subject is device.current:
            device.current = None
            if device.closing:
                self._closed(device)
                return
            self._lost(device, subject)

    def _lost(self, device: Device, connection: Connection) -> None:
        self._stirred = True
        lived = self.now - connection.accepted_at
        device.short_lives = device.short_lives + 1 if lived < 30.0 else 0
        inference = classify_close(
            connected_for=lived,
            expired_for=self.our_wall - connection.expires,
            short_lives=device.short_lives,
        )
        self.outcomes[f"lost {inference.refusal.code}"] += 1
        self.conductor.lost(device.identity, inference.refusal.ask, self.mono)

    def _connack(self, subject: object) -> None:
        assert isinstance(subject, tuple)
        connection, code = subject
        if not connection.ours_open or self._waits_for_wake(self._connack, subject):
            return
        device = connection.device
        if device.handover is not None and connection is device.fresh:
            device.handover.connack(code, self.mono)
            self._pump(device)

    # -- the hub's part -------------------------------------------------------------------------------------------

    def _hub_connect(self, subject: object) -> None:
        assert isinstance(subject, Connection)
        connection, device = subject, subject.device
        if not connection.ours_open:
            return
        code = self._verdict(device, connection)
        if code is None:
            connection.hubs_open = False
            if self.connect_fault is ConnectFault.CLOSED:
                self._leg(device, self._ours_closed, connection)
            return
        if code:
            connection.hubs_open = False
        else:
            before = device.at_hub
            if before is not None and before.hubs_open:
                self._hub_closes(before, "400027")
            device.at_hub = connection
            connection.accepted, connection.accepted_at = True, self.now
            self.hub.accepted += 1
            if not device.hub_watch:
                device.hub_watch = True
                self._after(connection.expires + self.grace - self.hub_wall, self._hub_watch, device)
        self._leg(device, self._connack, (connection, code))

    def _verdict(self, device: Device, connection: Connection) -> int | None:
        """The hub's answer to CONNECT: a code, or None for no answer."""
        if self.connect_fault in (ConnectFault.CLOSED, ConnectFault.SILENT):
            return None
        if self.connect_fault is ConnectFault.BUSY:
            return 3
        if self.hub_connects_per_second is not None:
            recent = self._hub_recent
            while recent and recent[0] + 1.0 <= self.now:
                recent.popleft()
            if len(recent) >= self.hub_connects_per_second:
                self.hub.errors["429001"] += 1
                return 3
            recent.append(self.now)
        if device.identity in self.bad:
            self.hub.errors["401003 credential"] += 1
            return 5
        if connection.expires + self.grace <= self.hub_wall:
            self.hub.errors["401003 expired"] += 1
            return 5
        return 0

    def _hub_watch(self, subject: object) -> None:
        """The token of the connection in use may be at its end. Filed anew when it was renewed meanwhile."""
        assert isinstance(subject, Device)
        connection = subject.at_hub
        if connection is None:
            subject.hub_watch = False
            return
        left = connection.expires + self.grace - self.hub_wall
        if left > 0:
            self._after(left, self._hub_watch, subject)
            return
        subject.hub_watch = False
        if self.now < self._asleep_until:
            self.hub.expired_asleep += 1
        else:
            self.hub.expired_in_use += 1
        self._hub_closes(connection, "401003 expired")

    def _hub_closes(self, connection: Connection, error: str) -> None:
        self.hub.errors[error] += 1
        connection.hubs_open = False
        if connection.device.at_hub is connection:
            connection.device.at_hub = None
        self._leg(connection.device, self._ours_closed, connection)

    def _hub_disconnect(self, subject: object) -> None:
        assert isinstance(subject, Connection)
        if not subject.hubs_open:
            return
        self.hub.planned += 1
        subject.hubs_open = False
        if subject.device.at_hub is subject:
            subject.device.at_hub = None
        if self.close_answered:
            self._leg(subject.device, self._ours_closed, subject)

    def _hub_eof(self, subject: object) -> None:
        assert isinstance(subject, Connection)
        if subject.hubs_open and subject.accepted:
            self.hub.errors["404104"] += 1
            if subject.device.at_hub is subject:
                subject.device.at_hub = None
        subject.hubs_open = False

    # -- time -----------------------------------------------------------------------------------------------------

    def _rtt(self, device: Device) -> float:
        return device.rtt * (1.0 + self.random.random() * self.network.jitter)

    def _leg(self, device: Device, action: Callable[[object], None], subject: object) -> None:
        """Something travels one way."""
        self._after(self._leg_time(device), action, subject)

    def _leg_time(self, device: Device) -> float:
        return device.rtt * (0.5 + self.random.random() * 0.5 * self.network.jitter)

    def _after(self, delay: float, action: Callable[..., None], subject: object) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (self.now + max(0.0, delay), self._serial, action, subject))

    def _waits_for_wake(self, action: Callable[..., None], subject: object) -> bool:
        """Whether the gateway sleeps; then the report waits until it wakes."""
        if self.now >= self._asleep_until:
            return False
        self._after(self._asleep_until - self.now, action, subject)
        return True

    def _act(self, action: object) -> None:
        assert callable(action)
        self._stirred = True
        action()
