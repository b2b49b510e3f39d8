"""One thread, one bounded queue, shared lookups."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from gatewayd.errors import Bounded, LocalProtocolError
from gatewayd.transport.addresses import AddressInfo
from gatewayd.transport.worker import THREAD_NAME, Worker

PATIENCE = 5.0


class Resolver:
    """Answers when it is let go; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.addresses = ["192.0.2.1"]

    def __call__(self, host: str, port: int) -> list[AddressInfo]:
        self.asked.append(host)
        assert self.go.wait(PATIENCE)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


Make = Callable[..., Worker]


@pytest.fixture
async def make_worker() -> AsyncIterator[Make]:
    made: list[Worker] = []

    def make(**options: object) -> Worker:
        made.append(Worker(asyncio.get_running_loop(), **options))  # type: ignore[arg-type]  # tests pass what they need
        return made[-1]

    yield make
    for worker in made:
        assert await worker.stop(within=PATIENCE)


async def test_a_call_runs_in_the_one_named_thread_and_gives_its_result(make_worker: Make) -> None:
    worker = make_worker()
    names = {await worker.run(lambda: threading.current_thread().name) for _ in range(3)}
    assert names == {THREAD_NAME}
    assert await worker.run(divmod, 7, 3) == (2, 1)
    assert await worker.run(int, "ff", base=16) == 255


async def test_what_a_call_raises_comes_to_whoever_waits_and_the_thread_goes_on(make_worker: Make) -> None:
    worker = make_worker()
    with pytest.raises(ZeroDivisionError):
        await worker.run(divmod, 1, 0)
    assert await worker.run(abs, -1) == 1


async def test_calls_are_made_one_after_another_in_order(make_worker: Make) -> None:
    worker = make_worker()
    order: list[int] = []
    await asyncio.gather(*(worker.run(order.append, number) for number in range(50)))
    assert order == list(range(50))


async def test_the_loop_goes_on_while_a_call_blocks(make_worker: Make) -> None:
    worker = make_worker()
    go = threading.Event()
    blocked = asyncio.ensure_future(worker.run(go.wait, PATIENCE))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not blocked.done()
    go.set()
    assert await blocked


async def test_at_its_bound_it_refuses_at_once_and_takes_calls_again_later(make_worker: Make) -> None:
    worker = make_worker(bound=3)
    go = threading.Event()
    waiting = [asyncio.ensure_future(worker.run(go.wait, PATIENCE)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Bounded, match="at most 3"):
        await worker.run(abs, 1)
    go.set()
    assert await asyncio.gather(*waiting) == [True, True, True]
    assert await worker.run(abs, -1) == 1
    assert worker.unfinished == 0


async def test_calls_nobody_waits_for_still_count_and_are_skipped(make_worker: Make) -> None:
    worker = make_worker(bound=3)
    go = threading.Event()
    first = asyncio.ensure_future(worker.run(go.wait, PATIENCE))
    made: list[int] = []
    given_up = [asyncio.ensure_future(worker.run(made.append, number)) for number in range(2)]
    await asyncio.sleep(0)
    for call in given_up:
        call.cancel()
    await asyncio.sleep(0)
    with pytest.raises(Bounded):
        await worker.run(abs, 1)
    go.set()
    await first
    assert await worker.run(abs, -1) == 1
    assert made == []


async def test_lookups_of_one_name_at_the_same_time_share_one_answer(make_worker: Make) -> None:
    resolver = Resolver()
    worker = make_worker(bound=1, lookup=resolver)
    lookups = [asyncio.ensure_future(worker.resolve("hub.example", 8883)) for _ in range(200)]
    await asyncio.sleep(0)
    resolver.go.set()
    answers = await asyncio.gather(*lookups)
    assert {str(address) for answer in answers for address in answer} == {"192.0.2.1:8883"}
    assert resolver.asked == ["hub.example"]


async def test_a_lookup_that_begins_after_the_answer_asks_anew(make_worker: Make) -> None:
    resolver = Resolver()
    resolver.go.set()
    worker = make_worker(lookup=resolver)
    assert [address.host for address in await worker.resolve("hub.example", 1)] == ["192.0.2.1"]
    resolver.addresses = ["192.0.2.2", "192.0.2.3"]
    assert [address.host for address in await worker.resolve("hub.example", 1)] == ["192.0.2.2", "192.0.2.3"]
    assert resolver.asked == ["hub.example"] * 2


async def test_one_who_gives_up_does_not_take_the_answer_from_the_others(make_worker: Make) -> None:
    resolver = Resolver()
    worker = make_worker(lookup=resolver)
    impatient = asyncio.ensure_future(worker.resolve("hub.example", 1))
    patient = asyncio.ensure_future(worker.resolve("hub.example", 1))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.sleep(0)
    resolver.go.set()
    assert [address.host for address in await patient] == ["192.0.2.1"]
    assert impatient.cancelled()


async def test_a_failed_lookup_is_told_to_all_and_asked_again_later(make_worker: Make) -> None:
    resolver = Resolver()
    resolver.addresses = []
    worker = make_worker(lookup=resolver)
    lookups = [asyncio.ensure_future(worker.resolve("nobody.example", 1)) for _ in range(3)]
    await asyncio.sleep(0)
    resolver.go.set()
    assert {type(problem) for problem in await asyncio.gather(*lookups, return_exceptions=True)} == {
        socket.gaierror
    }
    resolver.addresses = ["192.0.2.9"]
    assert [address.host for address in await worker.resolve("nobody.example", 1)] == ["192.0.2.9"]


async def test_a_numeric_host_is_not_asked_for(make_worker: Make) -> None:
    resolver = Resolver()
    worker = make_worker(bound=0, lookup=resolver)
    assert [str(address) for address in await worker.resolve("::1", 8883)] == ["[::1]:8883"]
    assert resolver.asked == []


async def test_the_systems_resolver_knows_localhost(make_worker: Make) -> None:
    hosts = {address.host for address in await make_worker().resolve("localhost", 1)}
    assert hosts <= {"127.0.0.1", "::1"}
    assert hosts


async def test_stopping_refuses_the_queued_calls_and_ends_the_thread() -> None:
    worker = Worker(asyncio.get_running_loop())
    go = threading.Event()
    running = asyncio.ensure_future(worker.run(go.wait, PATIENCE))
    queued = asyncio.ensure_future(worker.run(abs, 1))
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(worker.stop(within=PATIENCE))
    await asyncio.sleep(0)
    for call in (running, queued):
        with pytest.raises(Bounded, match="stops"):
            await call
    go.set()
    assert await stopping
    assert not worker._thread.is_alive()
    with pytest.raises(LocalProtocolError):
        await worker.run(abs, 1)


async def test_stopping_is_bounded_when_a_call_does_not_end() -> None:
    loop = asyncio.get_running_loop()
    worker = Worker(loop)
    begun, go = asyncio.Event(), threading.Event()

    def block() -> bool:
        loop.call_soon_threadsafe(begun.set)
        return go.wait(PATIENCE)

    running = asyncio.ensure_future(worker.run(block))
    await begun.wait()
    assert not await worker.stop(within=0.02)
    with pytest.raises(Bounded):
        await running
    go.set()
    assert await worker.stop(within=PATIENCE), "a second look finds it ended"


def test_a_loop_that_closes_first_ends_the_thread_too() -> None:
    go = threading.Event()
    threads: list[threading.Thread] = []

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()

        def block() -> bool:
            threads.append(threading.current_thread())
            loop.call_soon_threadsafe(begun.set)
            return go.wait(PATIENCE)

        call = asyncio.ensure_future(Worker(loop).run(block))
        await begun.wait()
        call.cancel()

    asyncio.run(leave())
    go.set()
    threads[0].join(PATIENCE)
    assert not threads[0].is_alive()
