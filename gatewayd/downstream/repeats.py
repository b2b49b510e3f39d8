"""Whether something is said for the first time in a while: first a warning, repeats at debug level. Pure, bounded.

A device that comes back every ten seconds with the same fault is one line in the log, not thousands.
"""

from __future__ import annotations

from typing import Final

# One entry is about 150 bytes.
MAX_SUBJECTS: Final = 20_000


class Repeats:
    """Remembers subjects. One that was quiet for `forget_after` seconds is new again."""

    __slots__ = ("_forget_after", "_last", "_max_subjects")

    def __init__(self, forget_after: float = 600.0, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self._forget_after = forget_after
        self._max_subjects = max_subjects
        self._last: dict[str, float] = {}

    def is_first(self, subject: str, now: float) -> bool:
        """Count `subject`; True when it was not heard of lately. A full table calls nothing new."""
        last = self._last.get(subject)
        if last is None and not self._has_room(now):
            return False
        self._last[subject] = now
        return last is None or now - last > self._forget_after

    def __len__(self) -> int:
        """How many subjects are remembered."""
        return len(self._last)

    def _has_room(self, now: float) -> bool:
        if len(self._last) >= self._max_subjects:
            self._last = {who: at for who, at in self._last.items() if now - at <= self._forget_after}
        return len(self._last) < self._max_subjects
