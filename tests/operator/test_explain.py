"""`gatewayd explain`."""

from __future__ import annotations

import argparse

import pytest

from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.operator.explain import add_arguments, run
from gatewayd.protocol.iothub import refusals


def explain(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


@pytest.mark.parametrize("asked", ["401003", "#401003", " 401003 "])
def test_every_cause_of_a_code_is_explained_from_the_table(
    asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(asked) == ExitCode.OK
    out = capsys.readouterr().out
    rows = refusals.causes(401003)
    assert len(rows) > 1
    for row in rows:
        assert row.cause in out
        assert row.remedy in out


def test_a_name_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("deviceconnectionclosedremotely") == ExitCode.OK
    assert capsys.readouterr().out.startswith("404104 DeviceConnectionClosedRemotely")


def test_without_a_code_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain() == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(refusals.known_codes())


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("401004004", "401004"), ("40103", "401003"), ("nonsense", "lists all"), ("٤", "lists all")],
)
def test_an_unknown_code_fails_and_hints(asked: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(asked) == ExitCode.FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert hint in said.err
