"""How often one device id and one address may connect, and how slowly a wrong credential is told so.

Both tables are bounded and both answer at the bound. Time is an argument, in monotonic seconds.

Why refusals are slow: the Node SDK runs up to three retry loops per device without much of a pause between attempts. A
device with a wrong key that is refused at once makes some 30 TLS handshakes in its first three seconds; one that waits
for its answer makes none meanwhile.
"""

from __future__ import annotations

from typing import Final

# One entry is about 200 bytes: 20 MB at most, reached only under an attack with made-up names.
MAX_KEYS: Final = 100_000


class RateLimit:
    """At most `limit` in any burst, and `limit` in each `window` seconds after it, for each key.

    It shapes rather than refuses: whoever comes too soon gets a place a little later, if that is soon enough. So a
    fleet that comes back all at once is let in one by one, and nobody tries again meanwhile.

    The generic cell rate algorithm (ITU-T I.371): one number per key, the time at which its bucket is full again.
    """

    __slots__ = ("_full_again", "_interval", "_max_keys", "_window")

    def __init__(self, limit: int, window: float, *, max_keys: int = MAX_KEYS) -> None:
        if limit < 1 or window <= 0:
            raise ValueError(f"rate limit {limit} in {window} s: expected at least 1 in more than 0 s")
        self._interval = window / limit
        self._window = window
        self._max_keys = max_keys
        self._full_again: dict[str, float] = {}

    def wait(self, key: str, now: float) -> float:
        """How many seconds a place asked for now would be away; none is kept."""
        full_again = max(self._full_again.get(key, now), now)
        return max(0.0, full_again + self._interval - self._window - now)

    def reserve(self, key: str, now: float, longest: float) -> float | None:
        """A place for `key`: the seconds to wait for it, 0 for at once. None, and no place, beyond `longest`.

        A full table has no place for a new key.
        """
        wait = self.wait(key, now)
        if wait > longest or (key not in self._full_again and not self._has_room(now)):
            return None
        self._full_again[key] = max(self._full_again.get(key, now), now) + self._interval
        # Sums of intervals that are no binary fractions: less than a microsecond is no wait.
        return wait if wait > 1e-6 else 0.0

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._full_again)

    def _has_room(self, now: float) -> bool:
        if len(self._full_again) >= self._max_keys:
            self._full_again = {key: at for key, at in self._full_again.items() if at > now}
        return len(self._full_again) < self._max_keys


class RefusalPacing:
    """How long a refusal waits before it is sent: doubled with each refusal of the same key, up to a ceiling.

    A key that was not refused for `forget_after` seconds starts over.
    """

    __slots__ = ("_ceiling", "_first", "_forget_after", "_max_keys", "_refused")

    def __init__(
        self, ceiling: float, *, first: float = 1.0, forget_after: float = 120.0, max_keys: int = MAX_KEYS
    ) -> None:
        self._first = first
        self._ceiling = ceiling
        self._forget_after = forget_after
        self._max_keys = max_keys
        self._refused: dict[str, tuple[int, float]] = {}

    def refused(self, key: str, now: float) -> float:
        """Count a refusal: the seconds until it may be sent. A full table answers with the ceiling."""
        times, last = self._refused.get(key, (0, now))
        if now - last > self._forget_after:
            times = 0
        if key not in self._refused and not self._has_room(now):
            return self._ceiling
        self._refused[key] = (times + 1, now)
        # The exponent is bounded: a float overflows at 2^1024, long after any ceiling.
        return min(self._ceiling, self._first * 2.0 ** min(times, 64))

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._refused)

    def _has_room(self, now: float) -> bool:
        if len(self._refused) >= self._max_keys:
            self._refused = {
                key: (times, last)
                for key, (times, last) in self._refused.items()
                if now - last <= self._forget_after
            }
        return len(self._refused) < self._max_keys
