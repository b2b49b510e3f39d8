"""Room that is held, given up and held again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gatewayd.store.reserve import Reserve


def test_the_room_is_taken_once_and_really(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "outbox.db", 100_000)
    assert not reserve.held
    assert reserve.hold()
    assert reserve.hold()
    file = tmp_path / "outbox.db.reserve"
    assert file.stat().st_blocks * 512 >= 100_000
    assert file.stat().st_mode & 0o777 == 0o600
    reserve.give_up()
    assert not file.exists()
    reserve.give_up()


def test_a_disk_without_so_much_room_is_said_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    reserve = Reserve(tmp_path / "outbox.db", 100_000)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        assert not reserve.hold()
        assert not reserve.held
        assert list(tmp_path.iterdir()) == []
    assert reserve.hold()
