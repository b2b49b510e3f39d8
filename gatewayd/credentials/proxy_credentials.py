"""The user and password for an HTTP proxy: one line `user:password` in a file that only this user may read.

What is handed on is the value of Proxy-Authorization for the Basic scheme (RFC 7617), the only one proxies for machines
have in common. It is needed at every dial, so it stays in memory as long as the daemon runs; it stands in no error.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

from gatewayd.credentials.secret_file import read_secret_file, wipe
from gatewayd.errors import ConfigError, ConfigProblem

MAX_FILE_BYTES: Final = 1024

_FORMAT: Final = "one line user:password, without control characters"


def read_proxy_credentials(path: Path, *, check_permissions: bool = True) -> bytes:
    """The value of Proxy-Authorization. Raises ConfigError for a file that cannot be used."""
    text = read_secret_file(
        path, holds="a password", max_bytes=MAX_FILE_BYTES, check_permissions=check_permissions
    )
    line = text.removesuffix(b"\n").removesuffix(b"\r")
    try:
        user, colon, _ = line.partition(b":")
        # RFC 7617, 2: neither part holds control characters, and the user no colon.
        if not user or not colon or any(byte < 0x20 or byte == 0x7F for byte in line):
            raise ConfigError((ConfigProblem(str(path), "does not hold a user and a password", _FORMAT),))
        return b"Basic " + base64.b64encode(line)
    finally:
        wipe(line)
        wipe(text)
