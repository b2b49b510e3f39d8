"""Everything about a file at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewayd.daemon.config_examination import examine
from gatewayd.errors import ConfigError
from tests.support.config_files import HUB, write_config


def test_a_good_file_is_usable_and_its_fleet_is_counted(tmp_path: Path) -> None:
    files = write_config(tmp_path, devices=7)
    examination = examine(files.toml, {}, None)
    assert examination.usable().hub.hostname == HUB
    assert examination.devices == 7
    assert examination.timetable is not None


def test_mistakes_in_keys_and_in_files_are_told_together_with_their_lines(tmp_path: Path) -> None:
    files = write_config(tmp_path)
    files.devices.unlink()
    files.append('[log]\nlevel = "loud"\n')
    examination = examine(files.toml, {}, None)
    assert [(problem.path, problem.line) for problem in examination.problems] == [
        ("log.level", 12),
        ("devices.file", 6),
    ]
    with pytest.raises(ConfigError) as error:
        examination.usable()
    assert error.value.problems == examination.problems


def test_a_file_named_by_a_wrong_key_is_not_looked_for(tmp_path: Path) -> None:
    files = write_config(tmp_path)
    files.toml.write_text(files.toml.read_text().replace('file = "devices.csv"', "file = 7"))
    assert [problem.path for problem in examine(files.toml, {}, None).problems] == ["devices.file"]


def test_doubts_are_warnings_with_lines(tmp_path: Path) -> None:
    files = write_config(tmp_path)
    files.append('[metrics]\naddress = "0.0.0.0:9464"\nanonymous = "metrics"\n')
    examination = examine(files.toml, {}, None)
    assert [(warning.path, warning.line) for warning in examination.warnings] == [("metrics.address", 12)]
    assert examination.usable()
