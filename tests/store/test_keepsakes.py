"""Subscriptions and twins: the newest counts, written or not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.store.keepsakes import Keepsakes, subscriptions
from gatewayd.store.schema import open_database
from tests.support.outbox_rig import MODULE, A, B


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = open_database(tmp_path / "outbox.db")
    yield made
    made.close()


def test_the_newest_subscriptions_replace_those_before(database: sqlite3.Connection) -> None:
    kept = Keepsakes()
    kept.subscribe(A, {"a/#": 1, "b": 0})
    kept.subscribe(MODULE, {"m": 1})
    kept.write(database)
    kept.written()
    kept.subscribe(A, {"c": 1})
    kept.write(database)
    assert subscriptions(database) == {A: {"c": 1}, MODULE: {"m": 1}}


def test_no_filters_forget_the_device(database: sqlite3.Connection) -> None:
    kept = Keepsakes()
    kept.subscribe(A, {"a": 1})
    kept.write(database)
    kept.subscribe(A, {})
    kept.write(database)
    assert subscriptions(database) == {}


def test_what_waits_is_the_newest_only_and_goes_once(database: sqlite3.Connection) -> None:
    kept = Keepsakes()
    for number in range(1000):
        kept.subscribe(A, {f"f{number}": 1})
        kept.twin(A, b"%d" % number)
    assert kept.waiting
    assert (len(kept._filters), len(kept._twins)) == (1, 1)
    kept.write(database)
    kept.written()
    assert not kept.waiting
    assert subscriptions(database) == {A: {"f999": 1}}
    assert kept.read_twin(database, A) == b"999"


def test_a_twin_is_known_before_it_is_on_disk_and_without_a_disk(database: sqlite3.Connection) -> None:
    kept = Keepsakes()
    kept.twin(A, b"{}")
    assert kept.read_twin(None, A) == b"{}"
    assert kept.read_twin(None, B) is None
    assert kept.read_twin(database, B) is None


def test_a_twin_is_replaced_and_forgotten(database: sqlite3.Connection) -> None:
    kept = Keepsakes()
    for document in (b"1", b"2", None):
        kept.twin(A, document)
        kept.write(database)
        kept.written()
        assert kept.read_twin(database, A) == document
