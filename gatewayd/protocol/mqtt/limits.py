"""The bounds of one MQTT connection. Each names what happens when it is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_MESSAGE_BYTES: Final = 262_144
"""IoT Hub takes device-to-cloud messages of up to 256 KiB, body and properties together."""
_MAX_TOPIC_BYTES: Final = 65_535
_MAX_PACKET_BYTES: Final = MAX_MESSAGE_BYTES + _MAX_TOPIC_BYTES + 8
"""The largest payload with the largest topic: 8 bytes are fixed header, topic length and packet id."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on bytes and counts, and waits in seconds. The defaults suit a device of IoT Hub."""

    max_packet_bytes: int = _MAX_PACKET_BYTES
    """A larger packet closes with TOO_LARGE, as soon as its header is read. The fixed header counts."""
    max_connect_bytes: int = 81_920
    """The same for what comes before CONNECT is accepted: one will payload of 65,535 bytes and 16 KiB for the
    rest.
    """
    max_topic_bytes: int = _MAX_TOPIC_BYTES
    """A longer topic of a PUBLISH closes with TOO_LARGE."""
    max_filters: int = 100
    """More filters in one SUBSCRIBE or UNSUBSCRIBE close with TOO_LARGE. IoT Hub takes 5 in all."""
    max_requests: int = 16
    """More SUBSCRIBE and UNSUBSCRIBE packets waiting for our answer at one time close with FLOOD."""
    max_unacknowledged: int = 1_024
    """At so many incoming QoS 1 publishes without our PUBACK the connection is parked: what follows is kept
    unread.
    """
    max_held_bytes: int = _MAX_PACKET_BYTES
    """More unread bytes than this behind an undecided CONNECT, or while parked, close with FLOOD."""
    max_in_flight: int = 1_024
    """At so many outgoing QoS 1 publishes without the peer's PUBACK, publish() raises Bounded."""
    connect_timeout: float = 30.0
    """Server: CONNECT must be whole by then. Client: CONNACK must. Closes with CONNECT_TIMEOUT."""
    max_keep_alive: float = 1_767.0
    """Server: the longest silence taken from any client, whatever it asked for. 29.45 minutes, as IoT Hub."""
    ping_timeout: float = 30.0
    """Client: PINGRESP must come within this. Closes with KEEP_ALIVE."""
    disconnect_timeout: float = 5.0
    """Client: after DISCONNECT the server must end the stream within this. Closes with DISCONNECTED all the
    same.
    """
    require_puback_order: bool = False
    """Server: a PUBACK out of order closes with PROTOCOL_VIOLATION (IoT Hub's 400001), instead of settling
    its message.
    """
