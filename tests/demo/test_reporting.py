"""How a run ends for whoever started it: exit code, words, JSON, picture; and nothing is left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.demo import reporting
from gatewayd.demo.processes import ChildFailed
from gatewayd.demo.settings import Policy, Settings
from gatewayd.demo.show import Outcome, Sabotage
from gatewayd.demo.summary import verdict
from gatewayd.demo.table import Screen
from tests.demo.test_comparison import SEEN, THEIRS
from tests.demo.test_summary import GOOD, PROOF

OUTCOME = Outcome(
    GOOD, verdict(GOOD, PROOF), SEEN, [50] * 10 + [20] * 65, ["the hub counted 3 of 401003/expired"]
)
COMPARED = dataclasses.replace(OUTCOME, other=THEIRS, other_connects_per_second=[100] * 5 + [0] * 70)
BAD_SUMMARY = dataclasses.replace(GOOD, hub_errors={"401003": 3})
BAD = dataclasses.replace(OUTCOME, summary=BAD_SUMMARY, criteria=verdict(BAD_SUMMARY, PROOF))


def ends_with(monkeypatch: pytest.MonkeyPatch, outcome: Outcome | Exception) -> None:
    """Let the run itself be over with this outcome; what follows it is real."""

    async def perform(_: Settings, screen: Screen, sabotage: Sabotage | None = None) -> Outcome:
        screen.say("starting the hub")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(reporting, "perform", perform)


def run(*, as_json: bool = False, plot: Path | None = None) -> int:
    return reporting.run_and_report(Settings(), as_json=as_json, plot=plot, sabotage=None)


def test_a_good_run_ends_with_0_and_says_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_with(monkeypatch, OUTCOME)
    assert run() == ExitCode.OK
    said = capsys.readouterr()
    assert "What was measured" in said.out
    assert said.err == ""


def test_a_bad_run_ends_with_1_and_names_the_criterion_and_what_may_explain_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_with(monkeypatch, BAD)
    assert run() == ExitCode.FAILED
    said = capsys.readouterr()
    assert "FAILED: wanted no 401003 (token expired or refused); found 3" in said.err
    assert "the hub counted 3 of 401003/expired" in said.err


def test_json_stands_alone_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_with(monkeypatch, OUTCOME)
    assert run(as_json=True) == ExitCode.OK
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads(GOOD.to_json())
    assert "starting the hub" in said.err


def test_a_comparison_is_one_more_field_of_the_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_with(monkeypatch, COMPARED)
    run(as_json=True)
    written = json.loads(capsys.readouterr().out)
    assert set(written) - set(json.loads(GOOD.to_json())) == {"comparison"}
    assert written["comparison"]["policy"] == Policy.CUT.value


def test_both_fleets_are_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ends_with(monkeypatch, COMPARED)
    assert run(plot=tmp_path / "both.svg") == ExitCode.OK
    picture = (tmp_path / "both.svg").read_text()
    assert "As the SDKs do" in picture
    assert "Through gatewayd" in picture
    assert "The same fleet, both ways" in capsys.readouterr().out


def test_a_child_that_failed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_with(monkeypatch, ChildFailed("the daemon", "ended with exit code 1", ["address in use"]))
    assert run() == ExitCode.FAILED
    assert "the demo failed: the daemon ended with exit code 1" in (said := capsys.readouterr().err)
    assert "address in use" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_leaves_no_process_and_no_file(
    number: signal.Signals, tmp_path: Path
) -> None:
    demo = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gatewayd",
        "demo",
        "--devices=5",
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert demo.stdout is not None
    async with asyncio.timeout(40):
        while b"starting the daemon" not in await demo.stdout.readline():
            pass
        family = psutil.Process(demo.pid).children(recursive=True)
        assert family
        demo.send_signal(number)
        _, complaint = await demo.communicate()
    assert b"interrupted" in complaint
    assert demo.returncode == reporting.INTERRUPTED
    assert [child for child in family if child.is_running()] == []
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # nothing else runs on this loop
