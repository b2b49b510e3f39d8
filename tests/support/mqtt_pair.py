"""A client and a server wired back to back, over a network that a test can cut.

Both ends keep their sessions over any number of connections. Everything is decided by the numbers the test
gives, so that a failing run can be run again.
"""

from __future__ import annotations

from gatewayd.protocol.mqtt.client import ClientConnection, ClientSession
from gatewayd.protocol.mqtt.events import (
    ClientEvent,
    Closed,
    ConnectReceived,
    PublishAcknowledged,
    PublishReceived,
    ServerEvent,
)
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect, Publish
from gatewayd.protocol.mqtt.server import ServerConnection
from gatewayd.protocol.mqtt.session import Session

_LIMITS = Limits(max_unacknowledged=4)


class Side:
    """What one end has sent, seen and not yet acknowledged."""

    def __init__(self) -> None:
        self.sent = 0
        self.settled: set[bytes] = set()
        self.seen: list[Publish] = []
        self.owed: list[int] = []
        self.acknowledged: set[bytes] = set()
        self.in_flight: dict[int, bytes] = {}


class Pair:
    """`up` and `down` are bytes on their way; cut() loses them."""

    def __init__(self) -> None:
        self.client_session = ClientSession()
        self.server_session = Session()
        self.client_side = Side()
        self.server_side = Side()
        self.now = 0.0
        self.connections = 0
        self.closed: list[Closed] = []
        self.connect()

    def connect(self) -> None:
        self.client = ClientConnection(self.client_session, _LIMITS)
        self.server = ServerConnection(_LIMITS, self.now)
        self.up = b""
        self.down = b""
        self.client_side.owed.clear()
        self.server_side.owed.clear()
        self.client.connect(Connect("dev"), self.now)
        self.connections += 1

    def cut(self) -> None:
        """The connection is gone, with what was on its way; both ends notice, then the client dials again."""
        self.server.receive_eof(self.now)
        self.client.receive_eof(self.now)
        self.listen()
        self.connect()

    def move(self, up_bytes: int, down_bytes: int) -> None:
        """Carries at most so many bytes each way."""
        self.up += self.client.bytes_to_send()
        self.down += self.server.bytes_to_send()
        piece, self.up = self.up[:up_bytes], self.up[up_bytes:]
        self.server.receive(piece, self.now)
        piece, self.down = self.down[:down_bytes], self.down[down_bytes:]
        self.client.receive(piece, self.now)
        self.listen()

    def listen(self) -> None:
        while (said := self.server.next_event()) is not None:
            if isinstance(said, ConnectReceived):
                self.server.accept(self.now, self.connections > 1, self.server_session)
            self._note(self.server_side, said)
        while (heard := self.client.next_event()) is not None:
            self._note(self.client_side, heard)

    def client_publishes(self) -> None:
        side = self.client_side
        payload = b"%d" % side.sent
        side.in_flight[self.client.publish("up", payload, 1, self.now)] = payload
        side.sent += 1

    def server_publishes(self) -> None:
        side = self.server_side
        payload = b"%d" % side.sent
        side.in_flight[self.server.publish("down", payload, 1)] = payload
        side.sent += 1

    def acknowledge(self, side: Side, which: int) -> None:
        """The owner at this end has done with one of the messages it has, in any order."""
        if side.owed:
            packet_id = side.owed.pop(which % len(side.owed))
            (self.server if side is self.server_side else self.client).acknowledge(packet_id)
            payload = next(p.payload for p in reversed(side.seen) if p.packet_id == packet_id)
            side.acknowledged.add(payload)

    def _note(self, side: Side, event: ServerEvent | ClientEvent) -> None:
        match event:
            case PublishReceived(publish):
                side.seen.append(publish)
                side.owed.append(publish.packet_id)
            case PublishAcknowledged(packet_id):
                side.settled.add(side.in_flight.pop(packet_id))
            case Closed():
                self.closed.append(event)
