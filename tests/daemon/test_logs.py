"""Where log lines go, and the level that changes while running."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.daemon import logs
from gatewayd.daemon.log_formats import JsonLines, Text
from gatewayd.daemon.logs import JournalHandler, Logs, open_logs
from gatewayd.daemon.redaction import HIDDEN

LOG = logging.getLogger("gatewayd.test")


@pytest.fixture(autouse=True)
def level_of_the_root() -> Iterator[None]:
    """Logging is one per process: what a test changes is put back."""
    root, ours = logging.getLogger(), logging.getLogger(logs.OURS)
    before = root.level, ours.level
    yield
    root.setLevel(before[0])
    ours.setLevel(before[1])


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_json_lines_are_written_from_the_level_on(stream: io.StringIO) -> None:
    opened = open_logs("json", "info", stream, {})
    LOG.debug("quiet")
    LOG.info("loud", extra={"device_id": "dev-1"})
    opened.close()
    LOG.info("closed")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["device_id"] == "dev-1"


def test_the_level_changes_while_running(stream: io.StringIO) -> None:
    opened = open_logs("json", "warning", stream, {})
    LOG.info("before")
    opened.set_level("debug")
    LOG.debug("after")
    opened.set_level("error")
    LOG.warning("later")
    opened.close()
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["after"]


def test_libraries_speak_only_when_something_is_wrong(stream: io.StringIO) -> None:
    opened = open_logs("json", "debug", stream, {})
    logging.getLogger("aiohttp.access").info("chatter")
    logging.getLogger("asyncio").warning("trouble")
    opened.close()
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["trouble"]


def test_every_handler_hides_secrets(stream: io.StringIO) -> None:
    opened = open_logs("text", "info", stream, {})
    LOG.info("SharedAccessKey=abcdef")
    opened.close()
    assert f"SharedAccessKey={HIDDEN}" in stream.getvalue()


def formatter_chosen(stream: object, environ: dict[str, str]) -> object:
    opened = open_logs("auto", "info", stream, environ)  # type: ignore[arg-type]  # any text stream will do
    handler = logging.getLogger().handlers[-1]
    opened.close()
    return handler if isinstance(handler, JournalHandler) else handler.formatter


def test_auto_means_json_for_a_pipe_and_text_for_a_terminal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        assert isinstance(formatter_chosen(file, {}), JsonLines)
    assert isinstance(formatter_chosen(io.StringIO(), {"JOURNAL_STREAM": "1:2"}), JsonLines)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        assert isinstance(formatter_chosen(terminal, {}), Text)
    os.close(ours)


def test_auto_means_the_journal_when_standard_error_is_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(str(tmp_path / "journal"))
    monkeypatch.setattr(logs, "JOURNAL_SOCKET", str(tmp_path / "journal"))
    with (tmp_path / "stderr").open("w") as file:
        status = os.fstat(file.fileno())
        itself = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert isinstance(formatter_chosen(file, itself), JournalHandler)
        inherited = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"}
        assert isinstance(formatter_chosen(file, inherited), JsonLines)
    journal.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(str(tmp_path / "journal"))
    journal.settimeout(5)
    yield journal
    journal.close()


def test_a_record_reaches_the_journal_with_its_fields(tmp_path: Path, journal: socket.socket) -> None:
    opened = Logs(JournalHandler(str(tmp_path / "journal")), "info")
    LOG.warning("hub refused", extra={"device_id": "dev-1", "hub_code": 401003})
    opened.close()
    datagram = journal.recv(65536)
    for field in (b"MESSAGE\n", b"hub refused\n", b"DEVICE_ID\n", b"dev-1\n", b"HUB_CODE\n", b"401003\n"):
        assert field in datagram


def test_a_journal_that_does_not_read_loses_lines_which_are_counted_and_holds_nothing_up(
    tmp_path: Path, journal: socket.socket
) -> None:
    handler = JournalHandler(str(tmp_path / "journal"))
    opened = Logs(handler, "info")
    for _ in range(10_000):
        LOG.info("flood")
        if handler.lost >= 3:
            break
    assert handler.lost == 3
    journal.recv(65536)
    LOG.info("after")
    assert handler.lost == 0
    opened.close()
    journal.setblocking(False)
    received = []
    try:
        while True:
            received.append(journal.recv(65536))
    except BlockingIOError:
        assert b"LINES_LOST_BEFORE\n" in received[-1]
