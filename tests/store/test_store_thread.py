"""The face on the loop: order, one wake-up a batch, and an end that forgets nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatewayd.errors import LocalProtocolError, StoreInUse, StoreUnusable
from gatewayd.message import DropReason
from gatewayd.store import store_thread
from gatewayd.store.messages import Health, WhenFull
from gatewayd.store.outbox import measure
from gatewayd.store.store_thread import THREAD_NAME, Store
from tests.support.outbox_rig import A, B, new, open_store, payloads

ONE = measure(new().message)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what it looks at has no event
            await asyncio.sleep(0.001)


async def test_what_is_stored_comes_out_and_goes_when_it_is_settled(path: Path) -> None:
    rig = await open_store(path)
    seqs = await rig.append(new(payload=b"1"), new(payload=b"2"))
    assert seqs == (1, 2)
    assert (rig.store.messages, rig.store.size) == (2, 2 * (ONE - 6))
    found = await rig.lease()
    assert payloads(found) == [b"1", b"2"]
    rig.store.settle([1])
    rig.store.release([2])
    assert payloads(await rig.lease()) == [b"2"]
    assert rig.store.messages == 1
    await rig.store.close()


async def test_subscriptions_and_twins_are_there_after_a_restart(path: Path) -> None:
    rig = await open_store(path)
    assert await rig.subscribe(A, {"f": 1})
    rig.store.keep_twin(B, b"{}")
    await rig.store.close()
    rig = await open_store(path)
    assert rig.contents.subscriptions == {A: {"f": 1}}
    assert await rig.twin(B) == b"{}"
    await rig.store.close()


async def test_callbacks_come_in_the_order_of_the_calls_on_the_loop(path: Path) -> None:
    rig = await open_store(path)
    told: list[tuple[int, str]] = []

    def tell(number: int) -> Callable[[Any], None]:
        return lambda _: told.append((number, threading.current_thread().name))

    for number in range(0, 3000, 3):
        rig.store.append([new()], tell(number))
        rig.store.lease(A, 1, 1000, tell(number + 1))
        rig.store.keep_subscriptions(A, {"f": 1}, tell(number + 2))
    await until(lambda: len(told) == 3000)
    assert [number for number, _ in told] == list(range(3000))
    assert {name for _, name in told} == {threading.main_thread().name}
    await rig.store.close()


async def test_all_answers_of_a_batch_are_one_call_into_the_loop(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await open_store(path)
    gate = threading.Event()
    real = rig.store._keeper.run
    batches: list[int] = []

    def run(batch: Any) -> Any:
        batches.append(len(batch))
        assert gate.wait(10)
        return real(batch)

    loop = asyncio.get_running_loop()
    wakes = 0
    threadsafe = loop.call_soon_threadsafe

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal wakes
        wakes += 1
        return threadsafe(*arguments, **options)

    monkeypatch.setattr(rig.store._keeper, "run", run)
    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    answers: list[Any] = []
    rig.store.append([new()], answers.append)
    await until(lambda: bool(batches))
    for _ in range(500):
        rig.store.append([new()], answers.append)
    gate.set()
    await until(lambda: len(answers) == 501)
    assert batches == [1, 500]
    assert wakes == 2
    await rig.store.close()


async def test_a_batch_is_bounded_in_commands_and_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_thread, "BATCH_COMMANDS", 10)
    monkeypatch.setattr(store_thread, "BATCH_BYTES", 3 * ONE)
    rig = await open_store(path)
    real = rig.store._keeper.run
    batches: list[int] = []

    def run(batch: Any) -> Any:
        batches.append(len(batch))
        return real(batch)

    monkeypatch.setattr(rig.store._keeper, "run", run)
    answers: list[Any] = []
    for _ in range(50):
        rig.store.append([new()], answers.append)
    for _ in range(50):
        rig.store.lease(B, 1, 1, answers.append)
    await until(lambda: len(answers) == 100)
    assert max(batches) <= 10
    assert max(batches[:15]) <= 3
    await rig.store.close()


async def test_bytes_that_wait_for_the_disk_are_bounded_and_answered_in_turn(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_thread, "WAITING_BYTES", 3 * ONE)
    rig = await open_store(path)
    answers: list[Any] = []
    for _ in range(5):
        rig.store.append([new()], answers.append)
    await until(lambda: len(answers) == 5)
    assert [isinstance(answer, tuple) for answer in answers] == [True, True, True, False, False]
    assert answers[3] is Health.AT_BOUND
    assert isinstance(await rig.append(new()), tuple)
    await rig.store.close()


async def test_the_bound_drops_and_ends_are_told(path: Path) -> None:
    rig = await open_store(path, max_bytes=2 * ONE)
    await rig.append(new(), new(B, expires_at=5.0))
    assert await rig.append(new()) is Health.AT_BOUND
    assert rig.store.health is Health.AT_BOUND
    rig.store.expire(6.0)
    await rig.lease(limit=0)
    assert rig.heard.dropped == [(B, 1, ONE, DropReason.TTL)]
    rig.store.retune(max_bytes=2 * ONE, when_full=WhenFull.DROP_OLDEST)
    await rig.append(new(), new())
    assert rig.heard.dropped[1:] == [(A, 1, ONE, DropReason.CAPACITY)]
    assert rig.heard.health == [Health.AT_BOUND, Health.OK]
    await rig.store.close()


async def test_a_callback_that_fails_takes_no_answer_from_the_others(path: Path) -> None:
    rig = await open_store(path)
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    def fails(_: object) -> None:
        raise ZeroDivisionError

    rig.store.append([new()], fails)
    assert await rig.append(new()) == (2,)
    assert isinstance(said[0]["exception"], ZeroDivisionError)
    await rig.store.close()


async def test_a_full_disk_is_asked_again_at_intervals_until_it_takes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_thread, "RETRY_SECONDS", 0.02)
    rig = await open_store(path)
    await rig.append(new())
    database = rig.store._keeper._database
    assert database is not None
    # Between two commands the thread waits, so the connection is ours for a moment.
    used = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {used}")
    assert await rig.append(new(payload=bytes(100_000))) is Health.DISK_FULL
    assert await rig.append(new()) is Health.DISK_FULL
    first = rig.store._retry
    await until(
        lambda: rig.store._retry is not first and rig.store._retry is not None
    )  # asked, and refused again
    assert rig.store.health is Health.DISK_FULL
    database.execute("PRAGMA max_page_count = 1000000")
    await until(lambda: rig.store.health is Health.OK)
    assert rig.heard.health == [Health.DISK_FULL, Health.OK]
    assert isinstance(await rig.append(new(payload=bytes(100_000))), tuple)
    await rig.store.close()


async def test_the_end_waits_for_all_that_was_asked_for(path: Path) -> None:
    rig = await open_store(path)
    answers: list[Any] = []
    for _ in range(100):
        rig.store.append([new()], answers.append)
    await rig.store.close()
    assert len(answers) == 100
    assert rig.store.health is Health.CLOSED
    assert not any(thread.name == THREAD_NAME for thread in threading.enumerate())
    again = await open_store(path)
    assert again.contents.backlog[0].messages == 100
    await again.store.close()


async def test_an_end_while_the_disk_fails_leaves_no_timer(path: Path) -> None:
    rig = await open_store(path)
    database = rig.store._keeper._database
    assert database is not None
    database.execute("PRAGMA query_only = ON")
    assert await rig.append(new()) is Health.FAILING
    await rig.store.close()
    assert rig.store._retry is None or rig.store._retry.cancelled()


async def test_an_open_that_is_refused_leaves_nothing_running(path: Path) -> None:
    rig = await open_store(path)
    with pytest.raises(StoreInUse):
        await open_store(path)
    with pytest.raises(StoreUnusable):
        await open_store(path.parent / "nowhere" / "outbox.db")
    await rig.store.close()
    await rig.store.close()
    await until(lambda: not any(thread.name == THREAD_NAME for thread in threading.enumerate()))


async def test_a_store_that_is_not_open_is_not_asked(path: Path) -> None:
    store = Store(
        asyncio.get_running_loop(),
        path,
        max_bytes=1,
        when_full=WhenFull.STOP,
        wall=float,
        on_health=print,
        on_dropped=print,
    )
    with pytest.raises(LocalProtocolError):
        store.settle([1])
    assert store.health is Health.CLOSED


async def test_a_fault_nobody_foresaw_is_told_and_nobody_waits_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_thread, "RETRY_SECONDS", 0.01)
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    rig = await open_store(path)
    await rig.append(new(payload=b"1"))
    with monkeypatch.context() as patched:

        def fail(_batch: object) -> None:
            patched.undo()
            raise ZeroDivisionError

        patched.setattr(rig.store._keeper, "run", fail)
        assert await rig.append(new(payload=b"2")) is Health.FAILING
    assert "fault of gatewayd" in told[0]["message"]
    await until(lambda: rig.store.health is Health.OK)
    assert payloads(await rig.lease()) == [b"1"]
    assert await rig.append(new(payload=b"2")) != Health.FAILING
    await rig.store.close()
