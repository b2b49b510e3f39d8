"""One owner for one outbox: an advisory lock on a file beside it.

The lock is the kernel's (flock): it ends with the process, however that ends. It lies beside the database and not on
it, because SQLite has locks of its own there. Who only reads needs none.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gatewayd.errors import StoreInUse


class StoreLock:
    """Held from `__init__` to `release`. Raises StoreInUse, OSError."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise StoreInUse(str(path)) from error
            raise

    def release(self) -> None:
        """Let the next one in. The file stays: to remove it would let two owners in."""
        os.close(self._file)


def lock_path(path: Path) -> Path:
    """Where the lock of an outbox lies."""
    return path.with_name(path.name + ".lock")
