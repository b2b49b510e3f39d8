"""What can be wrong with MQTT, who did it, and how a connection ends because of it.

One fault has two faces. A packet that breaks a rule is an `InvalidPacket` while we build it: our bug. The
same packet read from the wire is a `PeerFault`: the peer's, and the connection ends. The rule is written
once, in the packet's constructor. `CloseCause` is small and fixed, so that it can label a metric.
"""

from __future__ import annotations

import enum

from gatewayd.errors import LocalProtocolError, RemoteProtocolError


class ConnackCode(enum.IntEnum):
    """The server's answer to CONNECT (OASIS MQTT 3.1.1, table 3.1)."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_USER_NAME_OR_PASSWORD = 4
    NOT_AUTHORIZED = 5


class CloseCause(enum.Enum):
    """Why a connection ended: the first reason seen, and a metric's label."""

    DISCONNECTED = "disconnected"
    """A DISCONNECT was read (server), or was sent and the stream then ended (client)."""
    EOF = "eof"
    """The stream ended without DISCONNECT."""
    MALFORMED = "malformed"
    """Bytes that are no legal packet, whatever came before them."""
    PROTOCOL_VIOLATION = "protocol_violation"
    """A legal packet that may not come now."""
    TOO_LARGE = "too_large"
    """A packet, topic or list over our limits."""
    FLOOD = "flood"
    """More bytes than may be kept while the owner cannot take them."""
    QOS2 = "qos2"
    """A packet of the QoS 2 exchange, which IoT Hub does not carry."""
    CONNECT_TIMEOUT = "connect_timeout"
    """CONNECT (server) or CONNACK (client) did not come in time."""
    KEEP_ALIVE = "keep_alive"
    """The peer was silent for too long."""
    REFUSED = "refused"
    """CONNACK carried a code other than 0."""
    TAKEN_OVER = "taken_over"
    """The owner ended it: the same client id connected again [MQTT-3.1.4-2]."""
    LOCAL = "local"
    """The owner ended it for a reason of its own."""


class InvalidPacket(LocalProtocolError):
    """A packet that breaks a rule of MQTT 3.1.1. `answer` is the CONNACK code the rule asks for, where it
    does.
    """

    def __init__(self, problem: str, *, clause: str, answer: ConnackCode | None = None) -> None:
        super().__init__(f"{problem} [{clause}]")
        self.problem = problem
        self.clause = clause
        self.answer = answer


class PeerFault(RemoteProtocolError):
    """What the peer did that ends the connection, and under which cause."""

    def __init__(
        self,
        problem: str,
        *,
        clause: str = "",
        cause: CloseCause = CloseCause.MALFORMED,
        answer: ConnackCode | None = None,
    ) -> None:
        super().__init__(problem, clause=clause)
        self.cause = cause
        self.answer = answer
