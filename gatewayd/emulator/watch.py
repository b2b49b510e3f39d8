"""Waiting for the next thing that matches: what tests and control clients use instead of sleeping.

One `Watch` belongs to one stream of things. Every wait has a bound in time, and the number of waits is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_WAITS = 1024


class Watch(Generic[T]):
    """Futures that resolve with the first told item their predicate accepts."""

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        self._waits: list[tuple[Callable[[T], bool], asyncio.Future[T]]] = []

    def tell(self, item: T) -> None:
        """Offer one item to every wait."""
        if not self._waits:
            return
        left = []
        for predicate, future in self._waits:
            if future.done():
                continue
            if predicate(item):
                future.set_result(item)
            else:
                left.append((predicate, future))
        self._waits = left

    async def first(self, past: Iterable[T], predicate: Callable[[T], bool], within: float) -> T:
        """The first item of `past` that matches, or of what is told within `within` seconds; else TimeoutError."""
        for item in past:
            if predicate(item):
                return item
        if len(self._waits) >= MAX_WAITS:
            raise ValueError(f"{MAX_WAITS} waits at once is the bound")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waits.append((predicate, future))
        async with asyncio.timeout(within):
            return await future
