"""Whether the daemon gets on with its work, room by room. Pure.

A room that must not stand still says what it promises (`expect`) and reports each turn of its work (`report`). It
reports progress, not presence: the renewal loop reports after it has looked at who is due, so a loop that waits for
ever on something counts as stalled although its task exists. Whoever asks (`stalled`) passes the time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stall:
    """A room that has not reported for longer than it promised. Times in seconds."""

    room: str
    silent_for: float
    promised: float

    def __str__(self) -> str:
        return f"{self.room} has not reported for {self.silent_for:.1f} s, it promised every {self.promised:.1f} s"


class Progress:
    """The last sign of progress of each room that promised some."""

    __slots__ = ("_last", "_promised")

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._promised: dict[str, float] = {}

    def expect(self, room: str, every: float, now: float) -> None:
        """`room` promises to report at least every `every` seconds, from `now` on. Saying it again changes it."""
        if every <= 0:
            raise ValueError(f"{room} promises progress every {every} s: expected more than 0")
        self._promised[room] = every
        self._last[room] = now

    def report(self, room: str, now: float) -> None:
        """`room` has got on with its work. KeyError for a room that promised nothing: its name is misspelt."""
        if room not in self._promised:
            raise KeyError(room)
        self._last[room] = now

    def dismiss(self, room: str) -> None:
        """`room` has ended as planned; nothing is expected of it any more."""
        self._promised.pop(room, None)
        self._last.pop(room, None)

    def stalled(self, now: float) -> tuple[Stall, ...]:
        """The rooms that are behind their promise, the longest silent first."""
        late = [
            Stall(room, now - self._last[room], promised)
            for room, promised in self._promised.items()
            if now - self._last[room] > promised
        ]
        return tuple(sorted(late, key=lambda stall: stall.silent_for, reverse=True))
