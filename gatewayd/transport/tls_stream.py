"""One connection: TLS on a plain asyncio transport, handed to one owner.

Why not asyncio's own TLS: it allocates and zeroes 256 KiB per connection and cannot resume sessions. Here all
connections of a loop share one receive buffer and one plaintext buffer, because what arrives is consumed before the
next socket is read; a connection keeps only OpenSSL's own state.

A stream is made by `tls_transport.open_stream` or `serve_streams`. Its life:

    HANDSHAKE ──> OPEN ──> FINISHED ──> LOST      finish(): our end is said, the peer is still listened to
                    └────> CLOSING ───> LOST      close(): our end is said, what still arrives is dropped

What the owner is promised:

- `stream_ready` first, before any data, also for data that came with the TLS Finished. None of the calls comes when
  the handshake fails: whoever opened or serves the stream hears of that.
- `stream_eof` at most once, when the peer ended its side: by close_notify or by a bare FIN (`truncated` tells which).
  Half close is kept: we may still write.
- `stream_closed` exactly once and last. It never comes from inside a call the owner makes, so an owner may write,
  pause, close or abort in any callback. After `close` or `abort` nothing but it comes.

Ends. `finish()` sends close_notify and FIN behind everything written, then goes on reading until the peer's FIN. A
peer's close_notify is reported as `stream_eof`, but it is weak evidence: a TLS 1.2 peer "MUST respond with a
close_notify alert of its own and close down the connection immediately, discarding any pending writes" (RFC 5246,
7.2.1), and some stacks answer in their TLS layer before the application has read what came before. That the peer's
application let go is shown by its FIN, and so by `stream_closed(None)` after `finish()`. For the same reason nothing
that the peer still has to say should be outstanding when `finish()` is called. After `linger` seconds without the
peer's FIN the socket is given up: reset, unless `close()` had everything sent.

Bounds. Above `write_high` unsent bytes `write` returns False, and `stream_writable` follows when they have drained;
above `write_cap` the stream is reset with `Bounded`. While reading is paused the socket is not read; at most one
receive buffer of plaintext that was already here is held. A FIN behind a pause is seen after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast
from weakref import WeakKeyDictionary

from gatewayd.errors import Bounded, ConnectionLost, HandshakeFailed, LocalProtocolError
from gatewayd.transport.stream import StreamOwner
from gatewayd.transport.tls_engine import RECORD_BYTES, TlsEngine
from gatewayd.transport.tls_problems import explain

RECEIVE_BYTES = 65536

# Data unacknowledged for this long, or a window closed for this long, means that the way is dead (TCP_USER_TIMEOUT, RFC
# 5482). The kernel alone would retry for about 15 minutes. As long as a usual keep-alive: an outage that a protocol's
# own keep-alive forgives is not ended here.
USER_TIMEOUT_SECONDS = 60.0

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
_NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """The bounds of a stream: bytes not yet taken by the kernel, and seconds to wait for the peer's end."""

    write_high: int = 65536
    write_cap: int = 1048576
    linger: float = 2.0


class _State(enum.Enum):
    HANDSHAKE = enum.auto()
    OPEN = enum.auto()
    FINISHED = enum.auto()
    CLOSING = enum.auto()
    LOST = enum.auto()


# Asked many times a message, and on Python 3.11 a look into an enum costs as much as three calls.
_HANDSHAKE, _OPEN, _FINISHED, _CLOSING, _LOST = _State


class _Shared:
    """What all streams of one loop share: buffers, and one flush for all that is written in a turn of the loop.

    First everything that arrived is read, then everything that was written is sent: done in turns, message by message,
    the two evict each other from the processor's caches, and a message costs a third more (at 500 connections).
    """

    __slots__ = ("_unflushed", "cipher", "plain")

    def __init__(self) -> None:
        self.cipher = memoryview(bytearray(RECEIVE_BYTES))
        self.plain = memoryview(bytearray(RECEIVE_BYTES + 2 * RECORD_BYTES))
        self._unflushed: list[Callable[[], None]] = []

    def flush_later(self, flush: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call `flush` when all that has arrived by now is handed out."""
        if not self._unflushed:
            loop.call_soon(self._flush_all, loop)
        self._unflushed.append(flush)

    def _flush_all(self, loop: asyncio.AbstractEventLoop) -> None:
        unflushed, self._unflushed = self._unflushed, []
        waiting = iter(unflushed)
        try:
            for flush in waiting:
                flush()
        finally:
            for flush in waiting:  # one stream's fault holds up no other's bytes
                self.flush_later(flush, loop)


_shared_by: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


class TlsStream(asyncio.BufferedProtocol):
    """A TLS connection in either role; the module's docstring is its contract."""

    __slots__ = (
        "_engine",
        "_eof_told",
        "_error",
        "_fin_seen",
        "_flush_planned",
        "_held",
        "_limits",
        "_loop",
        "_name",
        "_on_failed",
        "_on_ready",
        "_on_resumable",
        "_owner",
        "_paused",
        "_peer",
        "_shared",
        "_state",
        "_timer",
        "_transport",
        "_truncated",
        "_unsent",
        "_unsent_bytes",
        "congested",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: TlsEngine,
        peer_name: str,
        peer_address: tuple[str, int],
        *,
        handshake_timeout: float,
        limits: StreamLimits,
        on_ready: Callable[[TlsStream], StreamOwner],
        on_failed: Callable[[TlsStream, HandshakeFailed], None],
        on_resumable: Callable[[TlsStream], None] | None = None,
    ) -> None:
        """`peer_name` is how errors call the peer.

        Exactly one of `on_ready` and `on_failed` is called, once. `on_resumable` is called when `session` is worth
        taking: when the peer's first data is here, because TLS 1.3 tickets come after the handshake.
        """
        self._loop = loop
        shared = _shared_by.get(loop)
        if shared is None:
            shared = _shared_by[loop] = _Shared()
        self._shared = shared
        self._engine: TlsEngine | None = engine
        self._name = peer_name
        self._peer = peer_address
        self._limits = limits
        self._on_ready: Callable[[TlsStream], StreamOwner] | None = on_ready
        self._on_failed: Callable[[TlsStream, HandshakeFailed], None] | None = on_failed
        self._on_resumable = on_resumable
        self._owner: StreamOwner | None = None  # from the end of the handshake to stream_closed
        self._transport: asyncio.Transport | None = None  # from connection_made to connection_lost
        self._state = _HANDSHAKE
        self._unsent: list[bytes] = []  # plaintext that is sent in one go, see `write`
        self._unsent_bytes = 0
        self._flush_planned = False
        self._held = b""  # plaintext that was here when reading was paused
        self._paused = False
        # More than `write_high` bytes wait for the kernel; `stream_writable` says when that is over.
        self.congested = False
        self._fin_seen = False
        self._truncated = False
        self._eof_told = False
        self._error: Exception | None = None  # why this side gave the stream up
        self._timer: asyncio.TimerHandle | None = loop.call_later(handshake_timeout, self._overdue)

    # What the stream is

    @property
    def peer_address(self) -> tuple[str, int]:
        """Host and port of the peer, also when it has gone."""
        return self._peer

    @property
    def tls_version(self) -> str | None:
        """Such as "TLSv1.2"; None once the stream is gone."""
        return self._engine.tls.version() if self._engine else None

    @property
    def session(self) -> ssl.SSLSession | None:
        """The TLS session as of now, to resume from. Each look makes a copy."""
        return self._engine.tls.session if self._engine else None

    @property
    def session_reused(self) -> bool:
        """Whether the handshake resumed a session."""
        return bool(self._engine and self._engine.tls.session_reused)

    @property
    def peer_certificate_der(self) -> bytes | None:
        """The peer's certificate, if it showed one."""
        return self._engine.tls.getpeercert(binary_form=True) if self._engine else None

    @property
    def truncated(self) -> bool:
        """True when the peer's side ended with a bare FIN, without close_notify."""
        return self._truncated

    @property
    def is_open(self) -> bool:
        """Whether `write` is allowed."""
        return self._state is _OPEN

    @property
    def write_buffer_size(self) -> int:
        """Bytes written and not yet taken by the kernel."""
        waiting = self._transport.get_write_buffer_size() if self._transport else 0
        return self._unsent_bytes + waiting

    # What the owner does

    def write(self, data: bytes) -> bool:
        """Send `data`. False when the stream is congested: better stop until `stream_writable`.

        What is written in one turn of the loop leaves in one go. On a stream that broke and has not said so yet data
        is dropped; after `finish` or `close` writing is a LocalProtocolError.
        """
        if self._state is not _OPEN:
            if self._state is _LOST:
                return False
            raise LocalProtocolError(f"write on a stream that is {self._state.name}")
        size, cap = len(data), self._limits.write_cap
        if (self.congested or size > cap) and self.write_buffer_size + size > cap:
            self.abort(
                Bounded(f"{self.write_buffer_size} bytes unsent and {size} more; at most {cap} are kept")
            )
            return False
        self._unsent.append(data)
        self._unsent_bytes += size
        if self._unsent_bytes >= RECORD_BYTES:
            self._flush()
        elif not self._flush_planned:
            self._flush_planned = True
            self._shared.flush_later(self._flush, self._loop)
        return not self.congested

    def pause_reading(self) -> None:
        """Read nothing from the socket and hand out nothing, from this instant."""
        if not self._paused:
            self._paused = True
            if self._transport is not None:
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`. What was held comes in a later turn of the loop, never inside this call."""
        if self._paused:
            self._paused = False
            if self._transport is not None:
                self._transport.resume_reading()
                self._loop.call_soon(self._hand_out_held)

    def finish(self) -> None:
        """End our side: everything written, close_notify, FIN. The peer is read on until its FIN."""
        if self._state is _OPEN:
            self._end_our_side(_FINISHED)

    def close(self) -> None:
        """End both sides in order; what still arrives is dropped. Only `stream_closed` follows."""
        if self._state is _HANDSHAKE:
            self.abort()
        elif self._state is _OPEN:
            self._end_our_side(_CLOSING)
        elif self._state is _FINISHED:
            self._state = _CLOSING
            self.resume_reading()

    def abort(self, error: Exception | None = None) -> None:
        """Reset the connection (RST) and drop what is unsent. `stream_closed(error)` follows, later."""
        if self._state is _LOST:
            return
        if self._state is _HANDSHAKE:
            self._handshake_failed("given up on this side")
        self._give_up(error)
        self._reset()

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._state is _LOST:
            self._reset()
            return
        self._transport.set_write_buffer_limits(high=self._limits.write_high)
        _set_options(transport)
        self._shake_hands(_NOTHING)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared.cipher

    def buffer_updated(self, nbytes: int) -> None:
        cipher = self._shared.cipher[:nbytes]
        if self._state is not _HANDSHAKE:
            self._receive(cipher)
        elif self._shake_hands(cipher):
            self._receive(_NOTHING)

    def eof_received(self) -> bool:
        """The peer's FIN. True keeps our own side of the transport open."""
        self._fin_seen = True
        self._truncated = self._engine is not None and not self._engine.peer_ended
        if self._state is _HANDSHAKE:
            self._handshake_failed("the other end closed the connection during the TLS handshake")
            self._give_up(None)
        self._tell_eof()
        return self._state is _OPEN or (self._state is _FINISHED and self._paused)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        if self._state is _OPEN and self._owner is not None:
            with self._faults_end_the_stream():
                self._owner.stream_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._state is _HANDSHAKE:
            lost = socket_problem(exc) if isinstance(exc, OSError) else "the connection was closed"
            self._handshake_failed(lost, exc)
        self._state = _LOST
        self._stop_timer()
        error = self._error
        if error is None and exc is not None:
            error = _as_ours(exc)
        owner, self._owner = self._owner, None
        try:
            if owner is not None:
                owner.stream_closed(error)
        finally:
            self._engine = self._transport = self._on_resumable = None
            self._unsent.clear()
            self._unsent_bytes = 0
            self._held = b""

    # Handshake

    def _shake_hands(self, cipher: memoryview) -> bool:
        """Go on with the handshake; True when it is done and the owner knows."""
        assert self._engine is not None
        assert self._transport is not None
        try:
            done = self._engine.shake_hands(cipher)
        except ssl.SSLError as error:
            self._handshake_failed(explain(error, self._name), error)
            self._give_up(None)
            self._transport.write(self._engine.take())  # the alert tells the peer why
            self._transport.close()
            return False
        self._transport.write(self._engine.take())
        if done:
            self._stop_timer()
            self._state = _OPEN
            assert self._on_ready is not None
            on_ready, self._on_ready, self._on_failed = self._on_ready, None, None
            owner = on_ready(self)
            if self._state is _OPEN:
                self._owner = owner
                owner.stream_ready(self)
        return done

    def _handshake_failed(self, problem: str, cause: Exception | None = None) -> None:
        on_failed, self._on_failed, self._on_ready = self._on_failed, None, None
        assert on_failed is not None
        error = HandshakeFailed(problem)
        error.__cause__ = cause
        on_failed(self, error)

    # Receiving

    def _receive(self, cipher: memoryview) -> None:
        engine = self._engine
        if engine is None or not (self._state is _OPEN or self._state is _FINISHED):
            return
        plain = self._shared.plain
        filled = engine.decrypt(cipher, plain)
        if filled:
            data = bytes(plain[:filled])
            if self._paused or self._held:
                self._held += data
            else:
                self._hand_out(data)
        if engine.must_answer:  # such as a renegotiation, by refusing it
            self._flush()
        if engine.peer_ended:
            self._tell_eof()
        if engine.damage is not None:
            self._damaged(engine.damage)

    def _hand_out(self, data: bytes) -> None:
        assert self._owner is not None
        self._owner.stream_data(data)
        if self._on_resumable is not None and self._engine is not None:
            on_resumable, self._on_resumable = self._on_resumable, None
            on_resumable(self)

    def _hand_out_held(self) -> None:
        """After a pause: first what was here already, then an end that came meanwhile."""
        if self._paused or not (self._state is _OPEN or self._state is _FINISHED):
            return
        with self._faults_end_the_stream():
            if self._held:
                data, self._held = self._held, b""
                self._hand_out(data)
            self._tell_eof()

    def _tell_eof(self) -> None:
        ended = self._fin_seen or (self._engine is not None and self._engine.peer_ended)
        if not ended or self._paused or self._held or self._state is _LOST:
            return
        if not self._eof_told and self._owner is not None and self._state is not _CLOSING:
            self._eof_told = True
            self._owner.stream_eof()
        if self._fin_seen and self._state is not _OPEN and self._transport is not None:
            self._transport.close()

    # Sending

    def _flush(self) -> None:
        self._flush_planned = False
        engine, transport = self._engine, self._transport
        if engine is None or transport is None or self._state is not _OPEN or transport.is_closing():
            return
        if self._unsent:
            data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
            self._unsent.clear()
            self._unsent_bytes = 0
            transport.write(engine.encrypt(data))
            if engine.damage is not None:
                self._damaged(engine.damage)
        elif engine.must_answer:
            transport.write(engine.take())

    # Ending

    def _end_our_side(self, state: _State) -> None:
        self._flush()
        if self._state is not _OPEN or self._engine is None or self._transport is None:
            return
        self._state = state
        self._timer = self._loop.call_later(self._limits.linger, self._overdue)
        self._transport.write(self._engine.end())
        if self._fin_seen:
            self._transport.close()
            return
        with contextlib.suppress(OSError):  # the peer's reset is here already; the next read finds it
            self._transport.write_eof()
        if state is _CLOSING:
            self._held = b""
            self.resume_reading()

    def _damaged(self, error: ssl.SSLError) -> None:
        if self._state is _LOST or self._engine is None or self._transport is None:
            return
        lost = ConnectionLost(explain(error, self._name))
        lost.__cause__ = error
        said_our_end = self._state is not _OPEN
        self._give_up(lost)
        if said_our_end:
            self._reset()
            return
        self._timer = self._loop.call_later(self._limits.linger, self._overdue)
        self._transport.write(self._engine.take())  # the alert tells the peer why
        self._transport.close()

    def _give_up(self, error: Exception | None) -> None:
        self._state = _LOST
        self._error = error

    def _reset(self) -> None:
        if self._transport is None:
            return
        # Without this the kernel keeps unsent data and retries for minutes on behalf of a peer we have given up.
        # A socket that is closed already (ValueError under uvloop) has nothing to reset.
        with contextlib.suppress(OSError, ValueError):
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _overdue(self) -> None:
        """The peer did not end the handshake, or its side of the stream, in time."""
        self._timer = None
        if self._state is _HANDSHAKE:
            self._handshake_failed("the TLS handshake was not finished in time")
            self._give_up(None)
        elif self._state is _FINISHED:
            self._give_up(ConnectionLost(f"{self._name} did not close within {self._limits.linger:g} s"))
        elif self._state is _CLOSING:
            unsent = self.write_buffer_size
            if not unsent and self._transport is not None:
                # All is said and only the peer's FIN is missing: a reset could take our last words from it.
                self._give_up(None)
                self._transport.abort()
                return
            self._give_up(ConnectionLost(f"{self._name} left {unsent} bytes unread"))
        self._reset()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @contextlib.contextmanager
    def _faults_end_the_stream(self) -> Iterator[None]:
        """An owner's fault ends its own stream, as it does when asyncio calls us with data."""
        try:
            yield
        except Exception as error:
            self.abort(error)
            raise


def _set_options(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    # asyncio sets this only on sockets that were made with an explicit protocol number, which accepted ones are not.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(USER_TIMEOUT_SECONDS * 1000))


def _as_ours(error: Exception) -> Exception:
    if not isinstance(error, OSError):
        return error
    lost = ConnectionLost(socket_problem(error))
    lost.__cause__ = error
    return lost


def socket_problem(error: OSError) -> str:
    """What a socket's error means, in words."""
    if isinstance(error, ConnectionResetError):
        return "the other end reset the connection"
    if isinstance(error, TimeoutError):
        return f"nothing was acknowledged for {USER_TIMEOUT_SECONDS:g} s"
    # asyncio puts words of its own into some errors; the number is always the kernel's.
    return os.strerror(error.errno) if error.errno else str(error)
