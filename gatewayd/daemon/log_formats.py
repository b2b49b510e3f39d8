"""How one log record is written: as a line of JSON, as text for people, or as fields for journald.

The fields of a record are what its caller passed in `extra`: device_id, hub_code, planned and others, each a plain
value. Every form carries the same fields under the same names (journald wants them in capitals). A value cannot begin
a new line or a new field, because a device id is a stranger's text.
"""

from __future__ import annotations

import json
import logging
import math
import re
from datetime import UTC, datetime

# Longer texts are cut: one record fits a datagram, and a page of text is no log line.
MAX_TEXT = 8192

# syslog(3) severities, which journald calls PRIORITY.
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[\w.:/@+-]+")
_NOT_IN_A_FIELD_NAME = re.compile(r"[^A-Z0-9_]")


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What the caller passed in `extra`, without what is None."""
    return {name: value for name, value in record.__dict__.items() if name not in _OWN and value is not None}


def priority_of(level: int) -> int:
    """The syslog severity of a level."""
    return next(priority for least, priority in PRIORITIES if level >= least)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        for name, value in fields_of(record).items():
            # JSON has no infinity and no nan; as text they still can be read.
            is_number = isinstance(value, int | float) and math.isfinite(value)
            line.setdefault(name, value if is_number else _cut(str(value)))
        if trouble := _trouble(self, record):
            line["exception"] = trouble
        return json.dumps(line, ensure_ascii=False, allow_nan=False)


class Text(logging.Formatter):
    """A line for people: time, level, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_quoted(value)}" for name, value in fields_of(record).items())
        message = _printable(_cut(record.getMessage()))
        line = f"{_instant(record)} {record.levelname:<8} {message}{fields}"
        trouble = _trouble(self, record)
        return f"{line}\n{trouble}" if trouble else line


class JournalFields(logging.Formatter):
    """The fields of journald's native protocol; `datagram` is what is sent."""

    def datagram(self, record: logging.LogRecord) -> bytes:
        """One entry: each field as its name, its length and its bytes, so that no value can begin another field."""
        trouble = _trouble(self, record)
        message = _cut(record.getMessage())
        entry = {
            "MESSAGE": f"{message}\n{trouble}" if trouble else message,
            "PRIORITY": str(priority_of(record.levelno)),
            "SYSLOG_IDENTIFIER": "gatewayd",
            "LOGGER": record.name,
        }
        for name, value in fields_of(record).items():
            # A leading underscore marks fields that journald alone may set; it would drop ours.
            field = _NOT_IN_A_FIELD_NAME.sub("_", name.upper()).lstrip("_0123456789")[:64]
            entry.setdefault(field or "FIELD", _cut(str(value)))
        return b"".join(_field(name, value) for name, value in entry.items())


def _field(name: str, value: str) -> bytes:
    encoded = value.encode("utf-8", "replace")
    return name.encode() + b"\n" + len(encoded).to_bytes(8, "little") + encoded + b"\n"


def _instant(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _trouble(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.exc_text or (formatter.formatException(record.exc_info) if record.exc_info else "")
    return _cut("\n".join(part for part in (text, record.stack_info) if part))


def _quoted(value: object) -> str:
    text = _printable(_cut(str(value)))
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
