"""The only file that reads the time.

Two kinds of time, never mixed: *monotonic* seconds for waiting (they stop in suspend and never step), *wall* seconds
since 1970-01-01 UTC for what the world will read (token expiry, certificates). `ClockWatch` compares the two: when the
difference between them moves, the wall clock stepped or the machine slept, and everything planned from an expiry must
be planned again.

The wall clock is *known wrong* while it is below a floor that certainly lies in the past: the date of this release, or
the last good time an earlier run saw. Nothing is signed then (promise *clock*). A clock above the floor may still be
wrong; whether the kernel calls it synchronised is reported as a metric and is not a gate, because gateways with a
battery-backed clock and no NTP server are legitimate.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import Protocol

# 2026-11-01T00:00:00Z: this release did not exist before, so a clock below it is wrong.
RELEASE_EPOCH_SECONDS = 1_793_491_200

# A wall clock that moves against the monotonic one by more than this between two looks has stepped. NTP slews at most
# 500 ppm (adjtime(3), ntpd's bound), which is 0.5 ms a second.
STEP_THRESHOLD_SECONDS = 0.5

STA_UNSYNC = 0x0040  # linux/timex.h


class Clock(Protocol):
    """Time as an argument. All values are seconds."""

    def monotonic(self) -> float:
        """Seconds for waiting; the same base as the event loop's time."""

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    def asleep(self) -> float:
        """Seconds this machine has spent suspended since boot."""


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    # Asked several times for each message: the C functions themselves.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def asleep(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class ManualClock:
    """A clock that moves only when told: virtual time for simulations and tests."""

    __slots__ = ("_asleep", "_monotonic", "_wall")

    def __init__(self, wall: float = float(RELEASE_EPOCH_SECONDS), monotonic: float = 0.0) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._asleep = 0.0

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def asleep(self) -> float:
        return self._asleep

    def advance(self, seconds: float) -> None:
        """Let time pass for both clocks."""
        self._monotonic += seconds
        self._wall += seconds

    def advance_to(self, monotonic: float) -> None:
        """Let time pass until the monotonic clock shows `monotonic`; never backwards."""
        self.advance(max(0.0, monotonic - self._monotonic))

    def step(self, seconds: float) -> None:
        """Set the wall clock, as NTP or an operator does."""
        self._wall += seconds

    def suspend(self, seconds: float) -> None:
        """Sleep: the wall clock goes on, the monotonic one stands still."""
        self._wall += seconds
        self._asleep += seconds


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The wall clock moved by `seconds` against the monotonic one; `suspended` of them were spent asleep."""

    seconds: float
    suspended: float


class ClockWatch:
    """Sees steps and suspends, and says whether the wall clock may be used for signing."""

    __slots__ = ("_asleep", "_clock", "_floor", "_offset")

    def __init__(self, clock: Clock, *, floor: float = float(RELEASE_EPOCH_SECONDS)) -> None:
        self._clock = clock
        self._floor = floor
        self._offset = clock.wall() - clock.monotonic()
        self._asleep = clock.asleep()

    @property
    def trusted(self) -> bool:
        """False while the wall clock is known wrong: below a time that certainly is in the past."""
        return self._clock.wall() >= self._floor

    @property
    def floor(self) -> float:
        """The wall time, in seconds, below which the clock is known wrong."""
        return self._floor

    def look(self) -> ClockStep | None:
        """Compare both clocks with the last look; a `ClockStep` when they moved apart, else None.

        Slow drift is taken up silently: each look becomes the base of the next.
        """
        offset = self._clock.wall() - self._clock.monotonic()
        asleep = self._clock.asleep()
        moved, suspended = offset - self._offset, asleep - self._asleep
        self._offset, self._asleep = offset, asleep
        if abs(moved) <= STEP_THRESHOLD_SECONDS:
            return None
        return ClockStep(seconds=moved, suspended=suspended)


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), as far as `status`; the rest is room the kernel may write to."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_byte * 256),
    )


def kernel_clock_synchronized() -> bool | None:
    """Whether the kernel calls its clock synchronised (adjtimex(2), STA_UNSYNC clear); None where it cannot say.

    Reading needs no privilege. ctypes calls out only: no callback, so MemoryDenyWriteExecute= stays possible.
    """
    timex = _Timex()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.byref(timex)) < 0:
        return None
    return not timex.status & STA_UNSYNC
