"""The options of `gatewayd demo`, and what is refused before anything starts."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.demo import program
from gatewayd.demo.settings import Policy, Settings


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    program.add_arguments(parser)
    return parser.parse_args(words)


def test_the_defaults_are_the_documented_run() -> None:
    settings = program.settings_from(parsed())
    assert settings == Settings(devices=500, lifetime=30.0, duration=75.0, rate=0.2, boot=10.0, compare=None)


def test_every_option_reaches_the_settings() -> None:
    words = (
        "--devices 2000 --lifetime 1m --duration 3m --rate 0.5 --boot 20s --compare --compare-policy fixed"
    )
    assert program.settings_from(parsed(*words.split())) == Settings(
        2000, 60.0, 180.0, 0.5, 20.0, Policy.FIXED
    )


def test_the_boot_grows_with_the_fleet_unless_it_is_given() -> None:
    assert program.settings_from(parsed("--devices", "2000")).boot == 40.0


def test_comparing_waits_for_the_cut_unless_told_otherwise() -> None:
    assert program.settings_from(parsed("--compare")).compare is Policy.CUT


def test_a_duration_without_unit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--lifetime", "30")
    assert "such as 30s, 60m or 1.5h" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--duration 20s", "too short for 2 renewals of every device: at least 69s"),
        ("--devices 5000 --duration 10m", "a budget of 100 connects/s"),
        ("--plot fleet.pdf", "must end in .png or .svg"),
        ("--plot /nonexistent/fleet.png", "there is no directory /nonexistent"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run(parsed(*words.split())) == ExitCode.USAGE
    said = capsys.readouterr()
    assert complaint in said.err
    assert said.out == ""


def test_too_few_open_files_are_said_with_the_number_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 1024))
    assert program.run(parsed()) == ExitCode.USAGE
    assert (
        "500 devices need 1256 open files in one process, and the limit here is 1024"
        in capsys.readouterr().err
    )


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "rich" else find(name))
    assert program.run(parsed()) == ExitCode.NEEDS_EXTRA
    assert "gatewayd demo needs rich" in (said := capsys.readouterr().err)
    assert "pip install 'gatewayd[demo]'" in said


def test_matplotlib_is_needed_for_a_picture_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "matplotlib" else name)
    assert program.missing_parts(plot=False) == []
    assert program.missing_parts(plot=True) == ["matplotlib"]


def test_the_options_are_known_without_the_extra(tmp_path: Path) -> None:
    """`gatewayd --help` must work on a gateway, where the extra is not installed."""
    for package in ("asyncio_mqtt", "paho", "rich", "matplotlib"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('not installed')\n")
    code = (
        "import argparse; from gatewayd.demo import program; program.add_arguments(argparse.ArgumentParser())"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30
    )
    assert ended.stderr == ""
    assert ended.returncode == 0
