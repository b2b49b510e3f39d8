"""One timer for all, in virtual time; and against the real loop, to the millisecond."""

from __future__ import annotations

import asyncio
import heapq
import random
import tracemalloc
from collections.abc import Callable

import pytest

from gatewayd.transport.deadline_wheel import BATCH, MIN_STALE_TO_SWEEP, Deadline, DeadlineWheel


class VirtualTimer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualLoop:
    """Time that moves only in `run_until`; counts the timers it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.timers: list[tuple[float, int, VirtualTimer]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> VirtualTimer:
        self.asked += 1
        timer = VirtualTimer(when, call)
        heapq.heappush(self.timers, (when, self.asked, timer))
        return timer

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for _, _, timer in self.timers)

    def run_until(self, end: float) -> None:
        while self.timers and self.timers[0][0] <= end:
            when, _, timer = heapq.heappop(self.timers)
            if not timer.cancelled:
                self.now = max(self.now, when)
                timer.call()
        self.now = end


class Rig:
    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.wheel = DeadlineWheel(self.loop.time, self.loop.call_at)
        self.fired: list[tuple[str, float]] = []

    def deadline(self, name: str) -> Deadline:
        return Deadline(lambda now: self.fired.append((name, now)))


def test_each_fires_once_at_its_time_in_order_of_time() -> None:
    rig = Rig()
    for name, when in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
        rig.wheel.set(rig.deadline(name), when)
    rig.loop.run_until(10.0)
    assert rig.fired == [("early", 1.0), ("middle", 2.0), ("late", 3.0)]


def test_equal_times_fire_in_the_order_they_were_set() -> None:
    rig = Rig()
    for name in "abc":
        rig.wheel.set(rig.deadline(name), 1.0)
    rig.loop.run_until(1.0)
    assert [name for name, _ in rig.fired] == ["a", "b", "c"]


def test_a_time_that_is_past_already_fires_in_the_next_turn_and_not_inside_set() -> None:
    rig = Rig()
    rig.loop.run_until(5.0)
    rig.wheel.set(rig.deadline("past"), 1.0)
    assert rig.fired == []
    rig.loop.run_until(5.0)
    assert rig.fired == [("past", 5.0)]


def test_moved_later_it_fires_at_the_later_time_only() -> None:
    rig = Rig()
    deadline = rig.deadline("x")
    rig.wheel.set(deadline, 1.0)
    rig.wheel.set(deadline, 4.0)
    rig.loop.run_until(3.9)
    assert rig.fired == []
    rig.loop.run_until(4.0)
    assert rig.fired == [("x", 4.0)]


def test_moved_earlier_it_fires_at_the_earlier_time_only() -> None:
    rig = Rig()
    deadline = rig.deadline("x")
    rig.wheel.set(deadline, 4.0)
    rig.wheel.set(deadline, 1.0)
    rig.loop.run_until(10.0)
    assert rig.fired == [("x", 1.0)]


def test_put_off_altogether_it_never_fires_until_it_is_set_again() -> None:
    rig = Rig()
    deadline = rig.deadline("x")
    rig.wheel.set(deadline, 1.0)
    rig.wheel.set(deadline, None)
    rig.loop.run_until(2.0)
    assert rig.fired == []
    assert deadline.due is None
    rig.wheel.set(deadline, 3.0)
    rig.loop.run_until(3.0)
    assert rig.fired == [("x", 3.0)]


def test_set_again_inside_its_own_call_it_fires_again() -> None:
    rig = Rig()
    times: list[float] = []

    def again(now: float) -> None:
        times.append(now)
        if len(times) < 4:
            rig.wheel.set(deadline, now + 1.0)

    deadline = Deadline(again)
    rig.wheel.set(deadline, 1.0)
    rig.loop.run_until(10.0)
    assert times == [1.0, 2.0, 3.0, 4.0]


def test_one_timer_of_the_loop_stands_for_all() -> None:
    rig = Rig()
    for number in range(5000):
        rig.wheel.set(rig.deadline(str(number)), 100.0 - number / 100)
    assert rig.loop.pending == 1


def test_moving_later_asks_the_loop_for_nothing_and_allocates_nothing() -> None:
    rig = Rig()
    deadlines = [rig.deadline("x") for _ in range(100)]
    for deadline in deadlines:
        rig.wheel.set(deadline, 1.0)
    asked, filed = rig.loop.asked, len(rig.wheel)
    times = [2.0 + number for number in range(1000)]
    rig.wheel.set(deadlines[0], 1.5)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for when in times:
        for deadline in deadlines:
            rig.wheel.set(deadline, when)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # The loop variables of this test are all that may remain.
    assert after - before < 500
    assert (rig.loop.asked, len(rig.wheel)) == (asked, filed)


def test_moving_earlier_again_and_again_does_not_grow_the_wheel() -> None:
    rig = Rig()
    deadlines = [rig.deadline("x") for _ in range(50)]
    for step in range(1000):
        for deadline in deadlines:
            rig.wheel.set(deadline, 5000.0 - step)
    assert len(rig.wheel) <= 2 * len(deadlines) + MIN_STALE_TO_SWEEP
    rig.loop.run_until(5000.0)
    assert len(rig.fired) == len(deadlines)
    assert len(rig.wheel) == 0


def test_many_due_at_once_leave_the_loop_room_in_between() -> None:
    rig = Rig()
    for _ in range(3 * BATCH):
        rig.wheel.set(rig.deadline("x"), 1.0)
    _, _, timer = heapq.heappop(rig.loop.timers)
    rig.loop.now = 1.0
    timer.call()
    assert len(rig.fired) == BATCH
    assert rig.loop.pending == 1
    rig.loop.run_until(1.0)
    assert len(rig.fired) == 3 * BATCH


def test_a_call_that_fails_does_not_stop_the_time_of_the_others() -> None:
    rig = Rig()

    def fail(now: float) -> None:
        raise RuntimeError("a bug")

    rig.wheel.set(Deadline(fail), 1.0)
    rig.wheel.set(rig.deadline("other"), 1.0)
    with pytest.raises(RuntimeError, match="a bug"):
        rig.loop.run_until(1.0)
    rig.loop.run_until(1.0)
    assert rig.fired == [("other", 1.0)]


def test_closed_it_fires_nothing_and_leaves_no_timer() -> None:
    rig = Rig()
    deadline = rig.deadline("x")
    rig.wheel.set(deadline, 1.0)
    rig.wheel.close()
    rig.wheel.close()
    assert rig.loop.pending == 0
    rig.loop.run_until(2.0)
    assert rig.fired == []
    assert deadline.due is None


def test_any_mixture_of_moves_fires_exactly_what_a_plain_list_would() -> None:
    """The oracle looks at every deadline at every step; it has no heap and no laziness."""
    chance = random.Random(7)
    rig = Rig()
    names = [str(number) for number in range(40)]
    deadlines = {name: rig.deadline(name) for name in names}
    plain: dict[str, float | None] = dict.fromkeys(names)
    expected: list[tuple[float, str]] = []
    for step in range(3000):
        now = step * 0.5
        rig.loop.run_until(now)
        for name, when in plain.items():
            if when is not None and when <= now:
                expected.append((when, name))
                plain[name] = None
        name = chance.choice(names)
        when = None if chance.random() < 0.2 else now + chance.randrange(1, 60) * 0.25
        rig.wheel.set(deadlines[name], when)
        plain[name] = when
    last = 3000 * 0.5
    rig.loop.run_until(last + 100)
    expected += [(when, name) for name, when in plain.items() if when is not None]
    assert sorted((when, name) for name, when in rig.fired) == sorted(expected)
    assert len(expected) > 1000


async def test_on_a_real_loop_one_among_thousands_is_as_punctual_as_a_timer_of_its_own() -> None:
    """The loop's own timers are the measure: a busy machine makes both late, but never ours later than the next."""
    loop = asyncio.get_running_loop()
    wheel = DeadlineWheel(loop.time, loop.call_at)
    for _ in range(5000):
        wheel.set(Deadline(lambda now: None), loop.time() + 3600)
    order: list[tuple[str, int]] = []
    early: list[float] = []
    done = asyncio.Event()
    start = loop.time() + 0.005
    count, step = 40, 0.002

    def due(number: int) -> Deadline:
        def fire(now: float) -> None:
            order.append(("wheel", number))
            early.append(start + number * step - now)

        return Deadline(fire)

    def own_timer(number: int) -> None:
        order.append(("loop", number))
        if number == count:
            done.set()

    for number in range(count):
        wheel.set(due(number), start + number * step)
    for number in range(count + 1):
        loop.call_at(start + number * step, own_timer, number)
    async with asyncio.timeout(5):
        await done.wait()
    wheel.close()
    assert [number for who, number in order if who == "wheel"] == list(range(count))
    for number in range(count):
        assert order.index(("wheel", number)) < order.index(("loop", number + 1))
    # asyncio fires within its clock's resolution before the time.
    assert max(early) <= 1e-6
