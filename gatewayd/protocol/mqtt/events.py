"""What a connection tells its owner. `Closed` is the last event, and comes exactly once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from gatewayd.protocol.mqtt.faults import CloseCause, ConnackCode
from gatewayd.protocol.mqtt.packets import Connect, Publish, Subscribe, Unsubscribe, Will


@dataclass(frozen=True, slots=True)
class ConnectReceived:
    """A client wants in. The owner answers with accept() or refuse(), when it likes."""

    connect: Connect


@dataclass(frozen=True, slots=True)
class ConnackReceived:
    """The server's answer. After a code other than ACCEPTED comes Closed(REFUSED)."""

    code: ConnackCode
    session_present: bool


@dataclass(frozen=True, slots=True)
class PublishReceived:
    """A message. With QoS 1 the owner answers with acknowledge(), once.

    `joins` says that the peer repeats (DUP) a message of this connection that we have not acknowledged yet:
    it is the one the owner already has, is not to be carried again, and the one acknowledge() it is owed
    answers both.
    """

    publish: Publish
    joins: bool = False


@dataclass(frozen=True, slots=True)
class PublishAcknowledged:
    """The peer has our QoS 1 publish of this id; the id is free again."""

    packet_id: int


@dataclass(frozen=True, slots=True)
class SubscribeReceived:
    """The owner answers with grant()."""

    subscribe: Subscribe


@dataclass(frozen=True, slots=True)
class UnsubscribeReceived:
    """The owner answers with confirm_unsubscribe()."""

    unsubscribe: Unsubscribe


@dataclass(frozen=True, slots=True)
class SubscribeAcknowledged:
    """One code per filter: the QoS granted, or 0x80."""

    packet_id: int
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnsubscribeAcknowledged:
    packet_id: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The end. The shell flushes bytes_to_send() and closes the socket.

    `planned`: the end was announced by DISCONNECT before the stream ended, and no error followed. `will`:
    what the server now owes to the will's topic; None after DISCONNECT, when there was none, and always on a
    client. `detail` is for a log: no payload, no password, nothing the peer wrote.
    """

    cause: CloseCause
    detail: str
    planned: bool = False
    will: Will | None = None


ServerEvent: TypeAlias = (
    ConnectReceived | PublishReceived | PublishAcknowledged | SubscribeReceived | UnsubscribeReceived | Closed
)
ClientEvent: TypeAlias = (
    ConnackReceived
    | PublishReceived
    | PublishAcknowledged
    | SubscribeAcknowledged
    | UnsubscribeAcknowledged
    | Closed
)
