"""How the daemon is, for probes, the status page and the gauges read at scrape time.

*Alive*: every room keeps its promise of progress. *Ready*: it serves devices, signs, and somebody of those wanted is at
the hub. A fleet without a single hub session is not ready: that is what an operator must see first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from gatewayd.clock import Clock, ClockWatch, kernel_clock_synchronized
from gatewayd.daemon.device_table import DeviceQuery, DeviceTable
from gatewayd.daemon.fleet_facts import (
    Bar,
    Cause,
    ClockState,
    Concern,
    DevicePage,
    Expiry,
    FleetFacts,
    Outbox,
    OutboxFigures,
    Reload,
    Renewals,
    Tokens,
    Verdict,
)
from gatewayd.daemon.keyring import Keyring
from gatewayd.daemon.progress import Progress
from gatewayd.daemon.status_words import (
    CLOCK_UNSYNCHRONIZED,
    CLOCK_WRONG,
    EXPIRED_IN_USE,
    NOBODY_AT_HUB,
    RELOAD_REFUSED,
    STARTING,
    STOPPING,
    health_remedy,
)
from gatewayd.daemon.tuning import VERSION
from gatewayd.errors import ConfigProblem
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.flow.session_notes import KEPT_MINUTES, MINUTE_SECONDS
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.upstream.budget import ConnectBudget
from gatewayd.upstream.session import IN_USE, HubSession, State

# How the states of a hub session are called in metrics and on the page.
STATE_NAMES: Final = {state: state.name.lower() for state in State}

# Planned renewals are shown as far ahead as done ones are remembered.
MINUTES_AHEAD: Final = KEPT_MINUTES - 1


class Present(Protocol):
    """What is asked of the listener: who is connected here."""

    def session(self, identity: Identity) -> object | None: ...

    def __len__(self) -> int: ...


class DaemonStatus:
    """Reads the rooms; changes nothing. `outbox` is None where there is none."""

    def __init__(
        self,
        hub: str,
        clock: Clock,
        watch: ClockWatch,
        keyring: Keyring,
        hub_sessions: HubSessions,
        budget: ConnectBudget[HubSession[Identity]],
        progress: Progress,
        present: Present,
    ) -> None:
        self.started = False
        self.stopping = False
        self.outbox: OutboxFigures | None = None
        self._hub = hub
        self._clock = clock
        self._watch = watch
        self._keyring = keyring
        self._notes = hub_sessions.notes
        self._conductor = hub_sessions.conductor
        self._budget = budget
        self._progress = progress
        self._present = present
        self._reload = Reload(clock.wall(), succeeded=True)
        self._table = DeviceTable(
            keyring, hub_sessions, clock, lambda identity: present.session(identity) is not None
        )

    def alive(self) -> Verdict:
        stalls = self._progress.stalled(self._clock.monotonic())
        return Verdict(not stalls, tuple(str(stall) for stall in stalls))

    def ready(self) -> Verdict:
        reasons = tuple(concern.what for concern in self._unready())
        return Verdict(not reasons, reasons)

    def reloaded(self, problems: Sequence[ConfigProblem]) -> None:
        """A reload has been tried; `problems` kept the old configuration in force."""
        self._reload = Reload(
            self._clock.wall(),
            succeeded=not problems,
            problems=tuple(str(problem) for problem in problems),
            remedy=RELOAD_REFUSED if problems else "",
        )

    def devices(self, query: DeviceQuery) -> DevicePage:
        """A part of the table of devices."""
        return self._table.page(query)

    def fleet(self) -> FleetFacts:
        """The daemon now."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        unready = tuple(self._unready())
        tokens, renewals = self._in_use(now, wall)
        synchronized = kernel_clock_synchronized()
        clock = ClockState(
            self._watch.trusted,
            synchronized,
            CLOCK_WRONG if not self._watch.trusted else CLOCK_UNSYNCHRONIZED if synchronized is False else "",
        )
        return FleetFacts(
            taken_at=wall,
            version=VERSION,
            engine=self._keyring.signer.engine,
            hub=self._hub,
            ready=not unready,
            concerns=(*unready, *self._worries(tokens)),
            devices=len(self._keyring.by_identity),
            connected=len(self._present),
            states=tuple(self._counts().items()),
            renewals=renewals,
            tokens=tokens,
            causes=tuple(self._causes()),
            outbox=self._outbox(),
            clock=clock,
            reload=self._reload,
        )

    def bind(self, metrics: Metrics) -> None:
        """Let the gauges of the present read from here."""
        conductor = self._conductor
        metrics.bind_devices(STATE_NAMES.values(), self._counts)
        metrics.token_earliest_expiry.set_function(self._earliest_expiry)
        metrics.tokens_expired.set_function(lambda: conductor.expired_in_use(self._clock.monotonic()))
        metrics.renewals_due.set_function(conductor.renewals_due)
        metrics.connect_budget_available.set_function(lambda: self._budget.available(self._clock.monotonic()))

    def _counts(self) -> dict[str, int]:
        """Identities by state. Those nobody wants are all others that have a key."""
        counts = {STATE_NAMES[state]: count for state, count in self._conductor.counts().items()}
        counts[STATE_NAMES[State.ABSENT]] = max(0, len(self._keyring.by_identity) - len(self._conductor))
        return counts

    def _earliest_expiry(self) -> float:
        earliest = self._conductor.earliest_expiry()
        return 0.0 if earliest is None else earliest - self._clock.monotonic() + self._clock.wall()

    def _in_use(self, now: float, wall: float) -> tuple[Tokens, Renewals]:
        """One pass over all sessions. Minutes are the monotonic clock's: a step of the wall clock moves no bar."""
        current = int(now // MINUTE_SECONDS)
        first = current - KEPT_MINUTES + 1
        done, failed, planned = ([0] * (KEPT_MINUTES + MINUTES_AHEAD) for _ in range(3))
        for minute in self._notes.minutes(now):
            done[minute.number - first] = minute.done
            failed[minute.number - first] = minute.failed
        in_use = [session for session in self._conductor.sessions() if session.state in IN_USE]
        for minute_ahead, count in Counter([one.planned // MINUTE_SECONDS for one in in_use]).items():
            # What is due and not yet done stands in the minute that runs.
            place = max(current, int(minute_ahead)) - first
            if place < len(planned):
                planned[place] += count
        soonest = min(in_use, key=lambda session: session.expires, default=None)
        expired = 0
        if soonest is not None and soonest.expires <= now:
            expired = self._conductor.expired_in_use(now)
        earliest = None if soonest is None else Expiry(str(soonest.identity), soonest.expires - now + wall)
        start = first * MINUTE_SECONDS - now + wall
        bars = tuple(
            Bar(start + MINUTE_SECONDS * place, *counts)
            for place, counts in enumerate(zip(done, failed, planned, strict=True))
        )
        return Tokens(len(in_use), expired, earliest), Renewals(bars, current - first)

    def _causes(self) -> Iterator[Cause]:
        """What stands first, then what was met last."""
        order = sorted(
            self._notes.causes.items(), key=lambda item: (-item[1].standing, -item[1].last.at, item[0])
        )
        for key, tally in order:
            yield Cause(
                key=key,
                name="" if tally.last.refusal is None else tally.last.refusal.name,
                count=tally.count,
                standing=tally.standing,
                last_at=tally.last.at,
                last_device=str(tally.last_identity),
                words=tally.last.words,
                remedy=tally.last.remedy,
            )

    def _outbox(self) -> Outbox | None:
        figures = self.outbox
        if figures is None:
            return None
        return Outbox(
            figures.messages, figures.size, figures.max_bytes, figures.health, health_remedy(figures.health)
        )

    def _unready(self) -> Iterator[Concern]:
        if self.stopping:
            yield Concern("gatewayd is stopping", STOPPING)
        elif not self.started:
            yield Concern("gatewayd is starting", STARTING)
        if not self._watch.trusted:
            yield Concern("the wall clock is known wrong, nothing is signed: set it", CLOCK_WRONG)
        if self.outbox is not None:
            yield from self.outbox.problems()
        counts = self._conductor.counts()
        at_hub = sum(count for state, count in counts.items() if state in _AT_HUB)
        trying = sum(count for state, count in counts.items() if state in _FAILING)
        if trying and not at_hub:
            yield Concern(f"none of {trying} wanted identities is at the hub", NOBODY_AT_HUB)

    def _worries(self, tokens: Tokens) -> Iterator[Concern]:
        """What does not keep the daemon from being ready, and asks for somebody."""
        if tokens.expired:
            yield Concern(f"tokens in use past their expiry: {tokens.expired}", EXPIRED_IN_USE)
        if not self._reload.succeeded:
            yield Concern("the last reload was refused", RELOAD_REFUSED)
        outbox = self._outbox()
        if outbox is not None and outbox.remedy:
            yield Concern(f"the outbox is not well: {outbox.health}", outbox.remedy)


_AT_HUB: Final = frozenset({State.UP, State.RENEWAL_QUEUED, State.RENEWING, State.RENEWAL_BACKOFF})
# Queued and opening is how every session begins; only a failure tells something.
_FAILING: Final = frozenset({State.BACKOFF, State.PARKED, State.STOPPED})
