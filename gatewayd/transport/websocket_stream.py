"""A WebSocket that carries MQTT, as one more kind of stream: the owner of the TLS below, a stream to its own owner.

wsproto reads and writes the frames. What is inside binary messages is handed on as it comes, without regard to frames
and messages ("the receiver MUST NOT assume that MQTT Control Packets are aligned on WebSocket frame boundaries",
[MQTT-6.0.0-2]): nothing is gathered, so the length of a message needs no bound of its own.

    UPGRADING ──> OPEN ──> FINISHED ──> LOST
          └─────────┴────> CLOSING ───> LOST

It keeps the promises of `tls_stream`, with these additions:

- `stream_ready` comes when the upgrade is done. When it fails, or is not done in `upgrade_timeout`, `on_failed` is
  called instead, the HTTP answer is sent and the connection ends.
- The peer's Close frame is its end (`stream_eof`), and answered at once. What is written after it would not be read and
  is dropped.
- `finish()` and `close()` send a Close frame behind everything written. The end of TLS follows when the peer's Close
  frame is here, or its own end, or after `linger` seconds; so a proxy that takes a FIN for the end of both ways cuts
  off nothing. As with TLS, that the peer's application let go is shown by its FIN alone.
- Text, and whatever breaks the framing, ends the stream with the Close code that says why, and `ConnectionLost`.
- So does a read with more than `FRAMES_PER_READ` frames in it.
- Of the pings in one read the last is answered (RFC 6455, 5.5.3), and none while the stream is congested: a peer that
  pings without reading makes us keep nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
from collections.abc import Callable, Iterator
from typing import Final

from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from gatewayd.errors import ConnectionLost, HandshakeFailed, LocalProtocolError
from gatewayd.transport.stream import Stream, StreamOwner
from gatewayd.transport.websocket_upgrade import Declined, Upgrade

# Larger writes go out as several messages. Some servers refuse a frame of more than 64 KiB (Netty's default); half of
# that also bounds what wsproto copies to mask it.
FRAME_BYTES: Final = 32768

# A read of 64 KiB can hold 10,900 empty frames, and each costs what a full one does: 0.2 s of the loop for what a
# stranger sends in one go. The smallest PUBLISH a device can send here makes fewer than 2,000.
FRAMES_PER_READ: Final = 2048


class _State(enum.Enum):
    UPGRADING = enum.auto()
    OPEN = enum.auto()
    FINISHED = enum.auto()
    CLOSING = enum.auto()
    LOST = enum.auto()


class WebSocketStream:
    """A WebSocket in either role; the module's docstring is its contract."""

    __slots__ = (
        "_below",
        "_close_heard",
        "_eof_told",
        "_error",
        "_frames",
        "_held",
        "_linger",
        "_loop",
        "_on_failed",
        "_on_ready",
        "_owner",
        "_paused",
        "_peer_ended",
        "_state",
        "_timer",
        "_upgrade",
        "_upgrade_timeout",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        upgrade: Upgrade,
        *,
        upgrade_timeout: float,
        linger: float,
        on_ready: Callable[[WebSocketStream], StreamOwner],
        on_failed: Callable[[WebSocketStream, HandshakeFailed], None],
    ) -> None:
        """Give it to a stream as its owner. Exactly one of `on_ready` and `on_failed` is called, once.

        `upgrade_timeout` runs from the moment the stream below is ready.
        """
        self._loop = loop
        self._linger = linger
        self._upgrade: Upgrade | None = upgrade
        self._on_ready: Callable[[WebSocketStream], StreamOwner] | None = on_ready
        self._on_failed: Callable[[WebSocketStream, HandshakeFailed], None] | None = on_failed
        self._below: Stream | None = None  # from its stream_ready on, and kept after the end
        self._frames: Connection | None = None  # from the end of the upgrade on
        self._owner: StreamOwner | None = None  # from the end of the upgrade to stream_closed
        self._state = _State.UPGRADING
        self._held = b""  # came behind the upgrade when its owner was paused already
        self._paused = False
        self._peer_ended = False  # its Close frame, close_notify or FIN was read
        self._close_heard = False
        self._eof_told = False
        self._error: Exception | None = None  # why this side gave the stream up
        self._upgrade_timeout = upgrade_timeout
        self._timer: asyncio.TimerHandle | None = None

    # What the stream is

    @property
    def peer_address(self) -> tuple[str, int]:
        """Host and port of the peer, also when it has gone."""
        return self._carrier.peer_address

    @property
    def tls_version(self) -> str | None:
        return self._carrier.tls_version

    @property
    def session(self) -> ssl.SSLSession | None:
        return self._carrier.session

    @property
    def session_reused(self) -> bool:
        return self._carrier.session_reused

    @property
    def peer_certificate_der(self) -> bytes | None:
        return self._carrier.peer_certificate_der

    @property
    def truncated(self) -> bool:
        """True when the peer's side ended without a Close frame."""
        return self._peer_ended and not self._close_heard

    @property
    def is_open(self) -> bool:
        """Whether `write` is allowed and of use."""
        return self._state is _State.OPEN and not self._close_heard and self._carrier.is_open

    @property
    def congested(self) -> bool:
        return self._carrier.congested

    @property
    def write_buffer_size(self) -> int:
        return self._carrier.write_buffer_size

    @property
    def _carrier(self) -> Stream:
        if self._below is None:
            raise LocalProtocolError("a WebSocket has a stream below once that is ready")
        return self._below

    # What the owner does

    def write(self, data: bytes) -> bool:
        """Send `data` in binary messages. False when the stream is congested: better stop until `stream_writable`."""
        frames, below = self._frames, self._below
        if self._state is not _State.OPEN:
            if self._state is _State.LOST:
                return False
            raise LocalProtocolError(f"write on a WebSocket that is {self._state.name}")
        assert frames is not None
        assert below is not None
        if self._close_heard or not below.is_open:
            return False
        if len(data) <= FRAME_BYTES:
            return below.write(frames.send(BytesMessage(data=data)))
        uncongested = True
        for start in range(0, len(data), FRAME_BYTES):
            uncongested = below.write(frames.send(BytesMessage(data=data[start : start + FRAME_BYTES])))
        return uncongested

    def pause_reading(self) -> None:
        """Read nothing and hand out nothing, from this instant. Pings wait too."""
        if not self._paused:
            self._paused = True
            self._carrier.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`. What was held comes in a later turn of the loop, never inside this call."""
        if self._paused:
            self._paused = False
            if self._held or self._peer_ended:
                # Asked for before the stream below hands out its own: that came later.
                self._loop.call_soon(self._hand_out_held)
            self._carrier.resume_reading()

    def finish(self) -> None:
        """End our side: everything written, then a Close frame. The peer is read on until its FIN."""
        if self._state is _State.OPEN:
            self._say_close(_State.FINISHED)

    def close(self) -> None:
        """End both sides in order; what still arrives is dropped. Only `stream_closed` follows."""
        if self._state is _State.UPGRADING:
            self.abort()
        elif self._state is _State.OPEN:
            self._say_close(_State.CLOSING)
        elif self._state is _State.FINISHED:
            self._state = _State.CLOSING
            if self._peer_ended:
                self._carrier.close()
        if self._state is _State.CLOSING:
            self._held = b""
            self.resume_reading()

    def abort(self, error: Exception | None = None) -> None:
        """Reset the connection and drop what is unsent. `stream_closed(error)` follows, later."""
        if self._state is _State.LOST:
            return
        self._stop_timer()
        if self._state is _State.UPGRADING:
            self._upgrade_failed("given up on this side")
        self._state = _State.LOST
        self._error = self._error or error
        if self._below is not None:
            self._below.abort(error)

    # What the stream below says

    def stream_ready(self, stream: Stream) -> None:
        self._below = stream
        if self._state is not _State.UPGRADING:  # aborted before TLS was done
            stream.abort()
            return
        assert self._upgrade is not None
        self._timer = self._loop.call_later(self._upgrade_timeout, self._overdue)
        if first := self._upgrade.begin():
            stream.write(first)

    def stream_data(self, data: bytes) -> None:
        if self._state is _State.UPGRADING:
            self._go_on_with_the_upgrade(data)
        elif self._held:
            self._held += data  # behind a pause that is over and whose bytes are handed out next
        else:
            self._receive(data)

    def stream_eof(self) -> None:
        """The end of TLS, or a FIN: with the Close frame before it in order, without it a truncation."""
        self._peer_ended = True
        if self._state is _State.UPGRADING:
            self._upgrade_failed("the other end closed the connection during the WebSocket upgrade")
            self._give_up(None)
        elif self._state is _State.OPEN:
            self._tell_eof()
        else:
            self._end_below()

    def stream_writable(self) -> None:
        if self._state is _State.OPEN and self._owner is not None:
            self._owner.stream_writable()

    def stream_closed(self, error: Exception | None) -> None:
        if self._state is _State.UPGRADING:
            self._upgrade_failed(str(error) if error is not None else "the connection was closed")
        self._state = _State.LOST
        self._stop_timer()
        self._held = b""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.stream_closed(self._error or error)

    # Upgrade

    def _go_on_with_the_upgrade(self, data: bytes) -> None:
        assert self._upgrade is not None
        verdict = self._upgrade.receive(data)
        if verdict is None:
            return
        if isinstance(verdict, Declined):
            self._declined(verdict)
            return
        self._stop_timer()
        if verdict.reply:
            self._carrier.write(verdict.reply)
        self._frames = verdict.frames
        self._state = _State.OPEN
        on_ready, self._on_ready, self._on_failed, self._upgrade = self._on_ready, None, None, None
        assert on_ready is not None
        owner = on_ready(self)
        if self._state is _State.OPEN:
            self._owner = owner
            owner.stream_ready(self)
        if self._paused:
            self._held = verdict.rest
        elif verdict.rest:
            self._receive(verdict.rest)

    def _declined(self, verdict: Declined) -> None:
        self._stop_timer()
        if verdict.reply:
            self._carrier.write(verdict.reply)
        self._upgrade_failed(verdict.problem)
        self._give_up(None)

    def _upgrade_failed(self, problem: str) -> None:
        on_failed, self._on_failed, self._on_ready, self._upgrade = self._on_failed, None, None, None
        if on_failed is not None:
            on_failed(self, HandshakeFailed(problem))

    # Receiving

    def _receive(self, data: bytes) -> None:
        frames = self._frames
        if frames is None or self._close_heard or self._state is _State.LOST:
            return
        frames.receive_data(data)
        pieces: list[bytes] = []
        ping: Ping | None = None
        close: CloseConnection | None = None
        for number, event in enumerate(frames.events(), 1):
            if number > FRAMES_PER_READ:
                close = CloseConnection(CloseReason.POLICY_VIOLATION, "too many small frames")
                break
            if isinstance(event, BytesMessage):
                pieces.append(bytes(event.data))
            elif isinstance(event, Ping):
                ping = event
            elif isinstance(event, TextMessage):
                close = CloseConnection(CloseReason.UNSUPPORTED_DATA, "text; MQTT travels in binary messages")
                break
            elif isinstance(event, CloseConnection):
                close = event
                break
        if ping is not None and frames.state is ConnectionState.OPEN and not self._carrier.congested:
            self._carrier.write(frames.send(Pong(payload=ping.payload)))
        if pieces and self._owner is not None and self._state is not _State.CLOSING:
            self._owner.stream_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if close is None:
            return
        if frames.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            self._heard_close(frames, close)
        else:
            self._broken(frames, close)

    def _heard_close(self, frames: Connection, close: CloseConnection) -> None:
        self._close_heard = self._peer_ended = True
        if self._state is _State.LOST:
            return
        if frames.state is ConnectionState.REMOTE_CLOSING:
            self._carrier.write(frames.send(CloseConnection(close.code)))
        if self._state is _State.OPEN:
            self._tell_eof()
        else:
            self._end_below()

    def _broken(self, frames: Connection, close: CloseConnection) -> None:
        """The peer broke the framing, or sent what this stream does not carry."""
        if self._state in (_State.LOST, _State.CLOSING):
            self._end_below()
            return
        if frames.state is ConnectionState.OPEN and self._carrier.is_open:
            self._carrier.write(frames.send(close))
        self._give_up(ConnectionLost(f"the other end broke the WebSocket framing: {close.reason}"))

    def _hand_out_held(self) -> None:
        if self._paused or self._state is _State.LOST:
            return
        with self._faults_end_the_stream():
            if self._held:
                data, self._held = self._held, b""
                self._receive(data)
            self._tell_eof()

    def _tell_eof(self) -> None:
        if not self._peer_ended or self._paused or self._held or self._eof_told or self._owner is None:
            return
        if self._state is _State.OPEN:
            self._eof_told = True
            self._owner.stream_eof()

    # Ending

    def _say_close(self, state: _State) -> None:
        frames, below = self._frames, self._carrier
        assert frames is not None
        self._state = state
        if frames.state is ConnectionState.OPEN and below.is_open:
            below.write(frames.send(CloseConnection(CloseReason.NORMAL_CLOSURE)))
        if self._peer_ended:
            self._end_below()
        else:
            self._timer = self._loop.call_later(self._linger, self._overdue)

    def _end_below(self) -> None:
        """Both Close frames are said, or there will be no second one: now the end of TLS, which has its own bound."""
        self._stop_timer()
        if self._state is _State.FINISHED:
            self._carrier.finish()
        else:
            self._carrier.close()

    def _give_up(self, error: Exception | None) -> None:
        self._stop_timer()
        self._state = _State.LOST
        self._error = error
        if self._below is not None:
            self._below.close()

    def _overdue(self) -> None:
        """The peer did not do its part of the upgrade, or of the closing handshake, in time."""
        self._timer = None
        if self._state is _State.UPGRADING and self._upgrade is not None:
            self._declined(self._upgrade.overdue())
        elif self._state is _State.FINISHED:
            self.abort(
                ConnectionLost(f"the WebSocket was not closed by the other end within {self._linger:g} s")
            )
        elif self._state is _State.CLOSING:
            self._carrier.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @contextlib.contextmanager
    def _faults_end_the_stream(self) -> Iterator[None]:
        """An owner's fault ends its own stream, as it does when the stream below calls us with data."""
        try:
            yield
        except Exception as error:
            self.abort(error)
            raise
