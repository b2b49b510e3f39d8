"""The token that readers of the status server show, kept as a digest.

The file's text is read into a buffer that is wiped; what stays in memory cannot be shown to the server. A comparison
takes the same time wherever two texts differ, and whatever their lengths are.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Final

from gatewayd.credentials.secret_file import wipe
from gatewayd.errors import ConfigError, ConfigProblem

KEY: Final = "metrics.token_file"
# 16 random letters and digits are 95 bits: more than anyone guesses at the pace that wrong tokens are answered.
LEAST, MOST = 16, 1024
ALLOWED: Final = f"one line of {LEAST} to {MOST} visible ASCII characters; openssl rand -hex 24 makes one"
_TOKEN: Final = re.compile(rb"[\x21-\x7e]{%d,%d}" % (LEAST, MOST))


class StatusToken:
    """One token."""

    __slots__ = ("_digest",)

    def __init__(self, token: bytes | memoryview) -> None:
        self._digest = hashlib.sha256(token).digest()

    def __repr__(self) -> str:
        return "StatusToken()"

    def is_shown_by(self, text: bytes) -> bool:
        """Whether `text` is the token."""
        return hmac.compare_digest(self._digest, hashlib.sha256(text).digest())

    def seal(self, secret: bytes, text: bytes) -> str:
        """A mark on `text` that only this token and `secret` make."""
        return hmac.new(secret + self._digest, text, hashlib.sha256).hexdigest()


def parse_token(text: bytearray) -> StatusToken | None:
    """The token a file's text holds; None when it holds none. The caller wipes the text."""
    end = len(text)
    while end and text[end - 1] in b"\r\n":
        end -= 1
    with memoryview(text) as view, view[:end] as line:
        return StatusToken(line) if _TOKEN.fullmatch(line) else None


def read_token(path: Path) -> StatusToken:
    """The token in a file that was judged before; ConfigError when it is not there any more."""
    text = bytearray(MOST + 3)
    try:
        with path.open("rb", buffering=0) as file:
            del text[file.readinto(text) or 0 :]
        token = parse_token(text)
    except OSError as error:
        raise ConfigError((ConfigProblem(KEY, f"{path} cannot be read: {error.strerror}"),)) from error
    finally:
        wipe(text)
    if token is None:
        raise ConfigError((ConfigProblem(KEY, f"{path} holds no token", ALLOWED),))
    return token
