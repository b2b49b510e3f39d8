"""PUBACKs that leave late, as those of a hub that shapes traffic do.

The core sends PUBACKs in the order of the messages, so one that is late holds those behind it; none is filed earlier
than the one before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel


class LateReceipts:
    """Of one connection; costs nothing until one is late."""

    __slots__ = ("_acknowledge", "_deadline", "_done", "_late", "_wheel")

    def __init__(
        self, wheel: DeadlineWheel, acknowledge: Callable[[int], None], done: Callable[[], None]
    ) -> None:
        """`done` is called after each round of acknowledging."""
        self._wheel = wheel
        self._acknowledge = acknowledge
        self._done = done
        self._late: deque[tuple[float, int]] | None = None
        self._deadline: Deadline | None = None

    @property
    def waiting(self) -> bool:
        return bool(self._late)

    def add(self, packet_id: int, due: float) -> None:
        if self._late is None or self._deadline is None:
            self._late = deque()
            self._deadline = Deadline(self._release)
        if self._late:
            due = max(due, self._late[-1][0])
        self._late.append((due, packet_id))
        self._wheel.set(self._deadline, self._late[0][0])

    def close(self) -> None:
        if self._deadline is not None:
            self._wheel.set(self._deadline, None)

    def _release(self, now: float) -> None:
        late = self._late
        assert late is not None
        assert self._deadline is not None
        while late and late[0][0] <= now:
            self._acknowledge(late.popleft()[1])
        self._wheel.set(self._deadline, late[0][0] if late else None)
        self._done()
