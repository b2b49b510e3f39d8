"""Both fleets side by side: the same figures of each, none left out that is not zero."""

from __future__ import annotations

import dataclasses

from gatewayd.demo.comparison import HOW, OtherFleet, OurConnects, side_by_side
from gatewayd.demo.settings import Policy
from tests.demo.test_summary import GOOD

THEIRS = OtherFleet(
    policy=Policy.CUT,
    messages_scheduled=7000,
    messages_sent=7000,
    messages_receipted=6500,
    messages_at_hub=6500,
    lost=0,
    duplicates=12,
    hub_errors={"401003": 1000, "404104": 1000, "429001": 77},
    connects=1577,
    connects_peak_per_s=104,
    returns_peak_per_s=99,
)
SEEN = OurConnects(connects=1900, returns_peak_per_s=21)


def test_each_figure_stands_beside_its_counterpart() -> None:
    rows = {row.name: (row.ours, row.theirs) for row in side_by_side(GOOD, SEEN, THEIRS)}
    assert rows["hub error 401003"] == ("0", "1,000")
    assert rows["hub error 404104"] == ("0", "1,000")
    assert rows["hub connects, most in a second"] == ("50", "104")
    assert rows["the same without first connects"] == ("21", "99")
    assert rows["hub connects in all"] == ("1,900", "1,577")
    assert rows["messages receipted"] == ("7,000 of 7,000", "6,500 of 7,000")
    assert rows["duplicates at the hub"] == ("0", "12")


def test_an_error_that_only_one_of_them_had_is_shown_for_both() -> None:
    ours = dataclasses.replace(GOOD, hub_errors={"503001": 2})
    rows = {row.name: (row.ours, row.theirs) for row in side_by_side(ours, SEEN, THEIRS)}
    assert rows["hub error 429001"] == ("0", "77")
    assert rows["hub error 503001"] == ("2", "0")
    assert rows["hub error 400027"] == ("0", "0")


def test_each_policy_says_how_it_renews() -> None:
    assert set(HOW) == {Policy.CUT, Policy.FIXED}


def test_the_other_fleet_goes_into_json_by_name() -> None:
    assert THEIRS.as_dict()["policy"] == "cut"
    assert THEIRS.as_dict()["connects_peak_per_s"] == 104
