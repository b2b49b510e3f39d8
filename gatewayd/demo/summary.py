"""From what was read to the summary and the verdict. Pure.

The verdict is a list of criteria; each says what was wanted and what was found, so that a failed run names its reason
with the numbers. The hub's own counts decide; the daemon is asked only for what the hub cannot know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from gatewayd.demo.hub_story import Spread
from gatewayd.demo.settings import RENEWALS_WANTED

RECEIPTED_SHARE = 0.99

EXPIRED = "401003"
CLOSED = "404104"
TAKEN_OVER = "400027"


@dataclass(frozen=True, slots=True)
class Summary:
    """What `--json` prints, field by field.

    `messages_at_hub` counts distinct messages, `duplicates` what came there more than once, `lost` what a device had
    a receipt for and the hub has not. Renewals are counted at the hub, during the run's duration; their mean is over
    that duration, their peak over any one second. Gap and drain are the daemon's own, for the same renewals.
    `rss_kib_per_device` is what the daemon's resident memory grew by between its start without devices and the last
    look with the most of them connected, divided by their number.
    """

    devices: int
    duration_s: float
    messages_sent: int
    messages_receipted: int
    messages_at_hub: int
    lost: int
    duplicates: int
    renewals: int
    renewals_mean_per_s: float
    renewals_peak_per_s: int
    renewal_gap_ms: Spread
    renewal_drain_ms: Spread
    messages_scheduled: int
    hub_errors: Mapping[str, int]
    connects_peak_per_s: int
    rss_kib_per_device: float
    engine: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Proof:
    """What the verdict needs beside the summary."""

    fewest_renewals: int
    renewed_devices: int  # devices renewed as often as wanted
    unplanned_closes: int
    unread_events: int = 0
    unaccounted_messages: int = 0


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing a run must show: what is wanted, what was found, and whether that will do."""

    wanted: str
    found: str
    passed: bool


def verdict(summary: Summary, proof: Proof) -> list[Criterion]:
    """Every criterion, in the order of a reader's questions."""
    errors = summary.hub_errors
    others = {code: count for code, count in errors.items() if code not in {EXPIRED, CLOSED, TAKEN_OVER}}
    unexplained = max(0, proof.unplanned_closes - sum(errors.values()))
    wanted_receipts = RECEIPTED_SHARE * summary.messages_scheduled
    share = summary.messages_receipted / max(1, summary.messages_scheduled)
    criteria = [
        _none("no 401003 (token expired or refused)", errors.get(EXPIRED, 0)),
        _none("no unplanned 404104 (connection closed)", errors.get(CLOSED, 0)),
        _none("no 400027 (two connections of one device)", errors.get(TAKEN_OVER, 0)),
        Criterion(
            "no other error or close at the hub",
            ", ".join(f"{count} of {code}" for code, count in others.items())
            or (f"{unexplained} unplanned closes" if unexplained else "none"),
            not others and not unexplained,
        ),
        Criterion(
            f"every device renewed at least {RENEWALS_WANTED} times",
            f"{proof.renewed_devices} of {summary.devices}, the fewest {proof.fewest_renewals} times",
            proof.renewed_devices == summary.devices,
        ),
        Criterion(
            f"at least {RECEIPTED_SHARE:.0%} of the scheduled messages receipted",
            f"{summary.messages_receipted} of {summary.messages_scheduled} ({share:.2%})",
            summary.messages_scheduled > 0 and summary.messages_receipted >= wanted_receipts,
        ),
        Criterion(
            "every receipted message at the hub",
            f"{summary.lost} lost of {summary.messages_receipted}",
            summary.lost == 0,
        ),
    ]
    if proof.unread_events or proof.unaccounted_messages:
        criteria.append(
            Criterion(
                "the hub's log read whole",
                f"{proof.unread_events} events and {proof.unaccounted_messages} messages not accounted for",
                passed=False,
            )
        )
    return criteria


def all_passed(criteria: list[Criterion]) -> bool:
    return all(criterion.passed for criterion in criteria)


def failures_text(criteria: list[Criterion]) -> str:
    """The criteria that failed, a line each."""
    return "\n".join(
        f"FAILED: wanted {criterion.wanted}; found {criterion.found}"
        for criterion in criteria
        if not criterion.passed
    )


def _none(wanted: str, count: int) -> Criterion:
    return Criterion(wanted, str(count) if count else "none", count == 0)
