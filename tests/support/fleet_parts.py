"""What the virtual fleet is made of: faults, connections, counters, and two timetables as others keep them."""

from __future__ import annotations

import enum
import math
import random
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from gatewayd.upstream.handover import Handover


class DialFault(enum.Enum):
    """What becomes of a dial."""

    NONE = "none"
    REFUSED = "refused"  # RST after one round trip
    DNS_GONE = "dns gone"  # the lookup fails after 5 s
    BLACKHOLE = "blackhole"  # nothing comes back


class ConnectFault(enum.Enum):
    """What becomes of a CONNECT that arrives."""

    NONE = "none"
    BUSY = "busy"  # CONNACK 3
    CLOSED = "closed"  # no CONNACK, the connection is closed
    SILENT = "silent"  # no CONNACK at all


class SlidingPeak:
    """The most events in any half-open second (t - 1, t]."""

    __slots__ = ("_times", "peak", "total")

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self.peak = 0
        self.total = 0

    def add(self, now: float) -> int:
        times = self._times
        while times and times[0] + 1.0 <= now:
            times.popleft()
        times.append(now)
        self.total += 1
        if len(times) > self.peak:
            self.peak = len(times)
        return len(times)


@dataclass(slots=True, eq=False)
class Connection:
    """One connection as both ends see it. `expires` is the token's `se`, in the hub's wall time."""

    device: Device
    expires: float = math.inf
    ours_open: bool = True
    hubs_open: bool = True
    accepted: bool = False
    accepted_at: float = math.nan


@dataclass(slots=True, eq=False)
class Device:
    """One identity: what its shell holds."""

    identity: int
    rtt: float
    handover: Handover | None = None
    renewing: bool = False
    reported: bool = False
    closing: bool = False
    signed_at: float = 0.0
    se: int = 0
    current: Connection | None = None
    fresh: Connection | None = None
    at_hub: Connection | None = None  # the hub's view
    hub_watch: bool = False  # the hub's expiry check is in the heap
    short_lives: int = 0
    disconnect_arrives: float = 0.0
    filed: float = math.inf  # when the earliest timer of its handover fires


@dataclass(slots=True)
class Network:
    """Round trips, in seconds: drawn once per device, and jitter on every leg."""

    rtt_least: float = 0.04
    rtt_most: float = 0.12
    jitter: float = 0.25  # of the round trip


@dataclass(slots=True)
class HubCounts:
    """What the hub saw."""

    accepted: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    planned: int = 0
    expired_in_use: int = 0
    expired_asleep: int = 0  # while the gateway was suspended, and nobody could renew


class FixedFraction:
    """Renews every token at the same fraction of its life, as the SDKs do. A negative control."""

    def __init__(self, earliest: float, latest: float) -> None:
        self.earliest, self.latest = earliest, latest

    def retime(self, earliest: float, latest: float) -> None:
        self.earliest, self.latest = earliest, latest

    def expect(self, devices: int, lifetime: float) -> None:
        """It does not look at the fleet."""

    def place(
        self,
        key: Hashable,
        signed: float,
        expires: float,
        now: float,
        *,
        wide: bool = False,
        busy_until: float = -math.inf,
    ) -> float:
        return max(now, signed + self.latest * (expires - signed))

    def remove(self, key: Hashable) -> bool:
        return True


class UniformRandom(FixedFraction):
    """Renews at a random instant of the same windows as ours, wide first cycle included. A negative control."""

    def __init__(self, earliest: float, latest: float, seed: int = 0) -> None:
        super().__init__(earliest, latest)
        self._random = random.Random(seed)

    def place(
        self,
        key: Hashable,
        signed: float,
        expires: float,
        now: float,
        *,
        wide: bool = False,
        busy_until: float = -math.inf,
    ) -> float:
        opens = 0.02 if wide else self.earliest
        return max(now, signed + (expires - signed) * self._random.uniform(opens, self.latest))
