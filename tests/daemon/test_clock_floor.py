"""The last good time, on disk."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gatewayd.clock import RELEASE_EPOCH_SECONDS, ClockWatch, ManualClock
from gatewayd.daemon.clock_floor import MAX_AHEAD_SECONDS, read_floor, save_floor

LATER = RELEASE_EPOCH_SECONDS + 86_400


@pytest.fixture
def floor(tmp_path: Path) -> Path:
    return tmp_path / "clock-floor"


def test_what_is_kept_is_the_floor_of_the_next_run(floor: Path) -> None:
    assert save_floor(floor, LATER + 0.9)
    assert read_floor(floor) == LATER
    assert not ClockWatch(ManualClock(LATER - 1), floor=read_floor(floor)).trusted


def test_a_first_run_has_the_date_of_the_release_and_says_nothing(
    floor: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_floor(floor) == RELEASE_EPOCH_SECONDS
    assert caplog.records == []


def test_a_time_before_the_release_lowers_nothing(floor: Path) -> None:
    floor.write_text("1000\n")
    assert read_floor(floor) == RELEASE_EPOCH_SECONDS


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"nonsense",
        b"-5",
        b"1.8e9",
        b"18 00",
        b"\xff\xfe",
        b"\xd9\xa1",
        b"9" * 5000,
        str(RELEASE_EPOCH_SECONDS + MAX_AHEAD_SECONDS + 1).encode(),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_time_is_said_and_the_release_stays_the_floor(
    floor: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    floor.write_bytes(text)
    assert read_floor(floor) == RELEASE_EPOCH_SECONDS
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(floor) in caplog.text


def test_a_clock_once_set_years_ahead_does_not_block_signing_for_good(floor: Path) -> None:
    assert save_floor(floor, RELEASE_EPOCH_SECONDS + 20 * 366 * 86_400)
    assert read_floor(floor) == RELEASE_EPOCH_SECONDS


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_floor(tmp_path) == RELEASE_EPOCH_SECONDS
    assert "cannot be read" in caplog.text


def test_what_cannot_be_kept_is_said_and_answered_false(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not save_floor(tmp_path / "absent" / "clock-floor", LATER)
    assert "cannot be kept" in caplog.text


def test_keeping_leaves_nothing_beside_and_replaces_what_was(floor: Path) -> None:
    assert save_floor(floor, LATER)
    assert save_floor(floor, LATER + 60)
    assert read_floor(floor) == LATER + 60
    assert list(floor.parent.iterdir()) == [floor]


def test_a_power_cut_while_writing_leaves_the_old_one(floor: Path) -> None:
    save_floor(floor, LATER)
    floor.with_name("clock-floor.new").write_text("17")  # half of what was to be written
    assert read_floor(floor) == LATER
    assert save_floor(floor, LATER + 60)
    assert read_floor(floor) == LATER + 60
