"""A disk that is full or fails, with the kernel's own errors: a state, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatewayd.store import store_thread
from gatewayd.store.messages import Health
from gatewayd.store.reading import stored
from gatewayd.store.schema import wal_path
from tests.support.outbox_rig import StoreRig, new, open_store


@pytest.fixture(autouse=True)
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_thread, "RETRY_SECONDS", 0.05)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - the state of a store has no event
            await asyncio.sleep(0.005)


def seqs(answer: tuple[int, ...] | Health) -> list[int]:
    assert isinstance(answer, tuple)
    return list(answer)


async def fill(rig: StoreRig, state: Health) -> list[int]:
    """Store until the disk says no; the seqs that were acknowledged."""
    kept: list[int] = []
    while isinstance(answer := await rig.append(*(new(payload=bytes(2000)) for _ in range(10))), tuple):
        kept += answer
        assert len(kept) < 10_000
    assert answer is state
    return kept


async def recover(rig: StoreRig, path: Path, kept: list[int], states: set[Health]) -> None:
    """The disk works again: the state ends by itself, all is there, and more can be stored."""
    await until(lambda: rig.store.health is Health.OK)
    # A disk near its end may take a small write and not the next one, so the state may have come more than once.
    assert set(rig.heard.health) == states | {Health.OK}
    more = await rig.append(new())
    assert isinstance(more, tuple)
    await rig.store.close()
    assert [one.seq for one in stored(path)] == [*kept, *more]


@contextlib.contextmanager
def small_disk(where: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory."""
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "gatewayd-test", str(where)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this root may not mount a tmpfs")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
async def test_a_full_file_system_is_a_state_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=12m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1_000_000))
        path = disk / "outbox.db"
        rig = await open_store(path)
        kept = await fill(rig, Health.DISK_FULL)
        assert len(kept) > 50
        assert await rig.append(new()) is Health.DISK_FULL
        assert len(await rig.lease(limit=20)) == 20
        ballast.unlink()
        await recover(rig, path, kept, {Health.DISK_FULL})


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
async def test_messages_the_hub_takes_make_the_room_that_is_missing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=12m") as disk:
        rig = await open_store(disk / "outbox.db")
        kept = await fill(rig, Health.DISK_FULL)
        found = await rig.lease(limit=len(kept))
        assert [one.seq for one in found] == kept
        rig.store.settle(kept)
        await until(lambda: rig.store.health is Health.OK)
        await rig.append(new())
        assert next(one.seq for one in stored(disk / "outbox.db")) > kept[-1]
        await rig.store.close()


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
async def test_an_outbox_on_a_full_file_system_opens_or_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        path = disk / "outbox.db"
        rig = await open_store(path)
        (seq,) = seqs(await rig.append(new()))
        await rig.store.close()
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        rig = await open_store(path)
        assert rig.contents.backlog or rig.store.health is Health.DISK_FULL
        ballast.unlink()
        await until(lambda: rig.store.health is Health.OK)
        assert [one.seq for one in await rig.lease()] == [seq]
        await rig.store.close()


@contextlib.contextmanager
def instead(path: Path, elsewhere: Callable[[], int]) -> Iterator[None]:
    """The descriptor through which this process writes `path` leads elsewhere meanwhile."""
    open_files = {int(link.name): link for link in Path("/proc/self/fd").iterdir()}
    found = [number for number, link in open_files.items() if link.is_symlink() and link.readlink() == path]
    assert len(found) == 1
    kept, replacement = os.dup(found[0]), elsewhere()
    os.dup2(replacement, found[0])
    try:
        yield
    finally:
        os.dup2(kept, found[0])
        os.close(kept)
        os.close(replacement)


@pytest.mark.parametrize(
    ("elsewhere", "state"),
    [
        pytest.param(lambda _: os.open("/dev/full", os.O_RDWR), Health.DISK_FULL, id="ENOSPC of the kernel"),
        pytest.param(lambda log: os.open(log, os.O_RDONLY), Health.FAILING, id="writes are refused"),
    ],
)
async def test_a_log_that_cannot_be_written_is_a_state_and_ends(
    tmp_path: Path, elsewhere: Callable[[Path], int], state: Health
) -> None:
    path = tmp_path / "outbox.db"
    rig = await open_store(path)
    kept = seqs(await rig.append(new(), new()))
    assert len(kept) == 2
    with instead(wal_path(path), lambda: elsewhere(wal_path(path))):
        answers = [await rig.append(new()) for _ in range(20)]
        assert answers == [state] * 20
        retry = rig.store._retry
        await until(lambda: rig.store._retry not in (retry, None))
        assert rig.store.health in (Health.DISK_FULL, Health.FAILING)
    await recover(rig, path, kept, {state, rig.store.health})


async def test_a_log_that_cannot_be_synced_acknowledges_nothing(tmp_path: Path) -> None:
    """fsync fails and write does not: a pipe takes the bytes, and cannot be synced."""
    path = tmp_path / "outbox.db"
    rig = await open_store(path)
    kept = seqs(await rig.append(new()))
    reading, writing = os.pipe()
    with instead(wal_path(path), lambda: writing):
        assert await rig.append(new()) is Health.FAILING
    os.close(reading)
    await recover(rig, path, kept, {Health.FAILING})


CHILD = """
import asyncio, resource, sys
from pathlib import Path
from gatewayd.store import store_thread
from gatewayd.store.messages import Health
from tests.system.test_outbox_disk import fill, recover
from tests.support.outbox_rig import open_store

async def main(path):
    store_thread.RETRY_SECONDS = 0.05
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rig = await open_store(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    kept = await fill(rig, Health.FAILING)
    assert len(kept) >= 50, kept
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await recover(rig, path, kept, {Health.FAILING})
    print("recovered", len(kept))

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_file_that_may_not_grow_is_a_state_until_it_may(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: EFBIG, for everybody and without a mount."""
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "outbox.db")], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.startswith("recovered"), ran.stderr
