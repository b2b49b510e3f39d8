"""The bound and the three rules at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewayd.message import Telemetry
from gatewayd.store.backlog import Backlog, Entry
from gatewayd.store.messages import WhenFull
from gatewayd.store.outbox import measure
from gatewayd.store.retention import FREE_AGAIN, Retention, size_of
from tests.support.outbox_rig import A, B, KeeperRig, new


def filled(*entries: Entry) -> Backlog:
    backlog = Backlog()
    for entry in entries:
        backlog.add(entry)
    return backlog


SIZES = {1: 100, 2: 100, 3: 100, 4: 100}
FOUR = (Entry(1, A, 5, 100), Entry(2, B, 1, 100), Entry(3, A, 1, 100), Entry(4, B, 9, 100))


def victims(when_full: WhenFull, adding: int, lowest_priority: int = 5) -> list[int] | None:
    backlog = filled(*FOUR)
    found = Retention(400, when_full).make_room(
        400 + adding, adding, lowest_priority, backlog, SIZES.__getitem__
    )
    assert backlog.messages == 4 - len(found or [])
    return found if found is None else [entry.seq for entry in found]


def test_topic_payload_identity_and_what_is_written_beside_them_count() -> None:
    assert size_of("tö", b"abc", "dev") == 3 + 3 + 3 + size_of("", b"", "")
    assert measure(Telemetry(A, "t", b"xyz", 1)) == size_of("t", b"xyz", "dev-a")


@pytest.mark.parametrize(("payload", "with_end"), [(0, False), (256, False), (256, True), (3000, True)])
def test_what_counts_is_what_the_file_takes(tmp_path: Path, payload: int, with_end: bool) -> None:
    rig = KeeperRig(tmp_path / "outbox.db")
    for _ in range(10):
        rig.append(*(new(payload=bytes(payload), expires_at=2e9 if with_end else None) for _ in range(300)))
    counted = rig.keeper.size
    rig.close()
    on_disk = (tmp_path / "outbox.db").stat().st_size - 9 * 4096  # the tables when they are empty
    # 3,000 bytes are the worst: two do not fit into a page, so over a quarter of it is empty.
    assert 0.7 * on_disk <= counted <= 1.35 * on_disk


def test_stop_refuses_and_drops_nothing() -> None:
    assert victims(WhenFull.STOP, 100) is None


@pytest.mark.parametrize(("adding", "gone"), [(1, [1]), (100, [1]), (101, [1, 2]), (400, [1, 2, 3, 4])])
def test_the_oldest_go_until_there_is_room(adding: int, gone: list[int]) -> None:
    assert victims(WhenFull.DROP_OLDEST, adding) == gone


def test_the_lowest_priority_goes_first_and_of_it_the_oldest() -> None:
    assert victims(WhenFull.DROP_LOWEST_PRIORITY, 250, lowest_priority=9) == [2, 3, 1]


def test_nothing_goes_for_a_newcomer_of_lower_priority() -> None:
    assert victims(WhenFull.DROP_LOWEST_PRIORITY, 250, lowest_priority=1) is None
    assert victims(WhenFull.DROP_LOWEST_PRIORITY, 200, lowest_priority=1) == [2, 3]


def test_what_is_larger_than_the_bound_drops_nobody() -> None:
    assert victims(WhenFull.DROP_OLDEST, 401) is None


def test_after_a_refusal_everything_is_refused_until_there_is_room_for_it_and_a_little_more() -> None:
    retention = Retention(1600, WhenFull.STOP)
    assert retention.make_room(1700, 200, 0, Backlog(), SIZES.__getitem__) is None
    assert not retention.fits(1501)
    assert retention.make_room(1501, 1, 0, Backlog(), SIZES.__getitem__) is None
    retention.look_again(1401)
    assert retention.at_bound
    retention.look_again(1400)
    assert not retention.at_bound
    assert retention.fits(1600)


def test_a_small_refusal_waits_for_a_part_of_the_bound() -> None:
    retention = Retention(1600, WhenFull.STOP)
    assert retention.make_room(1601, 1, 0, Backlog(), SIZES.__getitem__) is None
    retention.look_again(1600 - 1600 // FREE_AGAIN + 1)
    assert retention.at_bound
    retention.look_again(1600 - 1600 // FREE_AGAIN)
    assert not retention.at_bound


def test_other_bounds_open_the_latch() -> None:
    retention = Retention(100, WhenFull.STOP)
    assert retention.make_room(200, 100, 0, Backlog(), SIZES.__getitem__) is None
    retention.retune(1000, WhenFull.DROP_OLDEST)
    assert retention.fits(1000)
    assert retention.when_full is WhenFull.DROP_OLDEST


def test_an_append_that_never_fits_is_refused_again_once_all_is_gone() -> None:
    retention = Retention(100, WhenFull.STOP)
    assert retention.make_room(101, 101, 0, Backlog(), SIZES.__getitem__) is None
    retention.look_again(0)
    assert not retention.at_bound
    assert not retention.fits(101)
