"""Kept twins: what is written, when, and what is known after a restart. The store is a dictionary that keeps order."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gatewayd.clock import RELEASE_EPOCH_SECONDS
from gatewayd.flow.twin_cache import KEEP_AFTER_SECONDS, MAX_WAITING, TwinCache, forget_twins
from gatewayd.flow.twin_document import TwinDocument
from gatewayd.message import Identity
from tests.support.virtual_time import VirtualTime
from tests.support.way_rig import MemoryTwinStore

DEVICE = Identity("press-1")
OTHER = Identity("press-2", "camera")


def twin(desired: int = 1, reported: int = 1, *, size: int = 0) -> TwinDocument:
    body = {"desired": {"d": "x" * size, "$version": desired}, "reported": {"$version": reported}}
    document = TwinDocument.parse(json.dumps(body).encode())
    assert document is not None
    return document


class Bench:
    def __init__(self, store: MemoryTwinStore | None = None, *, max_bytes: int = 1 << 20) -> None:
        self.time = VirtualTime(float(RELEASE_EPOCH_SECONDS))
        self.store = store or MemoryTwinStore()
        self.cache = TwinCache(self.store, self.time.clock, self.time.wheel, max_bytes=max_bytes)
        self.gaps: list[Identity] = []
        self.cache.on_gap = self.gaps.append

    def known(self, identity: Identity = DEVICE) -> TwinDocument | None:
        found: list[TwinDocument | None] = []
        self.cache.read(identity, found.append)
        self.store.answer()
        assert len(found) == 1
        return found[0]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_twin_the_hub_told_is_known(bench: Bench) -> None:
    bench.cache.whole(DEVICE, twin(7))
    assert bench.known() == twin(7)
    assert bench.known(OTHER) is None


def test_changes_are_written_once_some_time_after_the_first(bench: Bench) -> None:
    bench.cache.whole(DEVICE, twin(1))
    bench.store.answer()
    for version in range(2, 20):
        bench.time.pass_seconds(1.0)
        bench.cache.desired(DEVICE, b"{}", version)
    assert bench.store.writes == []
    bench.time.pass_seconds(KEEP_AFTER_SECONDS)
    assert bench.store.writes == [DEVICE]
    kept = TwinDocument.parse(bench.store.kept[DEVICE])
    assert kept is not None
    assert kept.desired_version == 19


def test_a_twin_that_changes_without_pause_is_written_all_the_same(bench: Bench) -> None:
    bench.cache.whole(DEVICE, twin(1))
    bench.store.answer()
    for version in range(2, 2 + int(3 * KEEP_AFTER_SECONDS)):
        bench.cache.desired(DEVICE, b"{}", version)
        bench.time.pass_seconds(1.0)
    assert 2 <= len(bench.store.writes) <= 3


def test_a_twin_that_is_as_it_was_is_not_written_again_after_a_restart(bench: Bench) -> None:
    bench.cache.whole(DEVICE, twin(7))
    bench.store.answer()
    bench.cache.flush()
    later = Bench(bench.store)
    bench.store.writes.clear()
    later.cache.whole(DEVICE, twin(7))
    later.store.answer()
    later.time.pass_seconds(2 * KEEP_AFTER_SECONDS)
    assert later.store.writes == []


def test_after_a_restart_the_twin_is_known_and_followed(bench: Bench) -> None:
    bench.cache.whole(DEVICE, twin(7))
    bench.store.answer()
    bench.cache.flush()
    later = Bench(bench.store)
    later.cache.desired(DEVICE, b'{"rate":2}', 8)
    known = later.known()
    assert known is not None
    assert json.loads(known.desired)["rate"] == 2


def test_an_acknowledged_reported_patch_is_part_of_the_twin(bench: Bench) -> None:
    bench.cache.whole(DEVICE, twin(1, 1))
    bench.cache.reported(DEVICE, b'{"fw":"2"}', 2)
    known = bench.known()
    assert known is not None
    assert json.loads(known.body)["reported"] == {"fw": "2", "$version": 2}


def test_a_twin_that_missed_a_change_is_forgotten_and_read_anew(bench: Bench) -> None:
    bench.cache.whole(DEVICE, twin(1))
    bench.store.answer()
    bench.cache.flush()
    bench.cache.desired(DEVICE, b"{}", 3)
    assert bench.known() is None
    assert bench.gaps == [DEVICE]
    bench.cache.flush()
    assert bench.store.kept == {}


def test_a_change_to_a_twin_nobody_knows_is_no_gap(bench: Bench) -> None:
    bench.cache.desired(DEVICE, b"{}", 3)
    assert bench.known() is None
    assert bench.gaps == []
    bench.cache.flush()
    assert bench.store.writes == []


def test_twins_of_devices_that_left_are_stored_and_then_need_no_memory(bench: Bench) -> None:
    bench.cache.whole(DEVICE, twin(4))
    bench.store.answer()
    bench.cache.device_left(DEVICE)
    bench.time.pass_seconds(KEEP_AFTER_SECONDS)
    reads = bench.store.reads
    assert bench.known() == twin(4)
    assert bench.store.reads == reads + 1


def test_a_twin_that_is_stored_already_needs_no_memory_from_the_moment_the_device_left(bench: Bench) -> None:
    assert bench.known() is None
    bench.cache.device_left(DEVICE)
    reads = bench.store.reads
    bench.known()
    assert bench.store.reads == reads + 1


def test_a_device_that_left_while_its_twin_was_read_leaves_nothing_in_memory(bench: Bench) -> None:
    bench.cache.read(DEVICE, lambda _document: None)
    bench.cache.device_left(DEVICE)
    bench.store.answer()
    reads = bench.store.reads
    bench.known()
    assert bench.store.reads == reads + 1


def test_a_device_that_is_back_before_its_twin_was_stored_keeps_it_in_memory(bench: Bench) -> None:
    bench.cache.whole(DEVICE, twin(4))
    bench.store.answer()
    bench.cache.device_left(DEVICE)
    bench.cache.desired(DEVICE, b"{}", 5)
    bench.cache.flush()
    reads = bench.store.reads
    assert bench.known() is not None
    assert bench.store.reads == reads


def test_a_twin_that_is_being_read_is_not_put_away_for_another() -> None:
    bench = Bench(max_bytes=100)
    bench.known(OTHER)
    bench.cache.whole(DEVICE, twin(4))
    bench.cache.whole(OTHER, twin(1, size=1000))
    bench.store.answer()
    assert bench.known(DEVICE) == twin(4)


def test_memory_has_a_bound_and_what_leaves_it_is_stored() -> None:
    bench = Bench(max_bytes=5000)
    for number in range(10):
        bench.cache.whole(Identity(f"d{number}"), twin(number + 1, size=1000))
        bench.store.answer()
    assert 5 <= len(bench.store.kept) <= 9
    for number in range(10):
        assert bench.known(Identity(f"d{number}")) == twin(number + 1, size=1000)


def test_one_twin_above_the_bound_is_stored_at_once() -> None:
    bench = Bench(max_bytes=100)
    bench.cache.whole(DEVICE, twin(1, size=1000))
    bench.store.answer()
    assert bench.store.writes == [DEVICE]
    bench.cache.desired(DEVICE, b"{}", 2)
    known = bench.known()
    assert known is not None
    assert known.desired_version == 2


def test_what_waits_for_the_store_has_a_bound_and_a_change_too_many_forgets_the_twin(bench: Bench) -> None:
    bench.store.kept[DEVICE] = twin(1).body
    for version in range(2, MAX_WAITING + 4):
        bench.cache.desired(DEVICE, b"{}", version)
    answers: list[TwinDocument | None] = []
    bench.cache.read(DEVICE, answers.append)
    assert answers == [None]
    bench.store.answer()
    assert bench.known() is None
    assert bench.gaps == [DEVICE]


def test_a_stored_twin_that_cannot_be_read_is_none(bench: Bench) -> None:
    bench.store.kept[DEVICE] = b"\x00\x01"
    assert bench.known() is None


def test_with_the_cache_off_what_was_kept_is_forgotten() -> None:
    store = MemoryTwinStore({DEVICE: twin(1).body, OTHER: twin(2).body})
    forget_twins(store, [DEVICE, OTHER])
    assert store.kept == {}


def test_reads_are_answered_in_their_order_among_changes(bench: Bench) -> None:
    seen: list[int | None] = []

    def note(document: TwinDocument | None) -> None:
        seen.append(document.desired_version if document else None)

    steps: list[Callable[[], None]] = [
        lambda: bench.cache.read(DEVICE, note),
        lambda: bench.cache.whole(DEVICE, twin(5)),
        lambda: bench.cache.read(DEVICE, note),
        lambda: bench.cache.desired(DEVICE, b"{}", 6),
        lambda: bench.cache.read(DEVICE, note),
    ]
    for step in steps:
        step()
    bench.store.answer()
    assert seen == [None, 5, 6]
