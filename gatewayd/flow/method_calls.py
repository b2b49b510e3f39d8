"""The method calls that one device still has to answer. Pure.

Promises:
- a reply is matched to the call it answers and to no other, and each call is answered at most once;
- a call is known by the hub's request id, and the device sees that very id. Only when the device still works on an
  older call of the same id (a new connection of the hub may count from the start again) does the newer call get a name
  of our own, because a reply could not be told from the other;
- a call that the hub repeats after a reconnect (DUP) joins the one that is open;
- no more than `max_calls` are open, and none longer than its deadline (*bounded*).

A call whose hub connection was lost stays known as *lost*, so that its reply is recognised and not taken for another's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(slots=True)
class Call:
    """One call at the device."""

    device_rid: str  # what the device calls it
    hub_rid: str  # what the hub calls it
    deadline: float
    lost: bool = False


class Repeated(Exception):
    """The hub repeats a call that is open already."""


class TooMany(Exception):
    """As many calls are open as may be."""


class MethodCalls:
    """The open calls of one device, oldest first."""

    __slots__ = ("_calls", "_max_calls")

    def __init__(self, *, max_calls: int) -> None:
        self._max_calls = max_calls
        self._calls: dict[
            str, Call
        ] = {}  # by the device's name; all wait equally long, so the oldest ends first

    def __len__(self) -> int:
        return len(self._calls)

    def open(self, hub_rid: str, deadline: float, *, dup: bool) -> Call:
        """A call came from the hub; raises Repeated, or TooMany."""
        if dup and any(call.hub_rid == hub_rid and not call.lost for call in self._calls.values()):
            raise Repeated
        if len(self._calls) >= self._max_calls:
            raise TooMany
        call = Call(self._free_name(hub_rid), hub_rid, deadline)
        self._calls[call.device_rid] = call
        return call

    def take(self, device_rid: str) -> Call | None:
        """The call that a reply answers, which is then closed; None when nobody waits for such a reply."""
        return self._calls.pop(device_rid, None)

    def lose(self) -> int:
        """The hub connection is gone, and with it who asked; how many calls were lost by that."""
        lost = [call for call in self._calls.values() if not call.lost]
        for call in lost:
            call.lost = True
        return len(lost)

    def expire(self, now: float) -> int:
        """Forget calls whose time is over; how many of them still had one who asked."""
        over = [call for call in self._calls.values() if call.deadline <= now]
        for call in over:
            del self._calls[call.device_rid]
        return sum(not call.lost for call in over)

    @property
    def deadline(self) -> float | None:
        """When the oldest call's time is over."""
        return next((call.deadline for call in self._calls.values()), None)

    def _free_name(self, hub_rid: str) -> str:
        if hub_rid not in self._calls:
            return hub_rid
        names = (f"{hub_rid}-{number}" for number in itertools.count(2))
        return next(name for name in names if name not in self._calls)
