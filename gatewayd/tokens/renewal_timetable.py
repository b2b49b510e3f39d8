"""When each token is renewed: the least crowded place in a window of its life. Pure.

A fixed fraction of the life replays the boot for ever: devices that came up together renew together, every
cycle. Here every renewal gets a place of its own. Time is cut into slots, `slots_per_second` of them, just
enough for the fleet's floor (renewals per second when each token is used until `latest`) and a twentieth
more.

* A *planned* renewal takes the latest free slot of [earliest, latest] of the token's life: renewals stay
  few, and a fleet that is flat stays flat, because everyone moves by nearly the same length.
* A *first* renewal (`wide`: first connect, or a connect that nobody planned) may lie anywhere from soon
  after signing to `latest`, and goes to the second that has least: the fleet is flat from its first cycle
  on.

While no slot is used twice, every second, aligned or sliding, sees at most `slots_per_second` renewals.
Windows that are full fall back to the least loaded second. A window that is past is due now; the connect
budget paces those.

A search looks at `SCAN_SECONDS` seconds at most, so a place costs the same for ten devices and ten thousand,
and for lives of seconds and of years. It does not sign, wait or connect, and knows nothing of wall time.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

# The longest stretch one search looks at. The window of a one-hour token (0.70 to 0.85) has 540 seconds, its wide one
# about 3,000.
SCAN_SECONDS: Final = 4096
# Slots beyond the floor: room to find a free one. The promised peak, max(ceil(floor) + 1, 1.15 x floor), holds for any
# share up to 1.05: ceil(1.05 f) <= ceil(f) + 1 up to f = 20, and ceil(1.05 f) <= 1.15 f from f = 10 on.
SLOT_SHARE: Final = 1.05
# A fleet that shrinks keeps its grid until it is this much too fine, so that one device that comes and goes at an edge
# does not have the whole timetable filed anew each time.
SHRINK_SLACK: Final = 1.04
MAX_SLOTS_PER_SECOND: Final = 1024
# How soon after signing a wide window opens, as a fraction of the life.
WIDE_OPENS: Final = 0.02

_CHUNK_SECONDS: Final = 128
_FULL: Final = 255
_GOLDEN: Final = 0.6180339887498949  # the fraction that spreads a sequence most evenly


class _Chunk:
    """The load of some seconds in a row, per second and per slot."""

    __slots__ = ("live", "seconds", "slots")

    def __init__(self, slots_per_second: int) -> None:
        self.seconds = [0] * _CHUNK_SECONDS
        self.slots = bytearray(_CHUNK_SECONDS * slots_per_second)
        self.live = 0


class RenewalTimetable:
    """Places renewals; one place per key. All instants are monotonic seconds."""

    __slots__ = (
        "_chunks",
        "_earliest",
        "_expected_rate",
        "_latest",
        "_overflow",
        "_phase",
        "_placed",
        "_rate",
        "_slots_per_second",
    )

    def __init__(self, earliest: float, latest: float) -> None:
        self._chunks: dict[int, _Chunk] = {}
        self._overflow: dict[int, int] = {}  # slot -> renewals beyond the 255 a slot's byte can count
        self._placed: dict[Hashable, tuple[float, float]] = {}  # key -> (instant, share of the floor)
        self._rate = 0.0
        self._expected_rate = 0.0
        self._phase = 0.0
        self._slots_per_second = 1
        self._earliest = self._latest = 0.0
        self.retime(earliest, latest)

    def retime(self, earliest: float, latest: float) -> None:
        """Use another window from the next `place` on."""
        if not 0.0 < earliest < latest < 1.0:
            raise ValueError(f"renewal window [{earliest}, {latest}]: expected 0 < earliest < latest < 1")
        self._earliest, self._latest = earliest, latest

    def expect(self, devices: int, lifetime: float) -> None:
        """Say how large the fleet will be, so that its first renewals already lie on the final grid."""
        self._expected_rate = devices / (self._latest * lifetime)
        self._fit_grid()

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
        """When to renew the token of `key`, which was signed at `signed`; replaces an earlier place of that key.

        `busy_until`: a wide window opens no sooner (but no later than `earliest`), because the fleet is still coming up
        and renewals would take its turns.
        """
        life = expires - signed
        if life <= 0:
            raise ValueError(f"a token of {life} s of life cannot be placed")
        self.remove(key)
        rate = 1.0 / (self._latest * life)
        self._rate += rate
        self._fit_grid()
        opens = signed + life * self._earliest
        if wide:
            opens = min(opens, max(signed + life * WIDE_OPENS, busy_until))
        closes = signed + life * self._latest
        at = self._search(max(now, opens), closes, wide=wide) if closes > now else now
        self._placed[key] = (at, rate)
        self._add(at)
        return at

    def remove(self, key: Hashable) -> bool:
        """Forget the place of `key`; False when it has none."""
        placed = self._placed.pop(key, None)
        if placed is None:
            return False
        at, rate = placed
        self._rate = self._rate - rate if self._placed else 0.0
        self._take(at)
        return True

    def planned(self, key: Hashable) -> float | None:
        """The instant placed for `key`."""
        placed = self._placed.get(key)
        return None if placed is None else placed[0]

    def __len__(self) -> int:
        return len(self._placed)

    @property
    def latest(self) -> float:
        """The end of the window, as a fraction of a token's life."""
        return self._latest

    @property
    def floor(self) -> float:
        """Renewals per second when every placed token is used until `latest`: the fewest there can be."""
        return self._rate

    @property
    def slots_per_second(self) -> int:
        """The most renewals in any second while no window is full."""
        return self._slots_per_second

    def load(self, second: int) -> int:
        """Renewals placed in [second, second + 1)."""
        chunk = self._chunks.get(second // _CHUNK_SECONDS)
        return 0 if chunk is None else chunk.seconds[second % _CHUNK_SECONDS]

    # -- search ---------------------------------------------------------------------------------------------------

    def _search(self, opens: float, closes: float, *, wide: bool) -> float:
        grid = self._slots_per_second
        first, last = math.ceil(opens * grid), math.floor(closes * grid)
        if first > last:
            return closes
        reach = SCAN_SECONDS * grid
        if wide:
            self._phase = (self._phase + _GOLDEN) % 1.0
            if last - first > reach:
                first += int((last - first - reach) * self._phase)
                last = first + reach
            slot = self._in_least_loaded_second(first, last, self._phase)
        else:
            first = max(first, last - reach)
            slot = self._latest_free(first, last)
            if slot < 0:
                slot = self._in_least_loaded_second(first, last, 1.0)
        return slot / grid

    def _latest_free(self, first: int, last: int) -> int:
        """The latest slot of [first, last] that nobody uses; -1 when there is none."""
        width = _CHUNK_SECONDS * self._slots_per_second
        index = last // width
        while index >= first // width:
            base = index * width
            chunk = self._chunks.get(index)
            if chunk is None:
                return min(last, base + width - 1)
            found = chunk.slots.rfind(0, max(0, first - base), min(width, last - base + 1))
            if found >= 0:
                return base + found
            index -= 1
        return -1

    def _in_least_loaded_second(self, first: int, last: int, phase: float) -> int:
        """A slot of the least loaded second of [first, last]: the latest free one, else the least used.

        Among equals the second nearest before `phase` of the range wins. The seconds at the edges, of which only a part
        lies in the range, win when they are less loaded even for their part.
        """
        grid = self._slots_per_second
        start, end = -(-first // grid), (last + 1) // grid - 1
        if start <= end:
            pivot = start + int((end - start) * phase)
            second, load = self._least_loaded_second(start, pivot)
            if load and pivot < end:
                other, other_load = self._least_loaded_second(pivot + 1, end)
                if other_load < load:
                    second, load = other, other_load
            low, high = second * grid, second * grid + grid - 1
            for edge_low, edge_high in ((first, start * grid - 1), (end * grid + grid, last)):
                part = edge_high - edge_low + 1
                if part > 0 and self.load(edge_low // grid) * grid < load * part:
                    low, high, load = edge_low, edge_high, -1
            first, last = low, high
        slot = self._latest_free(first, last)
        return slot if slot >= 0 else self._least_used(first, last)

    def _least_loaded_second(self, first: int, last: int) -> tuple[int, int]:
        """The least loaded second of [first, last], and its load; the latest among equals."""
        best, best_load = last, self.load(last)
        index = last // _CHUNK_SECONDS
        while best_load and index >= first // _CHUNK_SECONDS:
            base = index * _CHUNK_SECONDS
            end = min(last, base + _CHUNK_SECONDS - 1)
            chunk = self._chunks.get(index)
            if chunk is None:
                return end, 0
            loads = chunk.seconds[max(0, first - base) : end - base + 1]
            least = min(loads)
            if least < best_load:
                loads.reverse()
                best, best_load = end - loads.index(least), least
            index -= 1
        return best, best_load

    def _least_used(self, first: int, last: int) -> int:
        return min(range(last, first - 1, -1), key=self._slot_load)

    # -- counts ---------------------------------------------------------------------------------------------------

    def _slot_load(self, slot: int) -> int:
        width = _CHUNK_SECONDS * self._slots_per_second
        chunk = self._chunks.get(slot // width)
        return 0 if chunk is None else chunk.slots[slot % width] + self._overflow.get(slot, 0)

    def _slot(self, at: float) -> int:
        # Half a slot of care: at was computed as slot / grid and must come back as the same slot.
        return math.floor(at * self._slots_per_second + 1e-6)

    def _add(self, at: float) -> None:
        grid = self._slots_per_second
        slot = self._slot(at)
        index, inside = divmod(slot, _CHUNK_SECONDS * grid)
        chunk = self._chunks.get(index)
        if chunk is None:
            chunk = self._chunks[index] = _Chunk(grid)
        if chunk.slots[inside] < _FULL:
            chunk.slots[inside] += 1
        else:
            self._overflow[slot] = self._overflow.get(slot, 0) + 1
        chunk.seconds[inside // grid] += 1
        chunk.live += 1

    def _take(self, at: float) -> None:
        grid = self._slots_per_second
        slot = self._slot(at)
        index, inside = divmod(slot, _CHUNK_SECONDS * grid)
        chunk = self._chunks[index]
        chunk.live -= 1
        if chunk.live == 0:
            del self._chunks[index]
            for crowded in [s for s in self._overflow if s // (_CHUNK_SECONDS * grid) == index]:
                del self._overflow[crowded]
            return
        chunk.seconds[inside // grid] -= 1
        beyond = self._overflow.get(slot, 0)
        if beyond > 1:
            self._overflow[slot] = beyond - 1
        elif beyond:
            del self._overflow[slot]
        else:
            chunk.slots[inside] -= 1

    def _fit_grid(self) -> None:
        """Keep the grid a little finer than the floor; file everything anew when it changes."""
        floor = max(self._rate, self._expected_rate)
        needed = min(MAX_SLOTS_PER_SECOND, max(1, math.ceil(SLOT_SHARE * floor - 1e-9)))
        if needed < self._slots_per_second:
            needed = min(MAX_SLOTS_PER_SECOND, max(1, math.ceil(SLOT_SHARE * SHRINK_SLACK * floor)))
        if needed == self._slots_per_second or (needed > self._slots_per_second) != (
            SLOT_SHARE * floor - 1e-9 > self._slots_per_second
        ):
            return
        self._slots_per_second = needed
        self._chunks.clear()
        self._overflow.clear()
        for at, _ in self._placed.values():
            self._add(at)


@dataclass(frozen=True, slots=True)
class Feasibility:
    """What a fleet asks of its timetable, and what stands against it. `problems` is empty when it can work."""

    floor: float
    expected_peak: int
    allowed_peak: float
    reconnect_all_seconds: float
    problems: tuple[str, ...]

    @property
    def feasible(self) -> bool:
        return not self.problems


# The shortest time a handover takes at a slow link (600 ms round trip: TCP, TLS, close, CONNACK). The window and the
# rest of the life after it must each hold one.
HANDOVER_SECONDS: Final = 2.0


def feasibility(
    devices: int, lifetime: float, earliest: float, latest: float, budget: float, reserve: float = 0.20
) -> Feasibility:
    """Whether `devices` tokens of `lifetime` seconds can be renewed in [earliest, latest] under `budget` connects/s.

    `reserve` is the share of the budget kept free for reconnects.
    """
    floor = devices / (latest * lifetime)
    expected_peak = max(1, math.ceil(SLOT_SHARE * floor - 1e-9))
    room = budget * (1.0 - reserve)
    problems: list[str] = []
    if expected_peak > room:
        enough = devices * SLOT_SHARE / (latest * math.floor(room)) if room >= 1 else math.inf
        problems.append(
            f"{devices} devices with tokens of {lifetime:g} s, used until {latest:.0%} of their life, are "
            f"{floor:.2f} renewals/s and {expected_peak} in the fullest second; a budget of {budget:g} connects/s "
            f"with {reserve:.0%} kept for reconnects leaves {room:g}/s (tokens of {enough:.0f} s or more fit)"
        )
    window, rest = (latest - earliest) * lifetime, (1.0 - latest) * lifetime
    if window < HANDOVER_SECONDS:
        problems.append(
            f"the window from {earliest:.0%} to {latest:.0%} of {lifetime:g} s is {window:.2f} s long; "
            f"a handover needs {HANDOVER_SECONDS:g} s"
        )
    if rest < HANDOVER_SECONDS:
        problems.append(
            f"after {latest:.0%} of {lifetime:g} s only {rest:.2f} s are left; "
            f"a renewal that fails needs {HANDOVER_SECONDS:g} s for another attempt"
        )
    return Feasibility(
        floor=floor,
        expected_peak=expected_peak,
        allowed_peak=max(math.ceil(floor) + 1, 1.15 * floor),
        reconnect_all_seconds=devices / budget,
        problems=tuple(problems),
    )
