"""What a person reads: every figure is there, on a terminal and in a log."""

from __future__ import annotations

import io

from rich.console import Console

from gatewayd.demo.summary import verdict
from gatewayd.demo.table import (
    Glance,
    LiveScreen,
    PlainScreen,
    comparison_table,
    errors_text,
    glance_line,
    progress_table,
    screen_for,
    summary_table,
    verdict_lines,
)
from tests.demo.test_comparison import SEEN, THEIRS
from tests.demo.test_summary import GOOD, PROOF

OURS = Glance("through gatewayd", 500, 480, 470, 1000, 990, 985, 986, 20, 50, 321, {}, 0, 51_200)
OTHER = Glance(
    "as the SDKs do", 500, 500, 499, 1000, 990, 985, 986, 90, 104, 0, {"401003": 1000, "429001": 3}
)


def text_of(thing: object, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_says_where_the_fleet_is() -> None:
    line = glance_line(12.0, 75.0, OURS)
    for part in (
        "12/75 s",
        "480/500 connected",
        "985/1000 receipted",
        "321 renewals",
        "peak 50",
        "daemon 50 MiB",
    ):
        assert part in line
    assert "hub errors: none" in line
    assert "1,000 x 401003, 3 x 429001" in glance_line(12.0, 75.0, OTHER)


def test_the_live_table_has_a_column_for_each_fleet_and_a_row_for_each_error() -> None:
    text = text_of(progress_table(12.0, 75.0, [OURS, OTHER]))
    assert "through gatewayd" in text
    assert "as the SDKs do" in text
    for code in ("401003", "404104", "400027", "429001"):
        assert f"hub error {code}" in text
    assert "50.0 MiB" in text


def test_the_live_table_of_one_fleet_has_no_second_column() -> None:
    assert "as the SDKs do" not in text_of(progress_table(12.0, 75.0, [OURS]))


def test_a_log_gets_a_line_now_and_then() -> None:
    console = Console(file=io.StringIO(), width=40)
    with PlainScreen(console, every=5.0) as screen:
        for second in range(11):
            screen.show(float(second), 75.0, [OURS])
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split("/")[0].strip() for line in lines] == ["0", "5", "10"]


def test_a_terminal_gets_a_table_that_is_redrawn() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    screen = screen_for(console)
    assert isinstance(screen, LiveScreen)
    with screen:
        screen.say("starting the hub")
        screen.show(1.0, 75.0, [OURS])
    assert isinstance(console.file, io.StringIO)
    assert "starting the hub" in console.file.getvalue()
    assert "480 of 500" in console.file.getvalue()


def test_a_pipe_gets_plain_lines() -> None:
    assert isinstance(screen_for(Console(file=io.StringIO())), PlainScreen)


def test_the_summary_says_every_figure() -> None:
    text = text_of(summary_table(GOOD))
    for part in (
        "500",
        "75 s",
        "1,400",
        "18.7 mean, 23 most",
        "3 ms median, 9 ms p99, 20 ms most",
        "48.0 KiB",
    ):
        assert part in text


def test_the_comparison_fits_a_terminal_of_eighty_columns() -> None:
    text = text_of(comparison_table(GOOD, SEEN, THEIRS), width=80)
    assert "hub error 401003" in text
    assert "1,000" in text
    assert "wait until the hub cuts" in text


def test_the_verdict_says_yes_or_no_to_each_criterion() -> None:
    text = text_of(verdict_lines(verdict(GOOD, PROOF)))
    assert text.count("yes") == 7
    assert "NO" not in text


def test_errors_are_listed_or_said_to_be_none() -> None:
    assert errors_text({}) == "none"
    assert errors_text({"401003": 1200}) == "1,200 x 401003"
