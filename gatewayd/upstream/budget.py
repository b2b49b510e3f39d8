"""Permission to open hub connections: a sliding-window limit with an order of precedence. Pure.

Promise *budget*: in every sliding second at most `per_second` CONNECTs are written. It holds however long a
permit is held between `next_permit` and `spend` (name lookup, TCP and TLS lie between), because of one
invariant:

    CONNECTs spent within the last second + permits out and not yet spent <= per_second

A permit given back unspent keeps its place until one second after it was granted: dials that fail at once are
paced like CONNECTs. Waiting requests are served by purpose (renewals, then reconnects, then first connects)
and inside a purpose by the nearest deadline. A key has one request or one permit, never both.

When the hub throttles, everything pauses and comes back slower. One number, the *strain* (0 to 6), rules
both: each throttle raises it by one, sets a pause of 2^(strain - 1) seconds (or what the hub asks for, if
longer) and halves the limit once more; each quiet spell lowers it by one. Throttles reported during the pause
belong to connects already on their way and raise nothing.

It does not dial, and does not know what a key stands for.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from gatewayd.errors import LocalProtocolError

K = TypeVar("K", bound=Hashable)

# Half of what the smallest IoT Hub takes: S1 allows max(100/s, 12/s/unit) new connections for the whole hub
# (Microsoft, "IoT Hub quotas and throttling").
DEFAULT_PER_SECOND: Final = 50
WINDOW_SECONDS: Final = 1.0
MAX_STRAIN: Final = 6
# A hub that asks for more than this is believed this far.
MAX_PAUSE_SECONDS: Final = 300.0
# How long no throttle must be seen for the strain to fall by one.
QUIET_SECONDS: Final = 30.0


class Purpose(enum.IntEnum):
    """Why a connection is wanted; the lower goes first."""

    RENEWAL = 0
    RECONNECT = 1
    FIRST = 2


@dataclass(frozen=True, slots=True)
class Permit(Generic[K]):
    """Permission to write one CONNECT. Spend it or give it back, once."""

    key: K
    purpose: Purpose
    granted: float
    waited: float


class ConnectBudget(Generic[K]):
    """Who may connect next, and when. All instants are monotonic seconds."""

    __slots__ = (
        "_busy",
        "_limit",
        "_out",
        "_paused_until",
        "_per_second",
        "_queues",
        "_quiet_from",
        "_serial",
        "_strain",
        "_waiting",
    )

    def __init__(self, per_second: int = DEFAULT_PER_SECOND) -> None:
        self._busy: deque[float] = deque()  # instants at which a place becomes free again, ascending
        self._out: dict[K, Permit[K]] = {}
        self._queues: tuple[list[tuple[float, int, K]], ...] = tuple([] for _ in Purpose)
        self._waiting: dict[K, tuple[int, Purpose, float]] = {}  # key -> (serial, purpose, asked at)
        self._serial = 0
        self._strain = 0
        self._paused_until = float("-inf")
        self._quiet_from = float("-inf")
        self._per_second = 0
        self._limit = 0
        self.retune(per_second)

    def retune(self, per_second: int) -> None:
        """Use another budget from now on. Permits out and CONNECTs already written stay."""
        if per_second < 1:
            raise ValueError(f"budget of {per_second} connects/s: expected at least 1")
        self._per_second = per_second
        self._limit = max(1, per_second >> self._strain)

    # -- requests -------------------------------------------------------------------------------------------------

    def request(self, key: K, purpose: Purpose, deadline: float, now: float) -> None:
        """Queue `key`; a request it already has is replaced. Its waiting time counts from the first request."""
        if key in self._out:
            raise LocalProtocolError(f"{key!r} holds a permit and asks for another")
        self._serial += 1
        before = self._waiting.get(key)
        self._waiting[key] = (self._serial, purpose, now if before is None else before[2])
        heapq.heappush(self._queues[purpose], (deadline, self._serial, key))
        self._prune(purpose)

    def withdraw(self, key: K) -> bool:
        """Take back the waiting request of `key`; False when there is none. A permit out is not touched."""
        withdrawn = self._waiting.pop(key, None)
        if withdrawn is None:
            return False
        self._prune(withdrawn[1])
        return True

    def next_permit(self, now: float) -> Permit[K] | None:
        """Grant one permit if the invariant and the cool-down allow it and somebody waits."""
        if not self._waiting:
            return None
        self._forget_past(now)
        if self.available(now) <= 0:
            return None
        for queue in self._queues:
            while queue:
                _, serial, key = heapq.heappop(queue)
                waiting = self._waiting.get(key)
                if waiting is not None and waiting[0] == serial:
                    del self._waiting[key]
                    permit = Permit(key, waiting[1], now, now - waiting[2])
                    self._out[key] = permit
                    return permit
        raise LocalProtocolError("a waiting request is in no queue")

    # -- permits --------------------------------------------------------------------------------------------------

    def spend(self, permit: Permit[K], now: float) -> None:
        """CONNECT is being written."""
        self._end(permit)
        self._hold_until(now + WINDOW_SECONDS)

    def give_back(self, permit: Permit[K], now: float) -> None:
        """The attempt ended before CONNECT."""
        self._end(permit)
        free_at = permit.granted + WINDOW_SECONDS
        if free_at > now:
            self._hold_until(free_at)

    def throttled(self, now: float, seconds: float = 0.0) -> None:
        """The hub throttled a connect and asks to wait `seconds` (0 when it did not say)."""
        self._forget_past(now)
        asked = min(seconds, MAX_PAUSE_SECONDS)
        if now < self._paused_until:
            self._paused_until = max(self._paused_until, now + asked)
        else:
            self._strain = min(MAX_STRAIN, self._strain + 1)
            self._paused_until = now + max(asked, float(1 << (self._strain - 1)))
        self._limit = max(1, self._per_second >> self._strain)
        self._quiet_from = self._paused_until

    # -- time -----------------------------------------------------------------------------------------------------

    def available(self, now: float) -> int:
        """How many permits could be granted at `now`. A view: it changes nothing."""
        if now < self._paused_until:
            return 0
        freed = 0
        for instant in self._busy:
            if instant > now:
                break
            freed += 1
        limit = max(1, self._per_second >> self._eased(now)[0])
        return max(0, limit - (len(self._busy) - freed) - len(self._out))

    def deadline(self) -> float | None:
        """When `next_permit` may next grant by the passing of time alone; an instant that is past means now."""
        if not self._waiting:
            return None
        places = len(self._busy) + len(self._out)
        if places < self._limit:
            return self._paused_until
        needed = places - self._limit  # this many places must fall free first, and one more
        soonest = self._busy[needed] if needed < len(self._busy) else math.inf
        if self._strain:
            soonest = min(soonest, self._quiet_from + QUIET_SECONDS)
        return None if soonest == math.inf else max(self._paused_until, soonest)

    @property
    def per_second(self) -> int:
        """The budget, whatever the strain."""
        return self._per_second

    @property
    def waiting(self) -> int:
        """Requests without a permit."""
        return len(self._waiting)

    @property
    def out(self) -> int:
        """Permits neither spent nor given back."""
        return len(self._out)

    @property
    def strain(self) -> int:
        """0 when the hub does not throttle; each step halves the limit."""
        return self._strain

    def holds(self, key: K) -> bool:
        """Whether `key` waits or has a permit."""
        return key in self._waiting or key in self._out

    # -- inside ---------------------------------------------------------------------------------------------------

    def _end(self, permit: Permit[K]) -> None:
        if self._out.get(permit.key) is not permit:
            raise LocalProtocolError(f"the permit of {permit.key!r} was already spent or given back")
        del self._out[permit.key]

    def _hold_until(self, instant: float) -> None:
        busy = self._busy
        if not busy or busy[-1] <= instant:
            busy.append(instant)
            return
        # A permit given back frees its place earlier than CONNECTs written meanwhile; the queue stays ascending.
        later: list[float] = []
        while busy and busy[-1] > instant:
            later.append(busy.pop())
        busy.append(instant)
        busy.extend(reversed(later))

    def _eased(self, now: float) -> tuple[int, float]:
        """The strain at `now`, and since when it has been quiet. Compares as `deadline` adds, or a wake is lost."""
        strain, quiet_from = self._strain, self._quiet_from
        while strain and now >= quiet_from + QUIET_SECONDS:
            strain -= 1
            quiet_from += QUIET_SECONDS
        return strain, quiet_from

    def _forget_past(self, now: float) -> None:
        """Take over what the passing of time until `now` has changed."""
        while self._busy and self._busy[0] <= now:
            self._busy.popleft()
        self._strain, self._quiet_from = self._eased(now)
        self._limit = max(1, self._per_second >> self._strain)

    def _prune(self, purpose: Purpose) -> None:
        """Drop stale heads, and rebuild a queue that is mostly stale, so that memory stays with what waits."""
        queue = self._queues[purpose]
        if len(queue) > 64 and len(queue) > 4 * len(self._waiting):
            queue[:] = [item for item in queue if self._waiting.get(item[2], (0,))[0] == item[1]]
            heapq.heapify(queue)
