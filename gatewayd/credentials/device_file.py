"""The device file: CSV of `id,primary_key[,secondary_key]`, read as bytes that are wiped.

Promises: a key is never a `str` and never stands in an error; the file's text is wiped when the file is closed; every
problem is reported at once with its line and identity; nothing is yielded from a file that has one. The keys that are
yielded are copies, and whoever takes them wipes them.

An id is `device` or `device/module`. A byte order mark, CRLF, blank lines, a header line and lines that begin with `#`
are passed over. A field may stand in double quotes: an id with a comma, or one that begins with `#`, needs them. The
second key may be empty or left out. Key text is checked for shape only; what a key decodes to is the signer's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gatewayd.credentials.secret_file import read_secret_file, wipe
from gatewayd.errors import ConfigError, ConfigProblem, DeviceFileError
from gatewayd.message import Identity

MAX_DEVICES: Final = 100_000
# An id of 128 + 1 + 128 characters and two keys of 88 is 435 bytes a line: 100,000 of them fit.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
# The rest is counted. A file of another format altogether has a problem on every line.
MAX_PROBLEMS_SHOWN: Final = 100

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t\r"
_FORMAT: Final = "id,primary_key[,secondary_key]"
# Microsoft's article "Understand the identity registry in your IoT hub": the characters of a device id.
_ID: Final = re.compile(rb"[A-Za-z0-9\-.+%_#*?!(),:=@$']{1,128}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
# The registry takes keys of 16 to 64 bytes.
_MIN_KEY_BYTES: Final = 16
_MAX_KEY_BYTES: Final = 64
# Keys as the registry generates them, 32 or 64 bytes: 44 or 88 characters, padded. Found in the id's place, the text
# is a key in the wrong column and must not be shown.
_KEY_IN_THE_WRONG_COLUMN: Final = re.compile(rb"[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==")

_Span = tuple[int, int]
Keys = tuple[Identity, bytearray, bytearray | None]


def open_device_file(path: Path, *, check_permissions: bool = True) -> DeviceFile:
    """Read and check a device file whole; raises DeviceFileError with every problem.

    `check_permissions=False` is for the demo and the tests, whose keys are no secret.
    """
    buffer = _read(path, check_permissions)
    try:
        problems = _Checker(buffer).problems(str(path))
    except BaseException:
        wipe(buffer)
        raise
    if problems:
        wipe(buffer)
        raise DeviceFileError(problems)
    return DeviceFile(buffer)


class DeviceFile:
    """A file without problems. Use it in a `with` statement: its end wipes the text."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wipe the text. May be called more than once."""
        wipe(self._buffer)
        self._open = False

    def __iter__(self) -> Iterator[Keys]:
        """Each device with copies of its keys, which the caller wipes. Raises ValueError once the file is closed."""
        self._check_open()
        for line in _lines(self._buffer):
            self._check_open()
            identity = Identity.parse(self._buffer[slice(*line.fields[0])].decode("ascii"))
            primary, secondary = line.fields[1], line.fields[2] if len(line.fields) > 2 else (0, 0)
            yield (
                identity,
                self._buffer[slice(*primary)],
                self._buffer[slice(*secondary)] if secondary[0] < secondary[1] else None,
            )

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("device file is closed")


def _read(path: Path, check_permissions: bool) -> bytearray:
    try:
        return read_secret_file(
            path, holds="keys", max_bytes=MAX_FILE_BYTES, check_permissions=check_permissions
        )
    except ConfigError as error:
        raise DeviceFileError(error.problems) from error


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that is neither blank nor comment nor header: its number and where its fields lie."""

    number: int
    fields: tuple[_Span, ...]
    quotes_closed: bool


def _lines(buffer: bytearray) -> Iterator[_Line]:
    """The lines that count. Spans are within the buffer: no text is copied here."""
    start = len(_BYTE_ORDER_MARK) if buffer.startswith(_BYTE_ORDER_MARK) else 0
    number, may_be_header = 0, True
    while start < len(buffer):
        number += 1
        end = buffer.find(b"\n", start)
        end = len(buffer) if end < 0 else end
        span = _stripped(buffer, start, end)
        start = end + 1
        if span[0] == span[1] or buffer[span[0]] == ord("#"):
            continue
        fields, closed = _fields(buffer, span)
        if may_be_header and _is_header(buffer, fields):
            may_be_header = False
            continue
        may_be_header = False
        yield _Line(number, fields, closed)


def _fields(buffer: bytearray, span: _Span) -> tuple[tuple[_Span, ...], bool]:
    """Where the fields of a line lie, without their quotes, and whether every quote was closed."""
    fields: list[_Span] = []
    at, end = span
    while True:
        comma = buffer.find(b",", at, end)
        field = _stripped(buffer, at, end if comma < 0 else comma)
        if field[0] < field[1] and buffer[field[0]] == ord('"'):
            quote = buffer.find(b'"', field[0] + 1, end)
            if quote < 0:
                return tuple(fields), False
            comma = buffer.find(b",", quote, end)
            after = _stripped(buffer, quote + 1, end if comma < 0 else comma)
            if after[0] < after[1]:
                return tuple(fields), False
            field = (field[0] + 1, quote)
        fields.append(field)
        if comma < 0:
            return tuple(fields), True
        at = comma + 1


def _stripped(buffer: bytearray, start: int, end: int) -> _Span:
    while start < end and buffer[start] in _BLANK:
        start += 1
    while end > start and buffer[end - 1] in _BLANK:
        end -= 1
    return start, end


def _is_header(buffer: bytearray, fields: tuple[_Span, ...]) -> bool:
    # An underscore is no base64: no device line reads so.
    if any(end - start > len("secondary_key") for start, end in fields):
        return False
    names = [bytes(buffer[start:end]).lower() for start, end in fields]
    return names in ([b"id", b"primary_key"], [b"id", b"primary_key", b"secondary_key"])


class _Checker:
    """Finds every problem of a file before anything of it is used."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._first_line: dict[str, int] = {}

    def problems(self, path: str) -> tuple[ConfigProblem, ...]:
        """All problems, the first hundred in words and the rest as a count."""
        shown: list[ConfigProblem] = []
        found = 0
        for line in _lines(self._buffer):
            for who, problem, allowed in self._of_line(line):
                found += 1
                if len(shown) < MAX_PROBLEMS_SHOWN:
                    place = f"{path}:{line.number}" + (f" ({who})" if who else "")
                    shown.append(ConfigProblem(place, problem, allowed))
        if len(self._first_line) > MAX_DEVICES:
            found += 1
            shown.append(
                ConfigProblem(path, f"holds {len(self._first_line)} devices", f"at most {MAX_DEVICES}")
            )
        if found > len(shown):
            shown.append(ConfigProblem(path, f"{found - len(shown)} more problems", _FORMAT))
        return tuple(shown)

    def _of_line(self, line: _Line) -> Iterator[tuple[str, str, str]]:
        if not line.quotes_closed:
            yield "", "a quoted field is not closed, or text follows it", 'fields like "id"'
            return
        if _KEY_IN_THE_WRONG_COLUMN.fullmatch(self._buffer, *line.fields[0]):
            yield "", "a key stands in the place of the id", _FORMAT
            return
        who = ""
        if self._is_id(line.fields[0]):
            who = self._buffer[slice(*line.fields[0])].decode("ascii")
            first = self._first_line.setdefault(who, line.number)
            if first != line.number:
                yield who, f"is listed twice, first on line {first}", "each identity once"
        else:
            yield (
                "",
                "the id is empty, too long or has a character that ids cannot have",
                "device or device/module",
            )
        if len(line.fields) not in {2, 3}:
            yield who, f"has {len(line.fields)} fields", _FORMAT
            return
        for name, field in zip(("primary key", "secondary key"), line.fields[1:], strict=False):
            if field[0] == field[1]:
                if name == "primary key":
                    yield who, "the primary key is empty", "base64 of 16 to 64 bytes"
            elif not self._is_key(field):
                yield who, f"the {name} is not a key", "base64 of 16 to 64 bytes"

    def _is_id(self, field: _Span) -> bool:
        slash = self._buffer.find(b"/", *field)
        if slash < 0:
            return _ID.fullmatch(self._buffer, *field) is not None
        return (
            _ID.fullmatch(self._buffer, field[0], slash) is not None
            and _ID.fullmatch(self._buffer, slash + 1, field[1]) is not None
        )

    def _is_key(self, field: _Span) -> bool:
        start, end = field
        if (end - start) % 4 or _BASE64.fullmatch(self._buffer, start, end) is None:
            return False
        size = (end - start) // 4 * 3 - self._buffer.count(b"=", end - 2, end)
        return _MIN_KEY_BYTES <= size <= _MAX_KEY_BYTES
