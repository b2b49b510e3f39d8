"""A flow of WebSocket frames, whole and split anywhere: the owner hears the same."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType

from gatewayd.transport.websocket_stream import WebSocketStream
from gatewayd.transport.websocket_upgrade import Declined, Upgraded
from tests.support.stream_owners import Recorder
from tests.support.websocket_rig import BINARY, PING, PONG, close_frame, frame


class _Pipe:
    """A stream that is only a place to write to: what a WebSocket needs below it to be fed by hand."""

    peer_address = ("192.0.2.1", 1)
    tls_version = session = peer_certificate_der = None
    session_reused = truncated = congested = False
    write_buffer_size = 0

    def __init__(self) -> None:
        self.sent = bytearray()
        self.is_open = True

    def write(self, data: bytes) -> bool:
        self.sent += data
        return True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def finish(self) -> None:
        self.is_open = False

    def close(self) -> None:
        self.is_open = False

    def abort(self, error: Exception | None = None) -> None:
        self.is_open = False


class _Open:
    """An upgrade that is done at once."""

    def __init__(self, role: ConnectionType) -> None:
        self.role = role

    def begin(self) -> bytes:
        return b""

    def overdue(self) -> Declined:
        return Declined(b"", "never")

    def receive(self, data: bytes) -> Upgraded | Declined | None:
        return Upgraded(Connection(self.role), b"", data)


def _fed(pieces: list[bytes], role: ConnectionType = ConnectionType.SERVER) -> tuple[Recorder, _Pipe]:
    """What an owner hears when `pieces` arrive one after another."""
    loop, owner, pipe = asyncio.new_event_loop(), Recorder(), _Pipe()
    try:
        stream = WebSocketStream(
            loop,
            _Open(role),
            upgrade_timeout=1.0,
            linger=1.0,
            on_ready=lambda _: owner,
            on_failed=lambda _stream, _error: None,
        )
        stream.stream_ready(pipe)
        stream.stream_data(b"")
        for piece in pieces:
            stream.stream_data(piece)
        stream.stream_closed(None)
    finally:
        loop.close()
    return owner, pipe


MESSAGES = st.lists(
    st.one_of(
        st.binary(max_size=300).map(lambda data: (BINARY, data)),
        st.binary(max_size=125).map(lambda data: (PING, data)),
        st.binary(max_size=125).map(lambda data: (PONG, data)),
    ),
    max_size=12,
)


@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 4000), max_size=30))
@settings(max_examples=150, deadline=None)
def test_however_a_flow_is_split_the_owner_gets_the_same_bytes(
    messages: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    flow = b"".join(frame(opcode, data) for opcode, data in messages) + close_frame()
    edges = [0, *sorted(min(cut, len(flow)) for cut in cuts), len(flow)]
    pieces = [flow[start:end] for start, end in itertools.pairwise(edges)]
    owner, pipe = _fed(pieces)
    assert owner.data == b"".join(data for opcode, data in messages if opcode == BINARY)
    assert owner.calls[-2:] == ["eof", "closed"]
    assert pipe.sent.endswith(b"\x88\x02\x03\xe8")


@given(flow=st.binary(max_size=200), split=st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_more_than_an_end(flow: bytes, split: int) -> None:
    for role in ConnectionType:
        whole, _ = _fed([flow], role)
        cut, _ = _fed([flow[at : at + split] for at in range(0, len(flow), split)], role)
        assert whole.data == cut.data
        assert (type(whole.error), whole.calls[-1]) == (type(cut.error), "closed")
