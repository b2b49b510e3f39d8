"""Disks that end: a small file system of its own, or a process that may not write beyond a file's size.

with small_file_system(folder, mebibytes=8):       # root only
with file_size_limit(daemon.pid, 2 << 20):         # anyone
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

UNMOUNT_SECONDS = 10


def can_mount() -> bool:
    """Whether this user may mount here at all (a container's root may not)."""
    if os.geteuid() != 0:
        return False
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True
    )
    return tried.returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="a small file system needs the right to mount")


@contextmanager
def small_file_system(folder: Path, *, mebibytes: int) -> Iterator[Path]:
    """A file system in memory at `folder`, for as long as the block runs."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        # Lazy: a process that still holds a file must not keep the test from ending.
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=UNMOUNT_SECONDS)


@contextmanager
def file_size_limit(pid: int, size: int) -> Iterator[None]:
    """No file of the process may grow beyond `size` while the block runs: its writes fail with EFBIG (setrlimit(2))."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
