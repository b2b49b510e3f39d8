"""Where log lines go, and from which level on. The level may change while the daemon runs.

`auto` asks the environment: systemd says in $JOURNAL_STREAM when standard error is the journal, then journald's own
protocol carries the fields; a terminal gets text; anything else gets JSON lines. A journal that cannot take a line at
once loses it: a line lost is counted and reported with the next one, the event loop is never held up for it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TextIO

from gatewayd.daemon.log_formats import JournalFields, JsonLines, Text
from gatewayd.daemon.redaction import Redaction

JOURNAL_SOCKET = "/run/systemd/journal/socket"

OURS = "gatewayd"

LogFormat = Literal["auto", "json", "journald", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]


class JournalHandler(logging.Handler):
    """Sends records to journald as datagrams, without waiting."""

    def __init__(self, address: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self.lost = 0
        self._address = address
        self._entry = JournalFields()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        if self.lost:
            record.lines_lost_before = self.lost
        try:
            self._socket.sendto(self._entry.datagram(record), self._address)
        except OSError:
            self.lost += 1
        else:
            self.lost = 0

    def close(self) -> None:
        self._socket.close()
        super().close()


class Logs:
    """The one handler of this process, on the root logger."""

    __slots__ = ("_handler",)

    def __init__(self, handler: logging.Handler, level: LogLevel) -> None:
        handler.addFilter(Redaction())
        self._handler = handler
        root = logging.getLogger()
        root.addHandler(handler)
        # Libraries speak only when something is wrong; our own level is the operator's.
        root.setLevel(logging.WARNING)
        self.set_level(level)

    def set_level(self, level: LogLevel) -> None:
        """The least severe message of ours that is written from now on."""
        logging.getLogger(OURS).setLevel(level.upper())

    def close(self) -> None:
        """Take the handler away again."""
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()


def open_logs(
    log_format: LogFormat, level: LogLevel, stream: TextIO, environ: Mapping[str, str] | None = None
) -> Logs:
    """Begin to log. `stream` is standard error; `environ` defaults to the process's own."""
    chosen = log_format
    if chosen == "auto":
        chosen = _fitting(stream, os.environ if environ is None else environ)
    if chosen == "journald":
        return Logs(JournalHandler(), level)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Text() if chosen == "text" else JsonLines())
    return Logs(handler, level)


def _fitting(stream: TextIO, environ: Mapping[str, str]) -> Literal["json", "journald", "text"]:
    if _is_the_journal(stream, environ) and Path(JOURNAL_SOCKET).exists():
        return "journald"
    return "text" if stream.isatty() else "json"


def _is_the_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """systemd.exec(5): $JOURNAL_STREAM holds device and inode of the stream; it may be inherited, hence compared."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
