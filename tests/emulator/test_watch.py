"""Waiting for a match: the past counts, the time is bounded, and so is the number of waits."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.emulator import watch
from gatewayd.emulator.watch import Watch


async def test_the_past_answers_at_once() -> None:
    assert await Watch[int]().first([1, 2, 3], lambda item: item > 1, 0.01) == 2


async def test_the_future_answers_when_it_comes() -> None:
    numbers = Watch[int]()
    waiting = asyncio.ensure_future(numbers.first([1], lambda item: item == 3, 5.0))
    await asyncio.sleep(0)
    numbers.tell(2)
    numbers.tell(3)
    numbers.tell(4)
    assert await waiting == 3


async def test_nothing_in_time_is_a_timeout_and_leaves_nothing_behind() -> None:
    numbers = Watch[int]()
    with pytest.raises(TimeoutError):
        await numbers.first((), lambda _: True, 0.01)
    numbers.tell(1)
    assert numbers._waits == []


async def test_the_number_of_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_WAITS", 1)
    numbers = Watch[int]()
    waiting = asyncio.ensure_future(numbers.first((), lambda _: True, 5.0))
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="bound"):
        await numbers.first((), lambda _: True, 5.0)
    numbers.tell(1)
    await waiting
