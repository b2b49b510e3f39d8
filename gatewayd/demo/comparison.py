"""The same fleet without gatewayd, and both side by side. Pure.

The devices, their boot, their messages and the hub's limits are the same; what differs is how a token is kept fresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from gatewayd.demo.settings import Policy
from gatewayd.demo.summary import CLOSED, EXPIRED, TAKEN_OVER, Summary

HOW = {
    Policy.CUT: "wait until the hub cuts, then come back",
    Policy.FIXED: "reconnect at 85 % of the token's life",
}


@dataclass(frozen=True, slots=True)
class OtherFleet:
    """What became of the fleet that talks to the hub itself."""

    policy: Policy
    messages_scheduled: int
    messages_sent: int
    messages_receipted: int
    messages_at_hub: int
    lost: int
    duplicates: int
    hub_errors: Mapping[str, int]
    connects: int
    connects_peak_per_s: int
    returns_peak_per_s: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class OurConnects:
    """What the hub saw of our fleet and the summary does not say. Returns are connects after a device's first."""

    connects: int
    returns_peak_per_s: int


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both fleets."""

    name: str
    ours: str
    theirs: str


def side_by_side(ours: Summary, seen: OurConnects, theirs: OtherFleet) -> list[Row]:
    """The rows of the comparison."""

    def errors(code: str) -> tuple[str, str]:
        return f"{ours.hub_errors.get(code, 0):,}", f"{theirs.hub_errors.get(code, 0):,}"

    rows = [
        Row("hub error 401003", *errors(EXPIRED)),
        Row("hub error 404104", *errors(CLOSED)),
    ]
    others = (set(ours.hub_errors) | set(theirs.hub_errors) | {TAKEN_OVER}) - {EXPIRED, CLOSED}
    rows += [Row(f"hub error {code}", *errors(code)) for code in sorted(others)]
    rows += [
        Row(
            "hub connects, most in a second",
            f"{ours.connects_peak_per_s:,}",
            f"{theirs.connects_peak_per_s:,}",
        ),
        Row(
            "the same without first connects",
            f"{seen.returns_peak_per_s:,}",
            f"{theirs.returns_peak_per_s:,}",
        ),
        Row("hub connects in all", f"{seen.connects:,}", f"{theirs.connects:,}"),
        Row(
            "messages receipted",
            f"{ours.messages_receipted:,} of {ours.messages_scheduled:,}",
            f"{theirs.messages_receipted:,} of {theirs.messages_scheduled:,}",
        ),
        Row("duplicates at the hub", f"{ours.duplicates:,}", f"{theirs.duplicates:,}"),
    ]
    return rows
