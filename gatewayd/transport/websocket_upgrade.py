"""The HTTP upgrade that begins a WebSocket, in both roles, without the connection: bytes in, a verdict out.

wsproto and h11 read and write the HTTP; here is what they leave open. A head is gathered up to `MAX_HEAD_BYTES` before
it is looked at, so that what a stranger can make us hold is bounded and bytes behind it are never lost. The only
subprotocol is "mqtt" (MQTT 3.1.1, [MQTT-6.0.0-3] and [MQTT-6.0.0-4]) and no extension is agreed: a
permessage-deflate offer is left unanswered, which declines it (RFC 6455, 9.1).

`Origin` is not looked at. A browser is no danger here: whoever opens the socket must still show a token, and there are
no cookies that a foreign page could use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import AcceptConnection, RejectConnection, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import ProtocolError

SUBPROTOCOL: Final = "mqtt"
# Where IoT Hub serves MQTT over WebSocket, and so where every device SDK looks for it.
PATH: Final = "/$iothub/websocket"
# h11 reads as much; the SDKs' requests have less than 1 KiB.
MAX_HEAD_BYTES: Final = 16384

_END_OF_HEAD: Final = b"\r\n\r\n"

# What an answer of the hub, or of something before it, means for whoever runs this gateway.
_IN_WORDS: Final = {
    401: "the hub wants a password for the upgrade itself, which IoT Hub never does; check hub.hostname",
    403: "forbidden; the hub's IP filter or a private endpoint may keep this gateway out",
    404: "there is no WebSocket at this path; is this an IoT Hub?",
    407: "a proxy on the way wants credentials; set hub.proxy and hub.proxy_credentials",
    429: "too many connections at a time; the next attempt is scheduled",
}


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A WebSocket: `reply` is to be sent, `rest` came behind the head and belongs to `frames`."""

    frames: Connection
    reply: bytes
    rest: bytes


@dataclass(frozen=True, slots=True)
class Declined:
    """No WebSocket: `reply` is to be sent, then the connection ends."""

    reply: bytes
    problem: str


class Upgrade(Protocol):
    """One role in an upgrade."""

    def begin(self) -> bytes:
        """What this role says first."""

    def receive(self, data: bytes) -> Upgraded | Declined | None:
        """The verdict; None while more bytes are needed. Not to be called after one."""

    def overdue(self) -> Declined:
        """The verdict on a peer that did not say its part in time."""


class ServerUpgrade:
    """Answers one request. Everything but an upgrade to MQTT at `path` is refused by an HTTP answer."""

    __slots__ = ("_handshake", "_head", "_path")

    def __init__(self, path: str = PATH) -> None:
        """`path` is matched without its query, which clients add as they please."""
        self._handshake = H11Handshake(ConnectionType.SERVER)
        self._head = bytearray()
        self._path = path

    def begin(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> Upgraded | Declined | None:
        split = _split_head(self._head, data)
        if split is None:
            return None
        head, rest = split
        if len(head) > MAX_HEAD_BYTES:
            return self._decline(431, f"the request is longer than {MAX_HEAD_BYTES} bytes")
        try:
            self._handshake.receive_data(head)
            request = next(self._handshake.events(), None)
        except (ProtocolError, ValueError) as error:  # ValueError: a header that should be ASCII and is not
            return self._refuse(error)
        if not isinstance(request, Request):
            return self._decline(400, "no request could be read")
        if request.target.partition("?")[0] != self._path:
            return self._decline(404, f"a request for another path than {self._path}")
        if SUBPROTOCOL not in request.subprotocols:
            return self._decline(400, f'the subprotocol "{SUBPROTOCOL}" is not offered')
        reply = self._handshake.send(AcceptConnection(subprotocol=SUBPROTOCOL))
        return Upgraded(_frames_of(self._handshake), reply, rest)

    def overdue(self) -> Declined:
        return self._decline(408, "the WebSocket upgrade was not asked for in time")

    def _refuse(self, error: Exception) -> Declined:
        hint = getattr(error, "event_hint", None)
        problem = str(error) if isinstance(error, ProtocolError) else "a header that is not ASCII"
        if not isinstance(hint, RejectConnection):
            return self._decline(400, problem)
        return self._decline(hint.status_code, problem, tuple(hint.headers))

    def _decline(self, status: int, problem: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Declined:
        # Without a body: an answer to HEAD must have none, and the words are in our own log.
        reply = self._handshake.send(
            RejectConnection(status_code=status, headers=[*headers, (b"Connection", b"close")])
        )
        return Declined(reply, problem)


class ClientUpgrade:
    """Asks `host` for a WebSocket that carries MQTT."""

    __slots__ = ("_handshake", "_head", "_host", "_target")

    def __init__(self, host: str, target: str = PATH) -> None:
        """`host` is the Host header: with a port unless it is 443."""
        self._handshake = H11Handshake(ConnectionType.CLIENT)
        self._head = bytearray()
        self._host = host
        self._target = target

    def begin(self) -> bytes:
        return self._handshake.send(Request(host=self._host, target=self._target, subprotocols=[SUBPROTOCOL]))

    def receive(self, data: bytes) -> Upgraded | Declined | None:
        split = _split_head(self._head, data)
        if split is None:
            return None
        head, rest = split
        if len(head) > MAX_HEAD_BYTES:
            return Declined(b"", f"the hub answered the upgrade with more than {MAX_HEAD_BYTES} bytes")
        try:
            self._handshake.receive_data(head)
            answer = next(self._handshake.events(), None)
        except (ProtocolError, ValueError) as error:
            problem = str(error) if isinstance(error, ProtocolError) else "a header that is not ASCII"
            return Declined(b"", f"the answer to the upgrade is none: {problem}")
        if isinstance(answer, RejectConnection):
            return Declined(b"", f"the upgrade was answered with {status_in_words(answer.status_code)}")
        if not isinstance(answer, AcceptConnection):
            return Declined(b"", "the answer to the upgrade is not HTTP")
        if answer.subprotocol != SUBPROTOCOL:
            return Declined(b"", f'the upgrade was granted without the subprotocol "{SUBPROTOCOL}"')
        return Upgraded(_frames_of(self._handshake), b"", rest)

    def overdue(self) -> Declined:
        return Declined(b"", "the upgrade was not answered in time")


def status_in_words(status: int) -> str:
    """A status of HTTP and what it asks of the operator, where that is known."""
    if status in _IN_WORDS:
        return f"{status}: {_IN_WORDS[status]}"
    if 300 <= status < 400:
        return f"{status}: another address is named, and a hub names none; check hub.hostname"
    if status >= 500:
        return f"{status}: the hub, or something before it, cannot serve now"
    return str(status)


def _split_head(head: bytearray, data: bytes) -> tuple[bytes, bytes] | None:
    """Gather `data` into `head`; the head and what is behind it, once it is whole or too long to become so."""
    searched = max(0, len(head) - len(_END_OF_HEAD) + 1)
    head += data
    end = head.find(_END_OF_HEAD, searched)
    if end >= 0:
        end += len(_END_OF_HEAD)
        return bytes(head[:end]), bytes(head[end:])
    return (bytes(head), b"") if len(head) > MAX_HEAD_BYTES else None


def _frames_of(handshake: H11Handshake) -> Connection:
    assert handshake.state is ConnectionState.OPEN
    assert handshake.connection is not None
    return handshake.connection
