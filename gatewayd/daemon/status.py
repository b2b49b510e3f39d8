"""How the daemon is, for probes, the status page and the gauges read at scrape time.

*Alive*: every room keeps its promise of progress. *Ready*: it serves devices, signs, and somebody of those wanted is at
the hub. A fleet without a single hub session is not ready: that is what an operator must see first.
"""

from __future__ import annotations

import heapq
from typing import Final

from gatewayd.clock import Clock, ClockWatch
from gatewayd.daemon.keyring import Keyring
from gatewayd.daemon.progress import Progress
from gatewayd.daemon.status_page import SHOWN, SeenRefusal, StatusSnapshot, Upcoming
from gatewayd.daemon.status_server import Verdict
from gatewayd.daemon.tuning import VERSION
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.upstream.budget import ConnectBudget
from gatewayd.upstream.session import HubSession, State

# How the states of a hub session are called in metrics and on the page.
STATE_NAMES: Final = {state: state.name.lower() for state in State}


class DaemonStatus:
    """Reads the rooms; changes nothing."""

    def __init__(
        self,
        hub: str,
        clock: Clock,
        watch: ClockWatch,
        keyring: Keyring,
        hub_sessions: HubSessions,
        budget: ConnectBudget[HubSession[Identity]],
        progress: Progress,
    ) -> None:
        self.started = False
        self.stopping = False
        self._hub = hub
        self._clock = clock
        self._watch = watch
        self._keyring = keyring
        self._hub_sessions = hub_sessions
        self._conductor = hub_sessions.conductor
        self._budget = budget
        self._progress = progress

    def alive(self) -> Verdict:
        stalls = self._progress.stalled(self._clock.monotonic())
        return Verdict(not stalls, tuple(str(stall) for stall in stalls))

    def ready(self) -> Verdict:
        reasons = tuple(self._reasons())
        return Verdict(not reasons, reasons)

    def snapshot(self) -> StatusSnapshot:
        """The daemon now."""
        ready = self.ready()
        wall, offset = self._clock.wall(), self._clock.wall() - self._clock.monotonic()
        in_use = [session for session in self._conductor.sessions() if session.in_use]
        first = min(in_use, key=lambda session: session.expires, default=None)
        soonest = heapq.nsmallest(
            SHOWN + 1, (session for session in in_use if session.state is State.UP), key=lambda s: s.planned
        )
        return StatusSnapshot(
            taken_at=wall,
            version=VERSION,
            engine=self._keyring.signer.engine,
            hub=self._hub,
            ready=ready.good,
            reasons=ready.reasons,
            devices=tuple(self._counts().items()),
            earliest_expiry=None if first is None else Upcoming(str(first.identity), first.expires + offset),
            next_renewals=tuple(Upcoming(str(one.identity), one.planned + offset) for one in soonest),
            refusals=tuple(
                SeenRefusal(
                    one.at,
                    str(one.identity),
                    one.refusal.code,
                    one.refusal.name,
                    one.refusal.cause,
                    one.refusal.remedy,
                )
                for one in reversed(self._hub_sessions.refusals)
            ),
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

    def _reasons(self) -> list[str]:
        reasons = []
        if self.stopping:
            reasons.append("gatewayd is stopping")
        elif not self.started:
            reasons.append("gatewayd is starting")
        if not self._watch.trusted:
            reasons.append("the wall clock is known wrong, nothing is signed: set it")
        counts = self._conductor.counts()
        at_hub = sum(count for state, count in counts.items() if state in _AT_HUB)
        trying = sum(count for state, count in counts.items() if state in _FAILING)
        if trying and not at_hub:
            reasons.append(f"none of {trying} wanted identities is at the hub")
        return reasons


_AT_HUB: Final = frozenset({State.UP, State.RENEWAL_QUEUED, State.RENEWING, State.RENEWAL_BACKOFF})
# Queued and opening is how every session begins; only a failure tells something.
_FAILING: Final = frozenset({State.BACKOFF, State.PARKED, State.STOPPED})
