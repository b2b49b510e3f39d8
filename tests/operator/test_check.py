"""`gatewayd check`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.operator.check import add_arguments, run
from tests.support.config_files import ConfigFolder, device_lines, write_config


@pytest.fixture
def files(tmp_path: Path) -> ConfigFolder:
    return write_config(tmp_path, devices=12)


def check(config: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(["--config", str(config), *options]))


def checked_json(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = check(config, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_a_good_file_is_called_good_with_the_arithmetic(
    files: ConfigFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(files.toml) == ExitCode.OK
    out = capsys.readouterr().out
    assert out.endswith(f"{files.toml}: good\n")
    assert "12 devices" in out


def test_every_problem_is_printed_with_line_and_remedy(
    files: ConfigFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    files.append("[tokens]\nlifetime = 60\nrenew_latst = 1\n")
    files.devices.unlink()
    assert check(files.toml) == ExitCode.CONFIG
    out = capsys.readouterr().out
    assert "error: tokens.lifetime (line 12): 60 has no unit (allowed: a duration with its unit" in out
    assert (
        "error: tokens.renew_latst (line 13): is not a key of gatewayd; did you mean tokens.renew_latest?"
        in out
    )
    assert "error: devices.file (line 6): " in out
    assert out.endswith("3 errors\n")


def test_warnings_fail_only_when_asked_to(files: ConfigFolder, capsys: pytest.CaptureFixture[str]) -> None:
    files.append('[metrics]\naddress = "0.0.0.0:9464"\nanonymous = "metrics"\n')
    assert check(files.toml) == ExitCode.OK
    assert "warning: metrics.address" in capsys.readouterr().out
    assert check(files.toml, "--warnings-as-errors") == ExitCode.WARNINGS


def test_errors_outrank_warnings(files: ConfigFolder) -> None:
    files.append('[metrics]\naddress = "0.0.0.0:9464"\nanonymous = "metrics"\n[nonsense]\n')
    assert check(files.toml, "--warnings-as-errors") == ExitCode.CONFIG


def test_a_program_gets_the_same_as_json(files: ConfigFolder, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = checked_json(files.toml, capsys)
    assert code == ExitCode.OK
    assert said["usable"] is True
    assert said["errors"] == []
    assert said["devices"] == 12
    assert said["timetable"]["feasible"] is True
    files.append("[tokens]\nlifetime = 60\n")
    code, said = checked_json(files.toml, capsys)
    assert code == ExitCode.CONFIG
    assert said["usable"] is False
    assert said["errors"][0]["path"] == "tokens.lifetime"
    assert said["errors"][0]["line"] == 12


def test_an_infeasible_timetable_is_refused_with_the_numbers(
    files: ConfigFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    files.devices.write_text(device_lines(2000))
    files.append('[hub.budget]\nconnects_per_second = 1\n[tokens]\nlifetime = "20m"\n')
    assert check(files.toml) == ExitCode.CONFIG
    out = capsys.readouterr().out
    assert "2000 devices with tokens of 1200 s" in out
    assert "budget of 1 connects/s" in out


def test_a_file_that_is_not_there_is_a_problem_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = checked_json(tmp_path / "absent.toml", capsys)
    assert code == ExitCode.CONFIG
    assert said["errors"][0]["problem"] == "cannot be read: No such file or directory"
    assert said["devices"] is None
