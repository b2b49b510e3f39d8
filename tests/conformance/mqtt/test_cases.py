"""Every conformance case, whole, byte by byte, and cut at every point."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from gatewayd.protocol.mqtt.faults import CloseCause
from tests.conformance.mqtt.player import Case, cuts_of, load_cases, play

CASES = load_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}: {case.name}")
def test_a_connection_does_what_the_case_says_however_its_bytes_are_cut(case: Case) -> None:
    for _, cut in cuts_of(case):
        play(case, cut)


def test_every_case_has_a_name_of_its_own_and_names_its_clause() -> None:
    names = Counter((case.role, case.name, case.clause) for case in CASES)
    assert [name for name, count in names.items() if count > 1] == []
    clause = re.compile(r"(MQTT-)?[1-4]\.\d+(\.\d+){0,3}(-\d+)?|4\.\d|3\.\d+")
    assert [case.name for case in CASES if not clause.fullmatch(case.clause)] == []


@pytest.mark.parametrize("role", ["server", "client"])
def test_every_way_a_connection_can_end_is_met(role: str) -> None:
    ends = {
        line.split()[2]
        for case in CASES
        if case.role == role
        for line in case.script
        if "event: closed" in line
    }
    never = {"server": {"TAKEN_OVER"}, "client": {"TAKEN_OVER", "FLOOD"}}[role]
    assert ends == {cause.name for cause in CloseCause} - never
