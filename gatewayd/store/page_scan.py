"""Messages found page by page, without the tree that leads to them: for when its upper pages are damaged.

Reads the bytes as "Database File Format" of sqlite.org lays them down: each leaf page of a table lists its rows, and
each row of ours carries its own checksum. A page counts as the write-ahead log has it, up to the log's last commit.
Free pages are left out, because they still hold what was deleted; when nobody can say any more which pages are free,
deleted messages may come back: they double, none is lost.

Gives rows as they are found, in no order, some perhaps twice, none of them judged: `damage` does that.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gatewayd.store.schema import PAGE_SIZE, wal_path

Value = int | float | str | bytes | None

LEAF: Final = 0x0D
COLUMNS: Final = 10
REALS: Final = (4, 5)  # received_at and expires_at: a whole number is stored as an integer
MOST_LOCAL: Final = PAGE_SIZE - 35
LEAST_LOCAL: Final = (PAGE_SIZE - 12) * 32 // 255 - 23
OVERFLOW_BYTES: Final = PAGE_SIZE - 4
INTEGER_BYTES: Final = (0, 1, 2, 3, 4, 6, 8)

WAL_HEADER: Final = 32
FRAME_HEADER: Final = 24
FREE_AT: Final = 32  # in the first page: where the list of free pages begins

# What a page that is not as it was written makes of its numbers.
_NONSENSE: Final = (IndexError, ValueError, struct.error)


def rows(path: Path) -> Iterator[tuple[Value, ...]]:
    """Everything that looks like a row of `message`."""
    with _Pages(path) as pages:
        free = _free(pages)
        for number in range(2, pages.count + 1):
            if number not in free and (page := pages.read(number))[:1] == bytes([LEAF]):
                yield from _rows_of(page.ljust(PAGE_SIZE, b"\0"), pages)


class _Pages:
    """The pages of a file, each as the log has it last."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._log = wal_path(path).open("rb") if wal_path(path).exists() else None
        self._in_log = self._frames()
        pages = path.stat().st_size // PAGE_SIZE
        self.count = max(pages, max(self._in_log, default=0))

    def __enter__(self) -> _Pages:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._log is not None:
            self._log.close()

    def read(self, number: int) -> bytes:
        """A page by its number, from 1 on; what is not there, or what the disk cannot read, is empty."""
        at, file = self._in_log.get(number), self._log
        if at is None or file is None:
            at, file = (number - 1) * PAGE_SIZE, self._file
        try:
            return os.pread(file.fileno(), PAGE_SIZE, at)
        except OSError:
            return b""

    def _frames(self) -> dict[int, int]:
        """Where each page lies in the log. Frames of an earlier round carry other salts."""
        committed: dict[int, int] = {}
        if self._log is None:
            return committed
        salts = self._log.read(WAL_HEADER)[16:24]
        written: dict[int, int] = {}
        at = WAL_HEADER
        while len(header := self._log.read(FRAME_HEADER)) == FRAME_HEADER and header[8:16] == salts:
            number, size_after_commit = struct.unpack_from(">II", header)
            written[number] = at + FRAME_HEADER
            if size_after_commit:
                committed.update(written)
                written.clear()
            at += FRAME_HEADER + PAGE_SIZE
            self._log.seek(at)
        return committed


def _free(pages: _Pages) -> frozenset[int]:
    """Pages that hold nothing, as far as their list can be followed."""
    free: set[int] = set()
    try:
        (trunk,) = struct.unpack_from(">I", pages.read(1), FREE_AT)
        while trunk and trunk <= pages.count and trunk not in free:
            free.add(trunk)
            page = pages.read(trunk)
            following, leaves = struct.unpack_from(">II", page)
            free.update(struct.unpack_from(f">{min(leaves, PAGE_SIZE // 4 - 2)}I", page, 8))
            trunk = following
    except struct.error:
        pass  # the list ends where the file does
    return frozenset(free)


def _rows_of(page: bytes, pages: _Pages) -> Iterator[tuple[Value, ...]]:
    (cells,) = struct.unpack_from(">H", page, 3)
    for cell in range(min(cells, PAGE_SIZE // 2)):
        try:
            (at,) = struct.unpack_from(">H", page, 8 + 2 * cell)
            size, at = _varint(page, at)
            seq, at = _varint(page, at)
            found = _record(_payload(page, at, size, pages))
        except _NONSENSE:
            continue
        if len(found) == COLUMNS:
            reals = {place: float(found[place]) for place in REALS if isinstance(found[place], int)}  # type: ignore[arg-type]  # checked in the same line
            yield (seq, *(reals.get(place, value) for place, value in enumerate(found) if place))


def _payload(page: bytes, at: int, size: int, pages: _Pages) -> bytes:
    """The bytes of a row: in its page, and what found no room there in a chain of others."""
    if size <= MOST_LOCAL:
        return page[at : at + size]
    local = LEAST_LOCAL + (size - LEAST_LOCAL) % OVERFLOW_BYTES
    if local > MOST_LOCAL:
        local = LEAST_LOCAL
    parts = [page[at : at + local]]
    (following,) = struct.unpack_from(">I", page, at + local)
    left = size - local
    while left > 0:
        overflow = pages.read(following) if 0 < following <= pages.count else b""
        (following,) = struct.unpack_from(">I", overflow)
        parts.append(overflow[4 : 4 + left])
        left -= OVERFLOW_BYTES
    return b"".join(parts)


def _record(data: bytes) -> tuple[Value, ...]:
    header, at = _varint(data, 0)
    kinds = []
    while at < header:
        kind, at = _varint(data, at)
        kinds.append(kind)
    found: list[Value] = []
    for kind in kinds:
        size = INTEGER_BYTES[kind] if kind < 7 else 8 if kind == 7 else 0 if kind < 12 else (kind - 12) // 2
        part = data[at : at + size]
        if len(part) != size:
            raise ValueError("the row is cut off")
        at += size
        found.append(_value(kind, part))
    return tuple(found)


def _value(kind: int, part: bytes) -> Value:
    match kind:
        case 0:
            return None
        case 7:
            (number,) = struct.unpack(">d", part)
            return float(number)
        case 8 | 9:
            return kind - 8
        case _ if kind < 7:
            return int.from_bytes(part, "big", signed=True)
        case _ if kind < 12:
            raise ValueError("a kind that SQLite keeps for itself")
    return part.decode() if kind % 2 else part


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + place + 1
    return value << 8 | data[at + 8], at + 9
