"""The last defence of the promise *secrets*: what looks like a key or a signature does not leave in a log line.

No code of ours passes a secret to a log; this is for the day when a library or an exception text does. It errs on the
side of hiding: base64 text of the exact length of an IoT Hub key is hidden wherever it stands.
"""

from __future__ import annotations

import logging
import re

HIDDEN = "***"

_SECRETS = (
    # The signature of a SAS token, wherever `sig=` stands in it; the resource and the expiry stay readable.
    re.compile(r"(?P<keep>\bsig(?:=|%3D))[^&\s\"'<>]+", re.IGNORECASE),
    # Connection strings: SharedAccessKey=, and SharedAccessKeyName= is left alone.
    re.compile(
        r"(?P<keep>\b(?:SharedAccessKey|primary_key|secondary_key)[\"']?\s*[=:]\s*[\"']?)[^;,\s\"'<>]+",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?P<keep>-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    # What a proxy is shown, and a password in the URL of one.
    re.compile(
        r"(?P<keep>\bProxy-Authorization\W{1,3}(?:b\W)?(?:Basic\s+)?)[A-Za-z0-9+/=_-]+", re.IGNORECASE
    ),
    re.compile(r"(?P<keep>\bhttps?://[^\s:/@]*:)[^\s/@]+(?=@)", re.IGNORECASE),
    # Keys as the hub makes them: 32 or 64 bytes in base64, with their padding.
    re.compile(r"(?P<keep>)(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==)(?![A-Za-z0-9+/=])"),
)


def redact(text: str) -> str:
    """The text with everything that looks like a secret replaced."""
    for secret in _SECRETS:
        text = secret.sub(rf"\g<keep>{HIDDEN}", text)
    return text


class Redaction(logging.Filter):
    """Hides secrets in a record before any handler formats it: message, fields, exception and stack."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = redact(_message(record))
        record.args = None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
            record.exc_info = None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name, value in record.__dict__.items():
            if isinstance(value, str) and name not in {"msg", "exc_text", "stack_info"}:
                record.__dict__[name] = redact(value)
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError, IndexError):
        # A filter runs outside logging's own guard: a wrong argument must not break the caller.
        return f"{record.msg} (its arguments do not fit)"
