"""The hub's limit on device-to-cloud sends: shaped first, then the connection is closed. Pure.

S1 allows max(100/s, 12/s a unit) for the whole hub (IoT Hub quotas and throttling, Microsoft). Over MQTT a device sees
of it only that PUBACKs come later and, when it goes on, that the socket is closed.
"""

from __future__ import annotations

from collections import deque

SHAPE_SECONDS = 10.0
MAX_SENDS_PER_SECOND = 100_000


class SendThrottle:
    """At most `per_second` messages in any window of one second; 0 is no limit.

    A message over it is taken and its PUBACK waits until it would have had room, as long as that is at most
    `shape_seconds`; with 0 every message over the limit ends its connection.
    """

    __slots__ = ("_taken", "dropped", "shape_seconds", "shaped")

    def __init__(self, per_second: int = 0, shape_seconds: float = SHAPE_SECONDS) -> None:
        self.shape_seconds = shape_seconds
        self.shaped = 0
        self.dropped = 0
        self.per_second = per_second

    @property
    def per_second(self) -> int:
        return self._taken.maxlen or 0

    @per_second.setter
    def per_second(self, value: int) -> None:
        if not 0 <= value <= MAX_SENDS_PER_SECOND:
            raise ValueError(f"sends_per_second={value}: allowed 0 to {MAX_SENDS_PER_SECOND}")
        # When each of the last `per_second` messages had its turn.
        self._taken: deque[float] = deque(maxlen=value)

    def judge(self, now: float) -> float | None:
        """Seconds by which the PUBACK of a message that came at `now` is late; None: it is not taken."""
        taken = self._taken
        limit = taken.maxlen
        if not limit:
            return 0.0
        turn = now if len(taken) < limit else max(now, taken[0] + 1.0)
        if turn - now > self.shape_seconds:
            self.dropped += 1
            return None
        taken.append(turn)
        self.shaped += turn > now
        return turn - now
