"""docs/metrics.md and the scrape say the same, both ways: families, types, labels, and the values of labels."""

from __future__ import annotations

import enum
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from gatewayd.daemon.status import STATE_NAMES
from gatewayd.downstream import listener
from gatewayd.downstream.admission import HeldBecause, RefusedBecause
from gatewayd.downstream.device_session import DeviceEnd
from gatewayd.flow import hub_sessions
from gatewayd.message import DropReason
from gatewayd.metrics import (
    DISCONNECT_SERIES,
    HUB_ERROR_SERIES,
    MESSAGE_STAGES,
    METHOD_RESULTS,
    RENEWAL_RESULTS,
    TWIN_OPERATIONS,
    TWIN_RESULTS,
    Metrics,
)
from gatewayd.tallies import TallyFamily, TallyHistogram

PAGE = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
_CODE = re.compile(r"`([^`]*)`")
Family = tuple[str, frozenset[str]]


def rows(page: str, columns: int) -> list[list[str]]:
    """The cells of every table row that has so many columns and begins with a code span."""
    split = ([cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines())
    return [cells for cells in split if len(cells) == columns and cells[0].startswith("`")]


def documented(page: str) -> dict[str, Family]:
    return {
        _CODE.findall(name)[0]: (kind, frozenset(_CODE.findall(labels)))
        for name, kind, labels, _, _ in rows(page, 5)
    }


def scraped() -> dict[str, Family]:
    """Families by the name an operator queries. Those without a series yet show no labels, so the family is asked."""
    registry = CollectorRegistry()
    labels: dict[str, frozenset[str]] = {}
    for family in vars(Metrics(registry)).values():
        if isinstance(family, MetricWrapperBase):
            labels[f"{family._name}{'_total' if family._type == 'counter' else ''}"] = frozenset(
                family._labelnames
            )
        elif isinstance(family, TallyFamily | TallyHistogram):
            [shown] = family.describe()
            labels[f"{shown.name}{'_total' if shown.type == 'counter' else ''}"] = frozenset(
                shown._labelnames
            )
    found: dict[str, Family] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        if not name.endswith("_created"):
            found[name] = (family.type, labels[name])
    return found


def test_the_page_and_the_scrape_hold_the_same_families() -> None:
    assert documented(PAGE) == scraped()


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        (r"\| `gatewayd_tokens_expired` \|.*\n", ""),
        (
            r"\| `gatewayd_tokens_expired` \| gauge",
            "| `gatewayd_nothing` | gauge | | None. | |\n| `gatewayd_tokens_expired` | gauge",
        ),
        (r"`gatewayd_renewals_due` \| gauge", "`gatewayd_renewals_due` | counter"),
        (r"`transport`, `result` \| Ren", "`transport` | Ren"),
    ],
    ids=["a family is missing", "a family too many", "a wrong type", "a label is missing"],
)
def test_a_page_that_differs_is_seen(line: str, instead: str) -> None:
    changed = re.sub(line, instead, PAGE)
    assert changed != PAGE
    assert documented(changed) != scraped()


def test_every_family_says_what_it_means() -> None:
    assert [name for name, _, _, meaning, _ in rows(PAGE, 5) if not meaning.endswith(".")] == []


def _values(kind: type[enum.Enum]) -> set[str]:
    return {str(member.value) for member in kind}


@pytest.mark.parametrize(
    ("label", "family", "values"),
    [
        ("`side`", "gatewayd_disconnects_total", {side for side, _, _ in DISCONNECT_SERIES}),
        (
            "`reason`",
            'gatewayd_disconnects_total{side="hub"}',
            {reason for side, _, reason in DISCONNECT_SERIES if side == "hub"}
            | set(hub_sessions._CLOSE_REASONS.values()),
        ),
        ("`reason`", 'gatewayd_disconnects_total{side="device"}', _values(DeviceEnd)),
        ("`state`", "gatewayd_devices", set(STATE_NAMES.values())),
        ("`transport`", "gatewayd_token_renewals_total", {hub_sessions.TRANSPORT}),
        ("`result`", "gatewayd_token_renewals_total", set(RENEWAL_RESULTS)),
        (
            "`reason`",
            "gatewayd_device_refusals_total",
            _values(RefusedBecause)
            | _values(HeldBecause)
            | {*listener._UNFINISHED, *(end.value for end in listener._BEFORE_CONNACK)},
        ),
        ("`stage`", "gatewayd_messages_total", set(MESSAGE_STAGES)),
        ("`result`", "gatewayd_method_calls_total", set(METHOD_RESULTS)),
        ("`operation`", "gatewayd_twin_requests_total", set(TWIN_OPERATIONS)),
        ("`result`", "gatewayd_twin_requests_total", set(TWIN_RESULTS)),
        ("`reason`", "gatewayd_messages_dropped_total", _values(DropReason)),
    ],
)
def test_the_values_of_a_label_are_those_of_the_code(label: str, family: str, values: set[str]) -> None:
    cells = [cells for cells in rows(PAGE, 3) if cells[0] == label and cells[1] == f"`{family}`"]
    assert len(cells) == 1
    assert set(_CODE.findall(cells[0][2])) == values


def test_the_refusals_that_exist_from_the_start_are_named() -> None:
    row = next(cells for cells in rows(PAGE, 3) if cells[1] == "`gatewayd_hub_errors_total`")
    assert row[2].endswith(", ".join(f"`{code}` `{cause}`" for code, cause in HUB_ERROR_SERIES))


def test_every_runbook_that_an_alarm_names_exists() -> None:
    operations = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", operations, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    named = set(re.findall(r"operations\.md#([a-z0-9-]+)", PAGE))
    assert named
    assert named <= anchors
