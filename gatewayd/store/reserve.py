"""Room on the disk that is ours before we need it.

What is committed lies in the WAL first and needs room in the file as well. On a full disk neither can grow: the WAL
cannot be emptied, so nothing can be deleted either, and an outbox that has filled its disk would stay as it is. So some
room is held by a file beside. When the disk is full it is given up: the WAL goes into the file, deletions go into the
WAL, and appends wait until there is a reserve again.
"""

from __future__ import annotations

import os
from pathlib import Path


class Reserve:
    """A file that takes room and holds nothing."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path.with_name(path.name + ".reserve")
        self._size = size
        self.held = False

    def hold(self) -> bool:
        """Take the room if it is not taken; False when the disk has not so much."""
        if self.held:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            finally:
                os.close(descriptor)
        except OSError:
            self.give_up()
            return False
        self.held = True
        return True

    def give_up(self) -> None:
        """Let others have it, ourselves first."""
        self.held = False
        self._path.unlink(missing_ok=True)
