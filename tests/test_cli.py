"""The command line: what it finds, what it loads, and what it says when something is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd import cli
from gatewayd.cli import SUBCOMMANDS, Subcommand, main
from gatewayd.daemon.exit_codes import ExitCode
from tests.support.config_files import write_config

HEAVY = ("rich", "matplotlib", "asyncio_mqtt", "paho", "numpy")


def in_a_fresh_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("subcommand", SUBCOMMANDS, ids=lambda subcommand: subcommand.name)
def test_every_command_has_its_module(subcommand: Subcommand) -> None:
    assert importlib.util.find_spec(subcommand.module) is not None


def test_a_command_runs_and_its_exit_code_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_config(tmp_path)
    assert main(["check", "--config", str(files.toml)]) == ExitCode.OK
    assert capsys.readouterr().out.endswith("good\n")
    assert main(["check", "--config", str(tmp_path / "absent")]) == ExitCode.CONFIG


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == ExitCode.OK
    assert capsys.readouterr().out == "gatewayd 0.1.0\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == ExitCode.OK
    out = capsys.readouterr().out
    assert all(subcommand.name in out and subcommand.says in out for subcommand in SUBCOMMANDS)


@pytest.mark.parametrize("words", [[], ["nonsense"], ["check", "--nonsense"], ["--nonsense", "check"]])
def test_a_wrong_command_line_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == ExitCode.USAGE
    assert "usage: gatewayd" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["explain", "401003"], ["check", "--config", "/nonexistent"]])
def test_a_small_command_loads_nothing_of_the_demo_and_no_server(words: list[str]) -> None:
    unwanted = (
        *HEAVY,
        "aiohttp",
        "gatewayd.demo",
        "gatewayd.emulator",
        "gatewayd.upstream",
        "gatewayd.downstream",
    )
    ran = in_a_fresh_process(
        f"import sys\nfrom gatewayd.cli import main\nmain({words!r})\n"
        f"print([name for name in {unwanted!r} if name in sys.modules])"
    )
    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr


def test_a_command_without_its_extra_says_which_one_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "needs_much.py").write_text("import a_package_that_is_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(cli, "SUBCOMMANDS", (Subcommand("demo", "show", "needs_much", extra="demo"),))
    assert main(["demo"]) == ExitCode.NEEDS_EXTRA
    said = capsys.readouterr().err
    assert "a_package_that_is_not_installed" in said
    assert "pip install 'gatewayd[demo]'" in said


def test_a_missing_module_of_ours_is_a_fault_and_not_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "SUBCOMMANDS", (Subcommand("demo", "show", "gatewayd.absent", extra="demo"),))
    with pytest.raises(ModuleNotFoundError):
        main(["demo"])


def test_the_package_is_a_program() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "gatewayd", "explain", "404104"], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == ExitCode.OK
    assert ran.stdout.startswith("404104 DeviceConnectionClosedRemotely")


def test_an_interrupt_ends_a_command_as_a_shell_expects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "interrupted.py").write_text(
        "def add_arguments(parser): pass\ndef run(args): raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(cli, "SUBCOMMANDS", (Subcommand("wait", "wait", "interrupted"),))
    assert main(["wait"]) == 130


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    ran = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m gatewayd explain | head -n 1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout.count("\n") == 1
    assert "Traceback" not in ran.stderr
