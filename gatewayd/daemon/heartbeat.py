"""One look a second at what must not be left to events: the clocks, the loop, and that everyone has a next action.

Promises kept here: a step of the wall clock or a suspend reaches the conductor within `EVERY_SECONDS`; the clock gate
opens and shuts by itself; an identity without a next action is found, and the watchdog is then fed no more. The renewal
room's progress is reported from here, and only while its deadline is not overdue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gatewayd.clock import Clock, ClockWatch, kernel_clock_synchronized
from gatewayd.daemon.progress import Progress
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.metrics import Metrics
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel

_LOG: Final = logging.getLogger(__name__)

ROOM: Final = "renewal"
EVERY_SECONDS: Final = 1.0
# The renewal room promises a turn this often: three looks may be late before it counts as stalled.
PROMISED_SECONDS: Final = 10.0
# A deadline this far in the past was not served.
OVERDUE_SECONDS: Final = 5.0
# The sweep visits every identity, so it comes more seldom than the other looks.
SWEEP_EVERY: Final = 10


class Heartbeat:
    """The look. `clock_trusted` is told to the conductor; `on_trusted` hears that the clock has become good."""

    def __init__(
        self,
        clock: Clock,
        watch: ClockWatch,
        wheel: DeadlineWheel,
        hub_sessions: HubSessions,
        progress: Progress,
        metrics: Metrics,
        *,
        on_trusted: Callable[[], None] = lambda: None,
        on_look: Callable[[float], None] = lambda wall: None,
    ) -> None:
        """`on_look` hears the wall time at each look with a trusted clock."""
        self._clock = clock
        self._watch = watch
        self._wheel = wheel
        self._hub_sessions = hub_sessions
        self._progress = progress
        self._metrics = metrics
        self._on_trusted = on_trusted
        self._on_look = on_look
        self._deadline = Deadline(self._look)
        self._planned = 0.0
        self._looks = 0
        self._all_have_a_next_action = True  # as the latest sweep found
        self._trusted = watch.trusted

    def start(self) -> None:
        """Look now, then every `EVERY_SECONDS`."""
        now = self._clock.monotonic()
        self._progress.expect(ROOM, PROMISED_SECONDS, now)
        self._hub_sessions.conductor.trusted(self._trusted)
        if not self._trusted:
            self._say_untrusted()
        self._planned = now
        self._look(now)

    def stop(self) -> None:
        """No more looks; nothing is expected of the renewal room any more."""
        self._wheel.set(self._deadline, None)
        self._progress.dismiss(ROOM)

    def _look(self, now: float) -> None:
        self._metrics.event_loop_lag.set(max(0.0, now - self._planned))
        self._planned = now + EVERY_SECONDS
        self._wheel.set(self._deadline, self._planned)
        self._look_at_clock(now)
        self._looks += 1
        if self._looks % SWEEP_EVERY == 0:
            self._all_have_a_next_action = self._sweep(now)
        due = self._hub_sessions.conductor.deadline()
        if self._all_have_a_next_action and (due is None or due > now - OVERDUE_SECONDS):
            self._progress.report(ROOM, now)

    def _look_at_clock(self, now: float) -> None:
        conductor = self._hub_sessions.conductor
        step = self._watch.look()
        if step is not None:
            self._metrics.clock_steps.inc()
            _LOG.warning(
                "the wall clock moved by %+.1f s (%.1f s of it asleep); all renewals are planned again",
                step.seconds,
                step.suspended,
            )
            conductor.replan(now, step.seconds)
        trusted = self._watch.trusted
        if trusted is not self._trusted:
            self._trusted = trusted
            conductor.trusted(trusted)
            if trusted:
                _LOG.info("the clock is good now: signing begins")
                self._on_trusted()
            else:
                self._say_untrusted()
        self._metrics.clock_trusted.set(float(trusted))
        self._metrics.clock_synchronized.set(float(kernel_clock_synchronized() or False))
        if trusted:
            self._on_look(self._clock.wall())
        self._hub_sessions.turn()

    def _sweep(self, now: float) -> bool:
        idle = self._hub_sessions.conductor.sweep(now, tolerance=OVERDUE_SECONDS)
        if idle:
            _LOG.error(
                "%d identities have no next action, %s among them: this is a fault of gatewayd",
                len(idle),
                idle[0],
            )
        return not idle

    def _say_untrusted(self) -> None:
        _LOG.error(
            "the wall clock is known wrong (before %.0f s since 1970): nothing is signed until it is set",
            self._watch.floor,
        )
