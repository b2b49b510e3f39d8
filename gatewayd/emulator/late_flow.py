"""Delays what a stream brings, so that two TCP flows can overtake each other.

Stands between a stream and its owner. While `delay()` is above 0, data, the peer's end and the loss of the stream reach
the owner that much later, in their order; what comes after them waits behind them. While it is 0 and nothing is held,
everything passes straight through. The way back to the peer is never delayed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gatewayd.clock import Clock
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel
from gatewayd.transport.stream import Stream, StreamOwner

# A slow flow holds at most this much; the peer's next bytes then end the hold early rather than grow it.
MAX_HELD_BYTES = 4 * 1024 * 1024


class LateFlow:
    """A StreamOwner that hands on to another one, late."""

    __slots__ = ("_clock", "_deadline", "_delay", "_held", "_held_bytes", "_on_gone", "_owner", "_wheel")

    def __init__(
        self,
        owner: StreamOwner,
        wheel: DeadlineWheel,
        clock: Clock,
        delay: Callable[[], float],
        on_gone: Callable[[], None],
    ) -> None:
        """`on_gone` is called once, after the owner has heard that the stream is closed."""
        self._owner = owner
        self._on_gone = on_gone
        self._wheel = wheel
        self._clock = clock
        self._delay = delay
        # Due time, what to do, how many bytes it holds. Made when first needed: most streams are never late.
        self._held: deque[tuple[float, Callable[[], None], int]] | None = None
        self._held_bytes = 0
        self._deadline: Deadline | None = None

    def stream_ready(self, stream: Stream) -> None:
        self._owner.stream_ready(stream)

    def stream_writable(self) -> None:
        self._owner.stream_writable()

    def stream_data(self, data: bytes) -> None:
        delay = self._delay()
        if not self._held and delay <= 0:
            self._owner.stream_data(data)
            return
        if self._held_bytes + len(data) > MAX_HELD_BYTES:
            self._release(float("inf"))
        self._hold(lambda: self._owner.stream_data(data), delay, len(data))

    def stream_eof(self) -> None:
        delay = self._delay()
        if not self._held and delay <= 0:
            self._owner.stream_eof()
        else:
            self._hold(self._owner.stream_eof, delay, 0)

    def stream_closed(self, error: Exception | None) -> None:
        delay = self._delay()
        if not self._held and delay <= 0:
            self._close(error)
        else:
            self._hold(lambda: self._close(error), delay, 0)

    def _close(self, error: Exception | None) -> None:
        self._owner.stream_closed(error)
        self._on_gone()

    def _hold(self, step: Callable[[], None], delay: float, size: int) -> None:
        if self._held is None or self._deadline is None:
            self._held = deque()
            self._deadline = Deadline(self._release)
        due = self._clock.monotonic() + delay
        if self._held:
            due = max(due, self._held[-1][0])
        self._held.append((due, step, size))
        self._held_bytes += size
        self._wheel.set(self._deadline, self._held[0][0])

    def _release(self, now: float) -> None:
        assert self._held is not None
        assert self._deadline is not None
        try:
            while self._held and self._held[0][0] <= now:
                _, step, size = self._held.popleft()
                self._held_bytes -= size
                step()
        finally:
            self._wheel.set(self._deadline, self._held[0][0] if self._held else None)
