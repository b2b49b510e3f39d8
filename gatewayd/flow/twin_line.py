"""The twin requests of one device that wait for the hub's answer. Pure.

One is asked at a time, in the order in which they came. So a patch that is asked again on a new connection is always
the newest one the hub may have seen, and no older patch can undo a newer one.

Promises (*bounded*): no more than `max_requests` of a device wait, and the payloads of all devices together find place
in one `Room`. An answer is taken once, for the request that is being asked, under the id it was asked with last.
"""

from __future__ import annotations

import enum


class Asks(enum.Enum):
    """What a request is for."""

    GET = "get"
    PATCH = "patch"
    CHECK = "check"  # our own read after a new hub connection


class TwinRequest:
    """One request. It has no repr of its own: its payload must not reach a log."""

    __slots__ = ("asks", "deadline", "device_rid", "payload", "told")

    def __init__(
        self, asks: Asks, device_rid: str, payload: bytes, deadline: float, told: int | None = None
    ) -> None:
        self.asks = asks
        self.device_rid = device_rid  # the device's, as it stood in its topic; empty for a check
        self.payload = payload
        self.deadline = deadline
        self.told = told  # the desired version that the device knew when this was asked


class Room:
    """Bytes that all lines share."""

    __slots__ = ("_free",)

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes

    def take(self, size: int) -> bool:
        """False when there is not so much."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def give_back(self, size: int) -> None:
        self._free += size


class TwinLine:
    """The requests of one device, oldest first; the first may be under way."""

    __slots__ = ("_asked_as", "_requests", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._requests: list[TwinRequest] = []  # a few; most devices have none most of the time
        self._asked_as: str | None = None  # the id under which the first is asked now

    def __len__(self) -> int:
        return len(self._requests)

    def holds(self, asks: Asks) -> bool:
        """Whether such a request waits."""
        return any(request.asks is asks for request in self._requests)

    def put(self, request: TwinRequest) -> bool:
        """Let it wait behind the others; False when there is no room for it."""
        if not self._room.take(len(request.payload)):
            return False
        self._requests.append(request)
        return True

    def ask(self, rid: str) -> TwinRequest | None:
        """The request to be asked now, from here on under way as `rid`; None when none is due."""
        if self._asked_as is not None or not self._requests:
            return None
        self._asked_as = rid
        return self._requests[0]

    def unask(self) -> None:
        """What was under way is asked again: it could not be said, or its connection is gone."""
        self._asked_as = None

    def answered(self, rid: str) -> TwinRequest | None:
        """The request that an answer is for, now done; None for an answer nobody waits for."""
        if self._asked_as is None or rid != self._asked_as:
            return None
        self._asked_as = None
        return self._leave(self._requests.pop(0))

    def expire(self, now: float) -> list[TwinRequest]:
        """Take out the requests whose time is over."""
        over = [request for request in self._requests if request.deadline <= now]
        if over and over[0] is self._requests[0]:
            self._asked_as = None
        self._requests = [request for request in self._requests if request.deadline > now]
        return [self._leave(request) for request in over]

    def clear(self) -> list[TwinRequest]:
        """Take out all requests, oldest first."""
        self._asked_as = None
        requests = [self._leave(request) for request in self._requests]
        self._requests.clear()
        return requests

    @property
    def waiting(self) -> list[TwinRequest]:
        """The requests that have not been asked, oldest first."""
        return self._requests[0 if self._asked_as is None else 1 :]

    @property
    def deadline(self) -> float | None:
        """When the first of them has waited long enough."""
        return min((request.deadline for request in self._requests), default=None)

    def _leave(self, request: TwinRequest) -> TwinRequest:
        self._room.give_back(len(request.payload))
        return request
