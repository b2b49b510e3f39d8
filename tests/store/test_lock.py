"""One file, one owner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.errors import StoreInUse
from gatewayd.store.lock import StoreLock, lock_path


def test_a_second_owner_is_refused_and_the_next_one_let_in(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path / "outbox.db")
    with pytest.raises(StoreInUse, match="another process"):
        StoreLock(tmp_path / "outbox.db")
    lock.release()
    StoreLock(tmp_path / "outbox.db").release()


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from gatewayd.store.lock import StoreLock\n"
        "lock = StoreLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "outbox.db")], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(StoreInUse):
            StoreLock(tmp_path / "outbox.db")
        owner.kill()
    StoreLock(tmp_path / "outbox.db").release()


def test_the_lock_is_nobody_elses_to_read(tmp_path: Path) -> None:
    StoreLock(tmp_path / "outbox.db").release()
    assert lock_path(tmp_path / "outbox.db").stat().st_mode & 0o777 == 0o600
