"""The face of a stream is the face that streams have: nothing in it is missing in one of them."""

from __future__ import annotations

import inspect

import pytest

from gatewayd.transport.stream import Stream
from gatewayd.transport.tls_stream import TlsStream
from gatewayd.transport.websocket_stream import WebSocketStream

FACE = sorted(name for name in vars(Stream) if not name.startswith("_"))


def test_the_face_is_more_than_writing() -> None:
    assert {"write", "finish", "close", "abort", "congested", "peer_address"} <= set(FACE)


@pytest.mark.parametrize("kind", [TlsStream, WebSocketStream])
@pytest.mark.parametrize("name", FACE)
def test_each_kind_of_stream_has_the_whole_face(kind: type, name: str) -> None:
    ours, face = inspect.getattr_static(kind, name), inspect.getattr_static(Stream, name)
    assert callable(ours) == callable(face)
    if callable(ours):
        assert inspect.signature(ours) == inspect.signature(face)
