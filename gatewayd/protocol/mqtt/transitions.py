"""Everything that decides what may happen when: the states of both roles, and their tables.

    server   AWAITING_CONNECT --CONNECT--> HELD --accept()--> OPEN --DISCONNECT--> OVER
                                             `--refuse()--> OVER

    client   IDLE --connect()--> CONNECTING --CONNACK 0--> OPEN --disconnect()--> LEAVING --end--> OVER
                                     `--CONNACK 1 to 5--> OVER

A packet the peer's table does not list for a state closes the connection. A verb its table does not list is a
bug of ours. Every state but OVER also goes to OVER by the end of the stream, a deadline, close(), and any
fault of the peer.
"""

from __future__ import annotations

import enum
from typing import Final

from gatewayd.protocol.mqtt.wire import PacketType


class _Key(enum.Enum):
    """A member of it is half of a key that every message looks up: hashed as an object, in C, not by its name."""

    __hash__ = object.__hash__


class ServerState(_Key):
    """Where a connection stands, seen from the server."""

    AWAITING_CONNECT = "awaiting CONNECT"
    HELD = "held"
    OPEN = "open"
    OVER = "over"


class ClientState(_Key):
    """Where a connection stands, seen from the client."""

    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    LEAVING = "leaving"
    OVER = "over"


class Action(enum.Enum):
    """What a packet makes a connection do."""

    HOLD_CONNECT = enum.auto()
    TAKE_CONNACK = enum.auto()
    TAKE_PUBLISH = enum.auto()
    SETTLE = enum.auto()
    TAKE_SUBSCRIBE = enum.auto()
    TAKE_UNSUBSCRIBE = enum.auto()
    TAKE_SUBACK = enum.auto()
    TAKE_UNSUBACK = enum.auto()
    ANSWER_PING = enum.auto()
    TAKE_PINGRESP = enum.auto()
    END_AS_PLANNED = enum.auto()
    REFUSE_QOS2 = enum.auto()
    IGNORE = enum.auto()


class Verb(_Key):
    """What an owner asks of a connection, where the state decides whether it may."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    CONNECT = "connect"
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    DISCONNECT = "disconnect"


SERVER_PACKETS: Final[dict[tuple[ServerState, PacketType], Action]] = {
    (ServerState.AWAITING_CONNECT, PacketType.CONNECT): Action.HOLD_CONNECT,  # [MQTT-3.1.0-1]
    (ServerState.OPEN, PacketType.PUBLISH): Action.TAKE_PUBLISH,
    (ServerState.OPEN, PacketType.PUBACK): Action.SETTLE,
    (ServerState.OPEN, PacketType.SUBSCRIBE): Action.TAKE_SUBSCRIBE,
    (ServerState.OPEN, PacketType.UNSUBSCRIBE): Action.TAKE_UNSUBSCRIBE,
    (ServerState.OPEN, PacketType.PINGREQ): Action.ANSWER_PING,
    (ServerState.OPEN, PacketType.DISCONNECT): Action.END_AS_PLANNED,
    (ServerState.OPEN, PacketType.PUBREC): Action.REFUSE_QOS2,
    (ServerState.OPEN, PacketType.PUBREL): Action.REFUSE_QOS2,
    (ServerState.OPEN, PacketType.PUBCOMP): Action.REFUSE_QOS2,
}

SERVER_VERBS: Final[dict[tuple[ServerState, Verb], ServerState]] = {
    (ServerState.HELD, Verb.ACCEPT): ServerState.OPEN,
    (ServerState.HELD, Verb.REFUSE): ServerState.OVER,
    (ServerState.OPEN, Verb.PUBLISH): ServerState.OPEN,
}

CLIENT_PACKETS: Final[dict[tuple[ClientState, PacketType], Action]] = {
    (ClientState.CONNECTING, PacketType.CONNACK): Action.TAKE_CONNACK,  # [MQTT-3.2.0-1]
    (ClientState.OPEN, PacketType.PUBLISH): Action.TAKE_PUBLISH,
    (ClientState.OPEN, PacketType.PUBACK): Action.SETTLE,
    (ClientState.OPEN, PacketType.SUBACK): Action.TAKE_SUBACK,
    (ClientState.OPEN, PacketType.UNSUBACK): Action.TAKE_UNSUBACK,
    (ClientState.OPEN, PacketType.PINGRESP): Action.TAKE_PINGRESP,
    (ClientState.OPEN, PacketType.PUBREC): Action.REFUSE_QOS2,
    (ClientState.OPEN, PacketType.PUBREL): Action.REFUSE_QOS2,
    (ClientState.OPEN, PacketType.PUBCOMP): Action.REFUSE_QOS2,
    # What the server sent before it read our DISCONNECT. Nothing may follow DISCONNECT [MQTT-3.14.4-2], so a
    # message cannot be acknowledged any more; the server sends it again on the next connection.
    (ClientState.LEAVING, PacketType.PUBLISH): Action.IGNORE,
    (ClientState.LEAVING, PacketType.PUBACK): Action.SETTLE,
    (ClientState.LEAVING, PacketType.SUBACK): Action.TAKE_SUBACK,
    (ClientState.LEAVING, PacketType.UNSUBACK): Action.TAKE_UNSUBACK,
    (ClientState.LEAVING, PacketType.PINGRESP): Action.IGNORE,
}

CLIENT_VERBS: Final[dict[tuple[ClientState, Verb], ClientState]] = {
    (ClientState.IDLE, Verb.CONNECT): ClientState.CONNECTING,
    (ClientState.OPEN, Verb.PUBLISH): ClientState.OPEN,
    (ClientState.OPEN, Verb.SUBSCRIBE): ClientState.OPEN,
    (ClientState.OPEN, Verb.UNSUBSCRIBE): ClientState.OPEN,
    (ClientState.OPEN, Verb.DISCONNECT): ClientState.LEAVING,
}
