"""A small file with a secret: read whole, as bytes that can be wiped, and only when nobody else may read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gatewayd.errors import ConfigError, ConfigProblem


def wipe(buffer: bytearray) -> None:
    """Overwrite a buffer in place; its length stays."""
    buffer[:] = bytes(len(buffer))


def read_secret_file(path: Path, *, holds: str, max_bytes: int, check_permissions: bool) -> bytearray:
    """The bytes of a file, which the caller wipes. Raises ConfigError; `holds` is what its problem calls the content.

    `check_permissions=False` is for files that the service manager guards, and for keys that are no secret.
    """
    try:
        # Not blocking: a named pipe is refused below instead of waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(path, error.strerror or "cannot be opened", "a file this user can read") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _refused(path, "is not a regular file", "a regular file")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if check_permissions and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = stat.S_IMODE(status.st_mode)
            raise _refused(
                path, f"holds {holds} and has mode {mode:04o}", f"mode 0600; run: chmod 600 {path}"
            )
        if status.st_size > max_bytes:
            raise _refused(path, f"is {status.st_size} bytes long", f"at most {max_bytes} bytes")
        # One byte more than expected, so that a file that grows meanwhile is seen.
        buffer = bytearray(status.st_size + 1)
        filled = 0
        with memoryview(buffer) as view:
            while filled < len(view) and (count := file.readinto(view[filled:])):
                filled += count
        if filled != status.st_size:
            wipe(buffer)
            raise _refused(path, "changed while it was read", "a file that is moved into place whole")
        del buffer[filled:]
        return buffer


def _refused(path: Path, problem: str, allowed: str) -> ConfigError:
    return ConfigError((ConfigProblem(str(path), problem, allowed),))
