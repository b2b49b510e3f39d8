"""The demo from beginning to end, small: a good run passes, and each sabotage fails the criterion it hits."""

from __future__ import annotations

import dataclasses
import re

import pytest

from gatewayd.demo import show
from gatewayd.demo.comparison import OtherFleet
from gatewayd.demo.processes import ChildFailed
from gatewayd.demo.settings import Policy, Settings, problems
from gatewayd.demo.show import Outcome, Sabotage, perform
from gatewayd.demo.summary import all_passed, failures_text
from gatewayd.demo.table import Glance

SMALL = Settings(devices=20, lifetime=14.0, duration=30.0, rate=1.0, boot=1.0, compare=Policy.CUT)
# Too short for two renewals: for runs that are meant to fail.
SHORT = dataclasses.replace(SMALL, duration=4.0, rate=2.0, compare=None)


class SilentScreen:
    """Keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[list[Glance]] = []
        self.said: list[str] = []

    def __enter__(self) -> SilentScreen:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, elapsed: float, duration: float, glances: list[Glance]) -> None:
        self.shown.append(glances)

    def say(self, text: str) -> None:
        self.said.append(text)


def failed(outcome: Outcome) -> str:
    return failures_text(outcome.criteria)


async def test_a_small_fleet_is_renewed_without_an_error_while_the_other_one_is_cut() -> None:
    assert problems(SMALL) == []
    screen = SilentScreen()
    outcome = await perform(SMALL, screen)
    summary, other = outcome.summary, outcome.other
    assert failed(outcome) == ""
    assert all_passed(outcome.criteria)
    assert summary.hub_errors == {}
    assert summary.messages_receipted == summary.messages_at_hub == summary.messages_scheduled > 550
    assert summary.renewals >= 40
    assert 0 < summary.renewal_gap_ms.p50 <= summary.renewal_gap_ms.p99 <= summary.renewal_gap_ms.max
    assert summary.rss_kib_per_device > 0
    assert summary.engine
    assert isinstance(other, OtherFleet)
    assert other.hub_errors["401003"] == other.hub_errors["404104"] >= 20
    assert sum(outcome.connects_per_second) >= 60
    assert [glance.title for glance in screen.shown[-1]] == ["through gatewayd", "as the SDKs do"]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "SETTLE_SECONDS", 1.0)


@pytest.mark.usefixtures("_impatient")
async def test_a_drop_by_the_hub_and_too_few_renewals_fail_the_run_and_nothing_else_does() -> None:
    outcome = await perform(SHORT, SilentScreen(), Sabotage.DROP)
    first, second = failed(outcome).splitlines()
    assert re.match(r"FAILED: wanted no unplanned 404104 .*; found 1$", first)
    assert second.startswith("FAILED: wanted every device renewed at least 2 times; found 0 of 20")


@pytest.mark.usefixtures("_impatient")
async def test_receipts_that_stay_away_fail_the_run() -> None:
    outcome = await perform(SHORT, SilentScreen(), Sabotage.SILENCE)
    assert "of the scheduled messages receipted; found" in failed(outcome)
    assert outcome.summary.messages_receipted < outcome.summary.messages_at_hub


async def test_a_daemon_that_dies_is_named() -> None:
    with pytest.raises(ChildFailed, match="the daemon was ended by SIGKILL"):
        await perform(SHORT, SilentScreen(), Sabotage.KILL)
