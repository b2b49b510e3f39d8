"""The bars: one for each minute in which something was or will be, read back from the picture."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from gatewayd.daemon.fleet_facts import Bar, Renewals
from gatewayd.daemon.renewal_chart import HEIGHT, LEAST_HEIGHT, chart, rows, summary


def renewals(**bars: Bar) -> Renewals:
    """121 minutes, empty but for those given as `m60` for the sixtieth."""
    return Renewals(tuple(bars.get(f"m{place}", Bar(60.0 * place)) for place in range(121)), 60)


def drawn(picture: Renewals) -> list[tuple[str, int, float, float]]:
    """What is drawn: kind, minute, top and height."""
    svg = ET.fromstring(chart(picture))
    return [
        (
            one.attrib["class"],
            int(float(one.attrib["x"])),
            float(one.attrib["y"]),
            float(one.attrib["height"]),
        )
        for one in svg.iter("rect")
    ]


def test_bars_are_where_renewals_are_and_as_high_as_they_are_many() -> None:
    picture = renewals(m0=Bar(0.0, done=10), m59=Bar(0.0, done=5), m120=Bar(0.0, planned=2))
    assert drawn(picture) == [
        ("done", 0, 0.0, HEIGHT),
        ("done", 59, HEIGHT / 2, HEIGHT / 2),
        ("planned", 120, 0.8 * HEIGHT, 0.2 * HEIGHT),
    ]


def test_the_minute_that_runs_has_all_three_one_on_the_other() -> None:
    parts = drawn(renewals(m60=Bar(0.0, done=2, failed=1, planned=1)))
    assert [kind for kind, *_ in parts] == ["done", "failed", "planned"]
    assert [(top, height) for _, _, top, height in parts] == [(50.0, 50.0), (25.0, 25.0), (0.0, 25.0)]


def test_one_beside_a_storm_is_still_seen() -> None:
    parts = drawn(renewals(m1=Bar(0.0, done=5000), m2=Bar(0.0, done=1)))
    assert parts[1][3] == LEAST_HEIGHT


def test_no_bar_leaves_the_picture() -> None:
    for _, _, top, height in drawn(renewals(m1=Bar(0.0, done=5000, failed=1, planned=1))):
        assert top >= 0.0
        assert top + height <= HEIGHT + LEAST_HEIGHT


@pytest.mark.parametrize("picture", [Renewals(), renewals()])
def test_nothing_to_draw_is_a_picture_too(picture: Renewals) -> None:
    assert drawn(picture) == []
    assert summary(picture).startswith("Renewals by the minute: 0 done")


def test_the_picture_says_in_words_what_it_shows() -> None:
    picture = renewals(m0=Bar(0.0, done=10, failed=3), m70=Bar(0.0, planned=4))
    words = "10 done and 3 failed in the last hour, 4 planned for the next; at most 13 in one minute"
    assert words in summary(picture)
    assert ET.fromstring(chart(picture)).attrib["aria-label"] == summary(picture)


def test_the_table_has_every_bar_once_and_a_row_begins_now() -> None:
    bars = {f"m{place}": Bar(0.0, done=place, failed=1, planned=2 * place) for place in range(121)}
    table = list(rows(renewals(**bars)))
    assert [start for start, *_ in table] == list(range(-60, 61, 10))
    assert sum(done for _, done, _, _ in table) == sum(range(121))
    assert sum(failed for *_, failed, _ in table) == 121
    assert sum(planned for *_, planned in table) == 2 * sum(range(121))
