"""What a sender remembers between connections: packet ids, and QoS 1 publishes the peer has not acknowledged
(3.1.2.4).

One class serves both roles. A session is handed to a connection; when the next connection is accepted, the
session moves to it, and everything unacknowledged is sent again: same id, same order, DUP set [MQTT-4.4.0-1].
An older connection that still lingers can then settle nothing any more: it and the new one would count one
PUBACK twice.

Thousands live in one process: a session that has nothing in flight is three slots and no dict of its own.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Final

from gatewayd.protocol.mqtt.packet_ids import next_packet_id
from gatewayd.protocol.mqtt.packets import Publish

_NOTHING_IN_FLIGHT: Final[dict[int, Publish]] = {}
"""Shared by every idle session; never written to."""


class Session:
    """Outgoing QoS 1 publishes of one client, in order of sending."""

    __slots__ = ("_in_flight", "_last_packet_id", "carrier")

    def __init__(self) -> None:
        self._in_flight = _NOTHING_IN_FLIGHT
        self._last_packet_id = 0
        # Counts the connections accepted with this session. A connection knows itself by its number.
        self.carrier = 0

    def __contains__(self, packet_id: object) -> bool:
        """Whether a publish of this id is in flight."""
        return packet_id in self._in_flight

    @property
    def in_flight(self) -> int:
        """How many publishes the peer has not acknowledged."""
        return len(self._in_flight)

    @property
    def unacknowledged(self) -> tuple[Publish, ...]:
        """Those publishes, oldest first."""
        return tuple(self._in_flight.values())

    def new_packet_id(self, requests: Container[int]) -> int:
        """An id that neither a publish in flight nor one of the connection's open `requests` uses."""
        self._last_packet_id = next_packet_id(self._last_packet_id, self._in_flight, requests)
        return self._last_packet_id

    def remember(self, publish: Publish) -> None:
        """Keeps a QoS 1 publish until it is settled."""
        if not self._in_flight:
            self._in_flight = {}
        self._in_flight[publish.packet_id] = publish

    def settle(self, packet_id: int) -> None:
        """Forgets a publish that is in flight: the peer has it."""
        del self._in_flight[packet_id]
        if not self._in_flight:
            self._in_flight = _NOTHING_IN_FLIGHT

    def is_oldest(self, packet_id: int) -> bool:
        """Whether this is the publish whose PUBACK is due first [MQTT-4.6.0-2]."""
        return next(iter(self._in_flight), None) == packet_id

    def repeated(self, packet_id: int) -> Publish:
        """A publish in flight as it is sent once more."""
        return replace(self._in_flight[packet_id], dup=True)

    def move(self) -> tuple[int, list[Publish]]:
        """A new connection carries the session from now on: its number, and what it must send first."""
        self.carrier += 1
        return self.carrier, [replace(publish, dup=True) for publish in self._in_flight.values()]
