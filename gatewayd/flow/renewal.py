"""The conductor: which identity may connect when, and what for. Pure.

It joins the sessions (`upstream.session`) with the timetable (when a token should be renewed) and the budget
(who may connect next), and says what to do through `next_command`. Promises kept here:

* *never-expired*: a token is not left in use past its expiry. A renewal that fails is tried again inside
  the token's remaining life; when no attempt came through, the session is closed a guard time before the
  end. Every identity always has a next action: `sweep` lists those that have none, and must list nobody.
* *budget*: nothing connects without a permit; renewals go first, the nearest expiry first.
* *clock*: while the clock is not trusted no permit is drawn, so nothing is signed. When the wall clock
  moves against the monotonic one, expiries move with it and renewals are placed anew, spread over what is
  left.
* *isolation*: one identity's failures change nothing but its own next action.

The shell executes commands and reports every outcome, once. All instants are monotonic seconds; an expiry is
the instant at which the wall clock will read `se`. It signs nothing, opens nothing and reads no clock.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from gatewayd.errors import LocalProtocolError
from gatewayd.protocol.iothub.refusals import Ask
from gatewayd.upstream.budget import WINDOW_SECONDS, ConnectBudget, Permit, Purpose
from gatewayd.upstream.session import ATTEMPTING, HubSession, SessionPolicy, State

K = TypeVar("K", bound=Hashable)

# A permit is held for a dial before its second begins: a backlog takes this much longer than the budget alone says.
DIAL_OVERHEAD: Final = 1.5


class CloseReason(enum.Enum):
    """Why a session is closed by us."""

    UNWANTED = "unwanted"
    EXPIRING = "its token ends and no renewal came through"
    STUCK = "an attempt took too long"


@dataclass(frozen=True, slots=True)
class Open(Generic[K]):
    """Sign and connect. Answer `connecting` when CONNECT is written, then `opened` or `open_failed`."""

    identity: K
    permit: Permit[HubSession[K]]
    secondary: bool


@dataclass(frozen=True, slots=True)
class Renew(Generic[K]):
    """Dial, and from `not_before` on sign and hand over.

    Answer `connecting`, then `renewed`, `renewal_failed` (the old connection works) or `lost` (it is down).
    """

    identity: K
    permit: Permit[HubSession[K]]
    secondary: bool
    not_before: float


@dataclass(frozen=True, slots=True)
class Close(Generic[K]):
    """End whatever runs for this identity, DISCONNECT first where possible. Answer `closed`."""

    identity: K
    reason: CloseReason


Command = Open[K] | Renew[K] | Close[K]


class Timetable(Protocol):
    """What the conductor needs of a timetable; `tokens.renewal_timetable` is the one that keeps a fleet flat."""

    @property
    def latest(self) -> float: ...
    def retime(self, earliest: float, latest: float) -> None: ...
    def expect(self, devices: int, lifetime: float) -> None: ...
    def place(
        self,
        key: Hashable,
        signed: float,
        expires: float,
        now: float,
        *,
        wide: bool = False,
        busy_until: float = ...,
    ) -> float: ...
    def remove(self, key: Hashable) -> bool: ...


class Renewal(Generic[K]):
    """Conducts all identities of one hub."""

    __slots__ = (
        "_budget",
        "_closed",
        "_commands",
        "_counts",
        "_lifetime",
        "_policy",
        "_serial",
        "_sessions",
        "_steps",
        "_timers",
        "_timetable",
        "_trusted",
        "_uniform",
        "closes_unconfirmed",
    )

    def __init__(
        self,
        *,
        timetable: Timetable,
        budget: ConnectBudget[HubSession[K]],
        lifetime: float,
        uniform: Callable[[float, float], float],
        policy: SessionPolicy | None = None,
        trusted: bool = True,
    ) -> None:
        self._timetable = timetable
        self._budget = budget
        self._lifetime = lifetime
        self._policy = SessionPolicy() if policy is None else policy
        self._uniform = uniform
        self._trusted = trusted
        self._sessions: dict[K, HubSession[K]] = {}
        self._counts = [0] * len(State)
        self._timers: list[tuple[float, int, HubSession[K]]] = []
        self._serial = 0
        self._commands: deque[Command[K]] = deque()
        # Forward steps of the wall clock, when and by how much, as long as an attempt may hold a token from before.
        self._steps: deque[tuple[float, float]] = deque()
        self.closes_unconfirmed = 0

    # -- wishes ---------------------------------------------------------------------------------------------------

    def want(self, identity: K, now: float, *, has_secondary: bool = False) -> None:
        """Keep a session of `identity` at the hub from now on. Idempotent."""
        session = self._sessions.get(identity)
        if session is None:
            session = self._sessions[identity] = HubSession(identity, has_secondary=has_secondary)
            self._counts[session.state] += 1
            self._timetable.expect(len(self._sessions), self._lifetime)
        session.has_secondary = has_secondary
        before = session.state
        session.want()
        self._settle(session, before, now)

    def unwant(self, identity: K, now: float) -> None:
        """No session of `identity` is needed any more. Idempotent."""
        session = self._sessions.get(identity)
        if session is None or not session.wanted:
            return
        before = session.state
        session.unwant(now, self._policy)
        if session.state is State.CLOSING and before is not State.CLOSING:
            self._commands.append(Close(identity, CloseReason.UNWANTED))
        self._settle(session, before, now)

    def retry(self, identity: K, now: float) -> bool:
        """An operator asks: try a parked, stopped or waiting identity now. False when there is nothing to hasten."""
        session = self._sessions.get(identity)
        if session is None or session.state not in (State.PARKED, State.STOPPED, State.BACKOFF):
            return False
        before = session.state
        session.due(now)
        self._settle(session, before, now)
        return True

    # -- outcomes -------------------------------------------------------------------------------------------------

    def connecting(self, identity: K, now: float) -> None:
        """CONNECT is being written: the permit is spent, and the old token is not in use any more."""
        session = self._session(identity)
        self._spend(session, now)
        session.connect_written(now, self._policy)
        self._file(session)

    def opened(self, identity: K, signed: float, expires: float, now: float) -> None:
        """The hub accepted a first connection or a reconnect."""
        self._succeeded(self._session(identity), signed, expires, now, wide=True)

    def renewed(self, identity: K, signed: float, expires: float, now: float) -> float:
        """The hub accepted the new token. Returns how late the renewal was, in seconds, against its plan."""
        session = self._session(identity)
        lateness = max(0.0, signed - session.planned)
        self._succeeded(session, signed, expires, now, wide=False)
        return lateness

    def open_failed(self, identity: K, ask: Ask, now: float) -> None:
        """A first connection or a reconnect did not come about."""
        self._down(self._session(identity), ask, now)

    def renewal_failed(self, identity: K, ask: Ask, now: float) -> None:
        """A renewal did not come about; the old connection works as before."""
        session = self._session(identity)
        before = session.state
        self._return_permit(session, now)
        session.renewal_failed(ask, now, self._policy, self._uniform)
        self._settle(session, before, now)

    def lost(self, identity: K, ask: Ask, now: float) -> None:
        """The session is down: the hub or the network ended it, or a handover failed after DISCONNECT."""
        self._down(self._session(identity), ask, now)

    def closed(self, identity: K, now: float) -> None:
        """A `Close` is carried out: nothing of this identity is open. Too late a word is not heard."""
        session = self._sessions.get(identity)
        if session is not None and session.state is State.CLOSING:
            self._down(session, None, now)

    def throttled(self, now: float, seconds: float = 0.0) -> None:
        """The hub throttled a connect; report its `open_failed`, `renewal_failed` or `lost` as well."""
        self._budget.throttled(now, seconds)

    # -- clock and configuration ----------------------------------------------------------------------------------

    def trusted(self, trusted: bool) -> None:
        """Whether the wall clock may be used for signing. While it may not, nothing opens and nothing renews."""
        self._trusted = trusted

    def replan(self, now: float, shift: float) -> None:
        """The wall clock moved by `shift` seconds against the monotonic one (a step, or a suspend).

        Forward: tokens end sooner. Those that are past their guard are closed, the rest is placed anew where its place
        came to lie too late. Backward: the earlier of both ends stays in force, so no renewal moves. Either way parked
        identities are probed again, because a wrong clock looks like a wrong key.
        """
        if shift > 0:
            self._steps.append((now, shift))
        while self._steps and self._steps[0][0] < now - 2.0 * self._policy.attempt_limit:
            self._steps.popleft()
        for session in list(self._sessions.values()):
            before = session.state
            if before is State.PARKED:
                session.due(now)
            elif shift > 0 and session.in_use and not session.connecting:
                self._end_sooner(session, shift, now)
            self._settle(session, before, now)

    def retimed(self, earliest: float, latest: float, lifetime: float, now: float) -> None:
        """Another window or lifetime is in force; tokens in use that live longer are renewed early, spread out."""
        self._timetable.retime(earliest, latest)
        shorter = lifetime < self._lifetime
        self._lifetime = lifetime
        self._timetable.expect(len(self._sessions), lifetime)
        for session in self._sessions.values():
            if session.state is not State.UP or now >= session.guard_at:
                continue  # its own timer has the next word
            life = session.expires - session.signed
            if shorter and life > lifetime:
                at = self._timetable.place(
                    session, now, min(now + lifetime, session.guard_at), now, wide=True
                )
            elif not session.signed + earliest * life <= session.planned <= session.signed + latest * life:
                at = self._timetable.place(session, session.signed, session.expires, now, wide=True)
            else:
                continue
            session.plan(at, self._policy)
            self._file(session)

    def retune(self, policy: SessionPolicy) -> None:
        """Use other delays and limits from each session's next step on; a backoff that runs keeps its own."""
        self._policy = policy

    # -- what to do -----------------------------------------------------------------------------------------------

    def next_command(self, now: float) -> Command[K] | None:
        """The next thing to do; call until None after every input and every deadline."""
        if self._commands:
            return self._commands.popleft()
        if not self._trusted:
            return None
        permit = self._budget.next_permit(now)
        if permit is None:
            return None
        session = permit.key
        before = session.state
        session.permitted(now, self._policy)
        session.permit = permit
        self._settle(session, before, now)
        if session.state is State.OPENING:
            return Open(session.identity, permit, session.secondary)
        # A permit held until the renewal's place is a place others cannot have: not while more wait than may go.
        scarce = self._budget.waiting > self._budget.available(now)
        not_before = min(now, session.planned) if scarce else session.planned
        return Renew(session.identity, permit, session.secondary, not_before)

    def deadline(self) -> float | None:
        """When `handle_deadline` must be called; an instant that is past means now."""
        soonest = self._soonest()
        budget = self._budget.deadline() if self._trusted else None
        if budget is None:
            return soonest
        return budget if soonest is None else min(soonest, budget)

    def handle_deadline(self, now: float) -> None:
        """Do what is due by `now`."""
        while (soonest := self._soonest()) is not None and soonest <= now:
            session = heapq.heappop(self._timers)[2]
            session.filed = math.inf
            self._due(session, now)

    # -- views ----------------------------------------------------------------------------------------------------

    def counts(self) -> dict[State, int]:
        """How many identities are in each state."""
        return {state: self._counts[state] for state in State}

    def state(self, identity: K) -> State:
        """Where one identity stands; ABSENT for one that nobody wants."""
        session = self._sessions.get(identity)
        return State.ABSENT if session is None else session.state

    def session(self, identity: K) -> HubSession[K] | None:
        """The session itself, to read."""
        return self._sessions.get(identity)

    def sessions(self) -> Iterator[HubSession[K]]:
        """Every session, to read."""
        return iter(self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def earliest_expiry(self) -> float | None:
        """The nearest end of a token in use."""
        return min((s.expires for s in self._in_use()), default=None)

    def expired_in_use(self, now: float) -> int:
        """Tokens in use past their end. Must be 0."""
        return sum(1 for session in self._in_use() if session.expires <= now and not session.connecting)

    def renewals_due(self) -> int:
        """Renewals whose planned instant is past and that have not come through yet."""
        counts = self._counts
        return counts[State.RENEWAL_QUEUED] + counts[State.RENEWING] + counts[State.RENEWAL_BACKOFF]

    def sweep(self, now: float, tolerance: float = 1.0) -> list[K]:
        """Identities without a next action, or whose next action is overdue by more than `tolerance`. Must be empty."""
        return [s.identity for s in self._sessions.values() if not self._has_next_action(s, now - tolerance)]

    # -- inside ---------------------------------------------------------------------------------------------------

    def _session(self, identity: K) -> HubSession[K]:
        session = self._sessions.get(identity)
        if session is None:
            raise LocalProtocolError(f"{identity!r} has no session")
        return session

    def _in_use(self) -> Iterator[HubSession[K]]:
        return (session for session in self._sessions.values() if session.in_use)

    def _succeeded(
        self, session: HubSession[K], signed: float, expires: float, now: float, *, wide: bool
    ) -> None:
        before = session.state
        self._return_permit(session, now)
        # The clock may have stepped between the signature and the hub's answer.
        moved = sum(seconds for at, seconds in self._steps if at > signed)
        signed, expires = signed - moved, expires - moved
        session.succeeded(signed, expires, now, self._policy)
        if session.state is State.UP:
            at = self._timetable.place(
                session, signed, expires, now, wide=wide, busy_until=self._busy_until(now)
            )
            session.plan(at, self._policy)
        self._settle(session, before, now)

    def _busy_until(self, now: float) -> float:
        """When the connects that wait now will be done, the last second of them included."""
        backlog = DIAL_OVERHEAD * self._budget.waiting / self._budget.per_second
        return now + backlog + WINDOW_SECONDS + self._policy.dial_ahead

    def _down(self, session: HubSession[K], ask: Ask | None, now: float) -> None:
        before = session.state
        self._return_permit(session, now)
        session.down(ask, now, self._policy, self._uniform)
        self._settle(session, before, now)

    def _due(self, session: HubSession[K], now: float) -> None:
        before = session.state
        if before is State.CLOSING:
            self.closes_unconfirmed += 1
            self._down(session, None, now)
            return
        if session.in_use and now >= session.guard_at and not session.connecting:
            self._give_up(session, CloseReason.EXPIRING, now)
        elif before in ATTEMPTING:
            self._give_up(session, CloseReason.STUCK, now)
        else:
            session.due(now)
        self._settle(session, before, now)

    def _give_up(self, session: HubSession[K], reason: CloseReason, now: float) -> None:
        session.give_up(now, self._policy, stuck=reason is CloseReason.STUCK)
        self._commands.append(Close(session.identity, reason))

    def _end_sooner(self, session: HubSession[K], seconds: float, now: float) -> None:
        """The token of `session` ends `seconds` sooner than was thought."""
        session.shift_expiry(seconds, self._policy)
        if now >= session.guard_at:
            self._give_up(session, CloseReason.EXPIRING, now)
        elif session.state is State.UP:
            if session.planned > session.signed + self._timetable.latest * (session.expires - session.signed):
                at = self._timetable.place(session, now, session.guard_at, now, wide=True)
                session.plan(max(at, now), self._policy)
        elif session.state is State.RENEWAL_QUEUED:
            self._budget.request(session, Purpose.RENEWAL, session.guard_at, now)
            session.wake = session.guard_at
        elif session.wake is not None:
            session.wake = min(session.wake, session.guard_at)

    def _settle(self, session: HubSession[K], before: State, now: float) -> None:
        """Do what a change of state means for the budget, the timetable, the counters and the timers."""
        state = session.state
        if state is not before:
            self._counts[before] -= 1
            self._counts[state] += 1
            if before in (State.QUEUED, State.RENEWAL_QUEUED) and state not in ATTEMPTING:
                self._budget.withdraw(session)
            if state is State.QUEUED:
                purpose = Purpose.RECONNECT if session.seen_up else Purpose.FIRST
                self._budget.request(session, purpose, now, now)
            elif state is State.RENEWAL_QUEUED:
                self._budget.request(session, Purpose.RENEWAL, session.guard_at, now)
            if not session.in_use and before is not State.OPENING:
                self._timetable.remove(session)
            if state is State.ABSENT:
                self._counts[state] -= 1
                del self._sessions[session.identity]
                self._timetable.expect(len(self._sessions), self._lifetime)
                return
        self._file(session)

    def _soonest(self) -> float | None:
        """The nearest wake. Timers are filed lazily: one whose session wakes later is filed anew when it comes up."""
        timers = self._timers
        while timers:
            filed, _, session = timers[0]
            if session.filed != filed or session.wake is None:
                heapq.heappop(timers)
                if session.filed == filed:
                    session.filed = math.inf
            elif session.wake > filed:
                session.filed = session.wake
                self._serial += 1
                heapq.heapreplace(timers, (session.wake, self._serial, session))
            else:
                return filed
        return None

    def _file(self, session: HubSession[K]) -> None:
        wake = session.wake
        if wake is not None and wake < session.filed:
            session.filed = wake
            self._serial += 1
            heapq.heappush(self._timers, (wake, self._serial, session))

    def _spend(self, session: HubSession[K], now: float) -> None:
        permit = session.permit
        if permit is None:
            raise LocalProtocolError(f"{session.identity!r} connects without a permit")
        session.permit = None
        self._budget.spend(permit, now)

    def _return_permit(self, session: HubSession[K], now: float) -> None:
        permit = session.permit
        if permit is not None:
            session.permit = None
            self._budget.give_back(permit, now)

    def _has_next_action(self, session: HubSession[K], late: float) -> bool:
        state = session.state
        if state is State.STOPPED:
            return True
        if state is State.QUEUED:
            return self._budget.holds(session)
        if state is State.RENEWAL_QUEUED and not self._budget.holds(session):
            return False
        return session.wake is not None and session.wake >= late and session.filed <= session.wake
