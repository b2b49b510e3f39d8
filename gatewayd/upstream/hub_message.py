"""A message of the hub, as it came. Pure value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HubMessage:
    """`topic` stays as it was, property bag included. `link` is the connection it came on: opaque, for its PUBACK.

    The payload stays the bytes that came in; `repr` leaves it out, because no payload may reach a log.
    """

    topic: str
    payload: bytes
    qos: int
    dup: bool = False
    packet_id: int = 0
    link: object = None

    def __repr__(self) -> str:
        return f"HubMessage({len(self.payload)} bytes, qos={self.qos}, packet_id={self.packet_id})"
