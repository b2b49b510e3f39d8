"""The verdict: each criterion fails on its own, and says so with the numbers."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gatewayd.demo.hub_story import Spread
from gatewayd.demo.summary import Proof, Summary, all_passed, failures_text, verdict

GOOD = Summary(
    devices=500,
    duration_s=75.0,
    messages_sent=7000,
    messages_receipted=7000,
    messages_at_hub=7000,
    lost=0,
    duplicates=0,
    renewals=1400,
    renewals_mean_per_s=18.7,
    renewals_peak_per_s=23,
    renewal_gap_ms=Spread(3.0, 9.0, 20.0),
    renewal_drain_ms=Spread(0.0, 2.0, 5.0),
    messages_scheduled=7000,
    hub_errors={},
    connects_peak_per_s=50,
    rss_kib_per_device=48.0,
    engine="portable",
)
PROOF = Proof(fewest_renewals=2, renewed_devices=500, unplanned_closes=0)


def test_a_good_run_passes_every_criterion() -> None:
    assert all_passed(verdict(GOOD, PROOF))
    assert failures_text(verdict(GOOD, PROOF)) == ""


@pytest.mark.parametrize(
    ("change", "proof", "complaint"),
    [
        ({"hub_errors": {"401003": 3}}, {}, "wanted no 401003 (token expired or refused); found 3"),
        ({"hub_errors": {"404104": 1}}, {}, "wanted no unplanned 404104 (connection closed); found 1"),
        ({"hub_errors": {"400027": 2}}, {}, "wanted no 400027 (two connections of one device); found 2"),
        ({"hub_errors": {"429001": 9}}, {}, "wanted no other error or close at the hub; found 9 of 429001"),
        ({}, {"unplanned_closes": 4}, "wanted no other error or close at the hub; found 4 unplanned closes"),
        (
            {},
            {"renewed_devices": 499, "fewest_renewals": 1},
            "wanted every device renewed at least 2 times; found 499 of 500, the fewest 1 times",
        ),
        (
            {"messages_receipted": 6929, "messages_at_hub": 6929},
            {},
            "wanted at least 99% of the scheduled messages receipted; found 6929 of 7000 (98.99%)",
        ),
        ({"lost": 1}, {}, "wanted every receipted message at the hub; found 1 lost of 7000"),
        ({}, {"unread_events": 7}, "found 7 events and 0 messages not accounted for"),
    ],
)
def test_one_fault_fails_one_criterion_with_its_numbers(
    change: dict[str, object], proof: dict[str, int], complaint: str
) -> None:
    criteria = verdict(dataclasses.replace(GOOD, **change), dataclasses.replace(PROOF, **proof))  # type: ignore[arg-type]  # one mapping for fields of several types
    assert [criterion.passed for criterion in criteria].count(False) == 1
    text = failures_text(criteria)
    assert text.startswith("FAILED: ")
    assert complaint in text


def test_exactly_the_wanted_share_of_receipts_passes() -> None:
    assert all_passed(
        verdict(dataclasses.replace(GOOD, messages_receipted=6930, messages_at_hub=6930), PROOF)
    )


def test_a_run_without_messages_proves_nothing() -> None:
    nothing = dataclasses.replace(GOOD, messages_scheduled=0, messages_receipted=0)
    assert not all_passed(verdict(nothing, PROOF))


def test_an_unplanned_close_with_a_code_is_reported_under_its_code_alone() -> None:
    criteria = verdict(
        dataclasses.replace(GOOD, hub_errors={"404104": 4}), dataclasses.replace(PROOF, unplanned_closes=4)
    )
    assert failures_text(criteria).count("FAILED") == 1


def test_the_json_has_exactly_the_promised_fields() -> None:
    written = json.loads(GOOD.to_json())
    assert set(written) == {
        "devices",
        "duration_s",
        "messages_sent",
        "messages_receipted",
        "messages_at_hub",
        "lost",
        "duplicates",
        "renewals",
        "renewals_mean_per_s",
        "renewals_peak_per_s",
        "renewal_gap_ms",
        "renewal_drain_ms",
        "messages_scheduled",
        "hub_errors",
        "connects_peak_per_s",
        "rss_kib_per_device",
        "engine",
    }
    assert written["renewal_gap_ms"] == {"p50": 3.0, "p99": 9.0, "max": 20.0}
