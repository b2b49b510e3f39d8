"""One record in each of its written forms."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from gatewayd.daemon.log_formats import MAX_TEXT, JournalFields, JsonLines, Text, priority_of


def record(
    message: str = "hub refused", /, level: int = logging.WARNING, **fields: object
) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "gatewayd.upstream",
            "msg": message,
            "levelno": level,
            "levelname": logging.getLevelName(level),
        }
        | {"created": 1767225600.25}
        | fields
    )


def journal_fields(datagram: bytes) -> dict[str, str]:
    """Read journald's native protocol as systemd.io/JOURNAL_NATIVE_PROTOCOL describes it."""
    fields = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        size = int.from_bytes(rest[:8], "little")
        fields[name.decode()] = rest[8 : 8 + size].decode()
        assert rest[8 + size : 9 + size] == b"\n"
        datagram = rest[9 + size :]
    return fields


def test_a_json_line_holds_the_fields_with_their_types() -> None:
    line = JsonLines().format(record(device_id="dev-1", hub_code=401003, planned=False, reason=None))
    assert json.loads(line) == {
        "time": "2026-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": "gatewayd.upstream",
        "message": "hub refused",
        "device_id": "dev-1",
        "hub_code": 401003,
        "planned": False,
    }


def test_a_json_line_is_one_line_whatever_a_device_is_called() -> None:
    line = JsonLines().format(record("a\nb", device_id='x"\n{"level":"info"}'))
    assert "\n" not in line
    assert json.loads(line)["device_id"] == 'x"\n{"level":"info"}'


def test_a_number_that_json_does_not_have_is_written_as_text() -> None:
    assert json.loads(JsonLines().format(record(outage_seconds=float("inf"))))["outage_seconds"] == "inf"


def test_text_is_for_people() -> None:
    assert Text().format(record(device_id="dev-1", hub_code=401003)) == (
        "2026-01-01T00:00:00.250Z WARNING  hub refused device_id=dev-1 hub_code=401003"
    )


def test_text_cannot_be_broken_by_a_value() -> None:
    line = Text().format(record("one\x1b[2Jtwo\u2028", device_id="a b\nWARNING forged"))
    assert line.splitlines() == [line]
    assert "\x1b" not in line
    assert 'device_id="a b\\\\nWARNING forged"' in line


@pytest.mark.parametrize("formatter", [JsonLines(), Text()])
def test_an_exception_is_written(formatter: logging.Formatter) -> None:
    try:
        raise OSError("disk")
    except OSError:
        written = formatter.format(record(exc_info=sys.exc_info()))
    assert "OSError: disk" in written


def test_the_journal_gets_each_field_in_capitals() -> None:
    fields = journal_fields(
        JournalFields().datagram(record(device_id="dev-1", hub_code=401003, planned=True))
    )
    assert fields == {
        "MESSAGE": "hub refused",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "gatewayd",
        "LOGGER": "gatewayd.upstream",
        "DEVICE_ID": "dev-1",
        "HUB_CODE": "401003",
        "PLANNED": "True",
    }


def test_a_value_cannot_begin_another_journal_field() -> None:
    fields = journal_fields(JournalFields().datagram(record(device_id="x\nPRIORITY=0\nMESSAGE=forged")))
    assert fields["PRIORITY"] == "4"
    assert fields["DEVICE_ID"] == "x\nPRIORITY=0\nMESSAGE=forged"


def test_a_field_name_that_journald_would_drop_is_mended() -> None:
    odd: dict[str, Any] = {"_pid": 1, "9": 2, "a-b": 3}
    fields = journal_fields(JournalFields().datagram(record(**odd)))
    assert (fields["PID"], fields["FIELD"], fields["A_B"]) == ("1", "2", "3")


def test_the_exception_follows_the_message_in_the_journal() -> None:
    try:
        raise OSError("disk")
    except OSError:
        datagram = JournalFields().datagram(record(exc_info=sys.exc_info()))
    assert journal_fields(datagram)["MESSAGE"].endswith("OSError: disk")


@pytest.mark.parametrize("formatter", [JsonLines(), Text()])
def test_a_long_text_is_cut(formatter: logging.Formatter) -> None:
    assert len(formatter.format(record("x" * 100_000, device_id="y" * 100_000))) < 3 * MAX_TEXT
    assert len(JournalFields().datagram(record("x" * 100_000))) < 2 * MAX_TEXT


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
        (35, 4),
    ],
)
def test_levels_are_syslog_severities(level: int, priority: int) -> None:
    assert priority_of(level) == priority
