"""One timer for all who wait.

A gateway has thousands of deadlines (keep-alives, handshakes, pings) and nearly all of them are moved later before they
come due, once per packet. So moving a deadline later writes one number and nothing else. The wheel keeps each deadline
filed at the time it was last filed for; when that time comes and the deadline has meanwhile moved, it is filed again.
One `call_at` of the event loop stands for the earliest filed time.

Promises: a deadline fires once, never before its time, and no later than its time plus the loop's own lateness (about
1 ms) plus the work of those due before it. Many due at once are fired in batches, so that the loop serves its sockets
in between. Time is an argument: the wheel reads no clock but the one it is given.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

# At 20 µs a callback a batch holds the loop for some 5 ms; the next batch comes a loop turn later.
BATCH = 256

# Deadlines that moved earlier leave their later filing behind. Above this many, and above half of all, they are swept.
MIN_STALE_TO_SWEEP = 64


class TimerHandle(Protocol):
    """What `call_at` returns, such as `asyncio.TimerHandle`."""

    def cancel(self) -> None: ...


class Deadline:
    """A place in the wheel for one who waits: made once, armed and moved for as long as its owner lives."""

    __slots__ = ("due", "filing", "on_due")

    def __init__(self, on_due: Callable[[float], None]) -> None:
        self.on_due = on_due  # called with the wheel's time when the deadline is reached
        # Both written by the wheel alone.
        self.due: float | None = None  # when it fires next; None while nothing is waited for
        self.filing: Filing | None = None  # where it stands in the heap, never later than `due`


# Time, a number that keeps equal times in filing order, and who is filed.
Filing = tuple[float, int, Deadline]


class DeadlineWheel:
    """Fires each `Deadline` at its time, over one timer of the loop.

    `loop_time` and `call_at` are the loop's, or a virtual clock's in tests.
    """

    __slots__ = ("_call_at", "_heap", "_loop_time", "_sequence", "_stale", "_timer", "_timer_at")

    def __init__(
        self,
        loop_time: Callable[[], float],
        call_at: Callable[[float, Callable[[], None]], TimerHandle],
    ) -> None:
        self._loop_time = loop_time
        self._call_at = call_at
        self._heap: list[Filing] = []
        self._sequence = 0
        self._stale = 0  # filings in the heap that their deadline has left behind
        self._timer: TimerHandle | None = None
        self._timer_at = 0.0

    def __len__(self) -> int:
        """How many filings the wheel holds, those left behind included."""
        return len(self._heap)

    def set(self, deadline: Deadline, when: float | None) -> None:
        """Let `deadline` fire at `when` instead of any time asked for before; None: not at all.

        Moving later, or to None, touches only the deadline.
        """
        deadline.due = when
        if when is None:
            return
        filing = deadline.filing
        if filing is None or when < filing[0]:
            if filing is not None:
                deadline.filing = None
                self._leave_behind()
            self._file(deadline, when)
            self._arm()

    def close(self) -> None:
        """Forget everything; nothing fires any more."""
        for _, _, deadline in self._heap:
            deadline.due = deadline.filing = None
        self._heap.clear()
        self._stale = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _file(self, deadline: Deadline, when: float) -> None:
        self._sequence += 1
        deadline.filing = (when, self._sequence, deadline)
        heapq.heappush(self._heap, deadline.filing)

    def _arm(self) -> None:
        earliest = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= earliest:
                return
            self._timer.cancel()
        self._timer_at = earliest
        self._timer = self._call_at(earliest, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self._loop_time()
        served = 0
        try:
            while self._heap and self._heap[0][0] <= now and served < BATCH:
                served += 1
                self._serve(heapq.heappop(self._heap), now)
        finally:
            # Also when a callback raised: one owner's fault must not stop the time of the others.
            if self._heap:
                self._arm()

    def _serve(self, filing: Filing, now: float) -> None:
        deadline = filing[2]
        if deadline.filing is not filing:
            self._stale -= 1
            return
        deadline.filing = None
        due = deadline.due
        if due is None:
            return
        if due > now:
            self._file(deadline, due)
            return
        deadline.due = None
        deadline.on_due(now)

    def _leave_behind(self) -> None:
        self._stale += 1
        if self._stale < MIN_STALE_TO_SWEEP or self._stale * 2 < len(self._heap):
            return
        self._heap = [filing for filing in self._heap if filing[2].filing is filing]
        heapq.heapify(self._heap)
        self._stale = 0
