"""Drives one protocol automaton over one stream, in either role.

The automaton reasons, the conversation carries: bytes in, events out to `on_event`, bytes to send flushed once per
turn, its deadline kept in the shared wheel. It knows no protocol: the type of the automaton's closing event is an
argument.

Promises:

- `on_event` gets every event in order, except the closing one. It may call any verb of the automaton and any method
  here; what the verbs want to send is flushed when it returns. Verbs called anywhere else need `flush()` after them.
- `on_closed` gets the automaton's closing event, exactly once and last, whatever ended the conversation: the protocol,
  the peer, the network or we. The closing event is followed by flush, then close; `on_closed` is called after both were
  asked for, so nothing can be sent from it.
- `suspend()` stops both reading and events; events already here wait in memory, at most what one receive buffer makes.
  A closing event ends the suspension: what waits is delivered first, then `on_closed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from gatewayd.clock import Clock
from gatewayd.errors import LocalProtocolError
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel
from gatewayd.transport.stream import Stream

EventT = TypeVar("EventT")
ClosedT = TypeVar("ClosedT")
EventT_co = TypeVar("EventT_co", covariant=True)


class Automaton(Protocol[EventT_co]):
    """The one face of every protocol automaton. After `receive_eof` a closing event must be there, if none was yet."""

    def receive(self, data: bytes, now: float) -> None: ...
    def receive_eof(self, now: float) -> None: ...
    def next_event(self) -> EventT_co | None: ...
    def bytes_to_send(self) -> bytes: ...
    def deadline(self) -> float | None: ...
    def handle_deadline(self, now: float) -> None: ...


class Conversation(Generic[EventT, ClosedT]):
    """One automaton on one stream. It is a StreamOwner: give it to `open_stream`, or make it in an owner factory."""

    __slots__ = (
        "_automaton",
        "_clock",
        "_closed_type",
        "_deadline",
        "_error",
        "_finished",
        "_in_turn",
        "_on_closed",
        "_on_event",
        "_on_writable",
        "_stream",
        "_suspended",
        "_waiting",
        "_wheel",
        "is_closed",
    )

    def __init__(
        self,
        automaton: Automaton[EventT],
        wheel: DeadlineWheel,
        clock: Clock,
        on_event: Callable[[EventT], None],
        on_closed: Callable[[ClosedT], None],
        *,
        closed: type[ClosedT],
        on_writable: Callable[[], None] | None = None,
    ) -> None:
        """`closed` is the automaton's closing event. `on_writable` hears that a congested stream has drained."""
        self._automaton = automaton
        self._wheel = wheel
        self._clock = clock
        self._on_event = on_event
        self._on_closed = on_closed
        self._closed_type = closed
        self._on_writable = on_writable
        self._deadline = Deadline(self._deadline_due)
        self._stream: Stream | None = None  # from stream_ready to stream_closed
        self._waiting: deque[EventT] | None = (
            None  # events that came while suspended; None until there was one
        )
        self._suspended = False
        self._in_turn = False
        self._finished = False  # finish() was called: the peer's end is what stream_closed says
        self.is_closed = False  # `on_closed` has been called
        self._error: Exception | None = None

    @property
    def stream(self) -> Stream | None:
        """The stream, while there is one."""
        return self._stream

    @property
    def error(self) -> Exception | None:
        """What broke the stream, once it is closed; None for an end in order."""
        return self._error

    @property
    def due(self) -> float | None:
        """When the automaton is called next if nothing comes before."""
        return self._deadline.due

    @property
    def congested(self) -> bool:
        """Whether the peer takes our bytes more slowly than we send."""
        return self._stream is not None and self._stream.congested

    def flush(self) -> None:
        """After verbs of the automaton: deliver their events, send their bytes, file the deadline."""
        if self._in_turn or self.is_closed:
            return
        self._in_turn = True
        try:
            closing = self._deliver()
        finally:
            self._in_turn = False
        stream, automaton = self._stream, self._automaton
        if closing is not None:
            self._close(closing)
        elif stream is not None:
            data = automaton.bytes_to_send()
            # After finish() our end is said: what the automaton would still answer is not owed any more.
            if data and stream.is_open:
                stream.write(data)
            if self._finished:
                stream.finish()
            self._wheel.set(self._deadline, automaton.deadline())

    def finish(self) -> None:
        """Flush, then end our side of the stream and listen on: the automaton is told the peer's end at its FIN.

        The peer's close_notify alone is not passed on: it may come from its TLS layer, before its application has read
        what we sent last. When no FIN comes within the stream's linger, the stream is reset and `error` says so.
        """
        if self._stream is not None:
            self._finished = True
            self.flush()  # inside `on_event` that turn does it, behind what it has to send

    def abort(self, error: Exception | None = None) -> None:
        """Reset the connection. `on_closed` follows, later, with what the automaton makes of a lost connection."""
        if self._stream is not None:
            self._stream.abort(error)

    def suspend(self) -> None:
        """No events and no reading until `resume`. The automaton's own deadlines go on."""
        if not self._suspended and not self.is_closed:
            self._suspended = True
            if self._stream is not None:
                self._stream.pause_reading()

    def resume(self) -> None:
        """Undo `suspend`. The waiting events are delivered before this returns, unless it is called in `on_event`."""
        if self._suspended:
            self._suspended = False
            if self._stream is not None:
                self._stream.resume_reading()
            self.flush()

    # What the stream says

    def stream_ready(self, stream: Stream) -> None:
        self._stream = stream
        if self._suspended:
            stream.pause_reading()
        self.flush()

    def stream_data(self, data: bytes) -> None:
        if self.is_closed:
            return  # somebody between the stream and us was late
        self._automaton.receive(data, self._clock.monotonic())
        self.flush()

    def stream_eof(self) -> None:
        if self._finished or self.is_closed:
            return
        self._automaton.receive_eof(self._clock.monotonic())
        self.flush()

    def stream_writable(self) -> None:
        if self._on_writable is not None and not self.is_closed:
            self._on_writable()
            self.flush()

    def stream_closed(self, error: Exception | None) -> None:
        self._stream = None
        self._error = error
        if self.is_closed:
            return
        self._automaton.receive_eof(self._clock.monotonic())
        self.flush()
        if not self.is_closed:
            raise LocalProtocolError(
                f"{type(self._automaton).__name__} made no closing event of a lost connection"
            )

    # What time says

    def _deadline_due(self, now: float) -> None:
        try:
            self._automaton.handle_deadline(now)
            self.flush()
        except Exception as error:
            self.abort(error)
            raise

    # Within

    def _close(self, closing: ClosedT) -> None:
        self.is_closed = True
        self._wheel.set(self._deadline, None)
        stream = self._stream
        if stream is not None:
            data = self._automaton.bytes_to_send()
            if data and stream.is_open:
                stream.write(data)
            stream.close()
        self._on_closed(closing)

    def _deliver(self) -> ClosedT | None:
        """Hand out events; the closing one is returned."""
        while True:
            if self._waiting and not self._suspended:
                self._on_event(self._waiting.popleft())
                continue
            event = self._automaton.next_event()
            if event is None:
                return None
            if isinstance(event, self._closed_type):
                while self._waiting:
                    self._on_event(self._waiting.popleft())
                return event
            if self._suspended:
                if self._waiting is None:
                    self._waiting = deque()
                self._waiting.append(event)
            else:
                self._on_event(event)
