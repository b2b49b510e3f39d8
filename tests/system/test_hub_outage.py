"""The hub is away while devices go on sending: everything receipted arrives, in order, with memory flat, and the drain
obeys the send throttle.

A scaled run of `python -m tests.proof.hub_outage`, which takes ten minutes and 500 devices.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.proof.custody import Verdict
from tests.proof.hub_outage import Report, Settings, run

SCALED = Settings(seconds=8.0, devices=60, rate=10.0, sends_per_second=1500, spill_after="300ms", seed=5)
KEPT = Verdict(1, 0, 1, 0, 0, (), (), (), 0, 0)


async def test_an_outage_of_the_hub_costs_nothing(tmp_path: Path) -> None:
    report = await run(SCALED, tmp_path)
    assert report.broken() == []
    assert report.verdict is not None
    assert report.verdict.early > 3000


def test_what_an_outage_breaks_is_called_broken() -> None:
    good = Report(
        SCALED,
        verdict=KEPT,
        settled=True,
        said_while_away=100,
        receipted_while_away=100,
        memory=[50.0, 50.0, 51.0, 51.0],
        sends_peak=1500,
    )
    assert good.broken() == []
    for harm in (
        {"verdict": replace(KEPT, lost=(("dev-000", 1),))},
        {"settled": False},
        {"receipted_while_away": 50},
        {"memory": [50.0, 60.0, 70.0, 80.0]},
        {"sends_peak": 2000},
        {"complaints": ["Traceback"]},
    ):
        assert len(replace(good, **harm).broken()) == 1, harm
