"""Packet identifiers (2.3.1): which of ours are free, and in what order theirs are answered.

The two directions of a connection have identifiers of their own. For ours, `next_packet_id` never gives one
that is in use. For theirs, `ReceiptOrder` lets the owner acknowledge in any order and gives PUBACKs out in
the order the PUBLISHes came [MQTT-4.6.0-2], one for each.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from gatewayd.errors import Bounded, LocalProtocolError
from gatewayd.protocol.mqtt.packets import encode_puback
from gatewayd.protocol.mqtt.wire import MAX_PACKET_ID

_NOTHING_WAITING: Final[dict[int, bool]] = {}
"""Shared by every connection that has not received a QoS 1 publish yet; never written to."""


def next_packet_id(last: int, in_flight: Container[int], requests: Container[int]) -> int:
    """The first free identifier after `last`, from 1 to 65,535 and round again [MQTT-2.3.1-2]. Raises Bounded
    when none is.

    Going round rather than taking the lowest keeps an identifier out of use for as long as can be, so that a
    late answer to its last use finds nothing to settle.
    """
    candidate = last
    for _ in range(MAX_PACKET_ID):
        candidate = candidate % MAX_PACKET_ID + 1
        if candidate not in in_flight and candidate not in requests:
            return candidate
    raise Bounded("all 65,535 packet ids are in flight")


class ReceiptOrder:
    """The peer's QoS 1 publishes that wait for our PUBACK, oldest first."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = _NOTHING_WAITING

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, packet_id: object) -> bool:
        return packet_id in self._waiting

    def expect(self, packet_id: int) -> int:
        """A publish came that is owed a PUBACK; how many are owed one now."""
        if not self._waiting:
            self._waiting = {}
        self._waiting[packet_id] = False
        return len(self._waiting)

    def acknowledge(self, packet_id: int) -> bytes:
        """The PUBACKs that may leave now that the owner has done with this publish: none, one, or several."""
        waiting = self._waiting
        if waiting.get(packet_id, True):
            raise LocalProtocolError(f"packet id {packet_id} waits for no acknowledgement")
        if packet_id == next(iter(waiting)):
            del waiting[packet_id]
            receipts = encode_puback(packet_id)
            if waiting:
                receipts += self._release()
            else:
                self._waiting = _NOTHING_WAITING
            return receipts
        waiting[packet_id] = True
        return b""

    def _release(self) -> bytes:
        """What was acknowledged early and is now first in line."""
        waiting = self._waiting
        released: list[int] = []
        for packet_id, acknowledged in waiting.items():
            if not acknowledged:
                break
            released.append(packet_id)
        for packet_id in released:
            del waiting[packet_id]
        if not waiting:
            self._waiting = _NOTHING_WAITING
        return b"".join(map(encode_puback, released))
