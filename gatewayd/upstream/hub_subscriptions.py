"""Which topic filters one identity wants at the hub, and which the hub has answered. Pure.

The hub is asked for the difference between what is wanted and what was last said on this connection. A new connection
begins with everything wanted, in one SUBSCRIBE, whatever the hub says of a session: a hub that has lost the
subscriptions and says session-present would otherwise never deliver again. Filters that the hub may still hold from
before, and that nobody wants, are given up.

Promises: a filter that the hub refused (0x80) is asked for again on the next connection and not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from gatewayd.protocol.mqtt.packets import SUBSCRIPTION_REFUSED

_NOTHING: Final[Mapping[str, int]] = {}
_NO_FILTERS: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Difference:
    """What the hub must be told."""

    give_up: tuple[str, ...]
    ask_for: tuple[tuple[str, int], ...]


class Teller(Protocol):
    """An accepted connection that is not being left."""

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> int:
        """Write SUBSCRIBE; its packet id."""

    def unsubscribe(self, filters: tuple[str, ...]) -> int:
        """Write UNSUBSCRIBE; its packet id."""


class HubSubscriptions:
    """The filters of one identity, over all its connections."""

    __slots__ = ("_connected", "_may_hold", "_pending", "_refused", "_said", "_wanted")

    def __init__(self, documented: Iterable[str]) -> None:
        """`documented`: what the hub may hold of this identity before anybody here has asked for anything."""
        self._wanted = _NOTHING
        self._may_hold = frozenset(documented)
        self._connected = False
        # Of this connection: filter -> the QoS last asked for, None when it was given up.
        self._said: dict[str, int | None] = {}
        self._pending: dict[int, tuple[str, ...]] = {}  # SUBSCRIBEs and UNSUBSCRIBEs without an answer
        self._refused = _NO_FILTERS

    def want(self, wanted: Mapping[str, int]) -> None:
        """Filter -> QoS, instead of all that was wanted before."""
        self._wanted = dict(wanted)

    def connected(self, session_present: bool) -> None:
        """The hub accepted a connection."""
        self._connected = True
        # What was asked on the connection before is answered no more.
        self._said.clear()
        self._pending.clear()
        self._refused = _NO_FILTERS
        if not session_present:
            self._may_hold = _NO_FILTERS

    def difference(self) -> Difference | None:
        """What is to be said now; None when it is nothing."""
        if not self._connected:
            return None
        said = self._said
        give_up = tuple(
            name
            for name in sorted(self._may_hold)
            if name not in self._wanted and (name not in said or said[name] is not None)
        )
        ask_for = tuple(
            (name, qos) for name, qos in self._wanted.items() if name not in said or said[name] != qos
        )
        return Difference(give_up, ask_for) if give_up or ask_for else None

    def tell(self, link: Teller) -> None:
        """Say the difference: first what is given up, because the hub counts how many filters an identity holds."""
        difference = self.difference()
        if difference is None:
            return
        if difference.give_up:
            self.given_up(link.unsubscribe(difference.give_up), difference.give_up)
        if difference.ask_for:
            self.asked_for(link.subscribe(difference.ask_for), difference.ask_for)

    def given_up(self, packet_id: int, filters: tuple[str, ...]) -> None:
        """UNSUBSCRIBE was written."""
        self._pending[packet_id] = filters
        self._said.update(dict.fromkeys(filters, None))
        self._refused -= frozenset(filters)

    def asked_for(self, packet_id: int, filters: tuple[tuple[str, int], ...]) -> None:
        """SUBSCRIBE was written."""
        names = tuple(name for name, _ in filters)
        self._pending[packet_id] = names
        self._said.update(filters)
        self._may_hold |= frozenset(names)
        self._refused -= frozenset(names)

    def granted(self, packet_id: int, codes: tuple[int, ...]) -> frozenset[str]:
        """SUBACK came; the filters it refuses."""
        names = self._pending.pop(packet_id, ())
        refused = frozenset(
            name for name, code in zip(names, codes, strict=False) if code == SUBSCRIPTION_REFUSED
        )
        self._refused |= refused
        return refused

    def confirmed_give_up(self, packet_id: int) -> None:
        """UNSUBACK came."""
        names = self._pending.pop(packet_id, ())
        self._may_hold -= frozenset(name for name in names if self._said.get(name) is None)

    @property
    def confirmed(self) -> bool:
        """Whether the hub has answered all that is wanted, on the newest connection."""
        return self._connected and not self._pending and self.difference() is None

    @property
    def refused(self) -> frozenset[str]:
        """What the hub refused on this connection."""
        return self._refused
