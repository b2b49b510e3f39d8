"""Renewals of the hour that was and the hour to come, as bars. Pure.

An SVG without a word in it: it stretches to any width, colours come from the page's style sheet, and what it says is
said again in its label and in the table beside it, for those who do not see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gatewayd.daemon.fleet_facts import Bar, Renewals

HEIGHT: Final = 100.0
# Of a minute's width; the rest is air.
BAR_WIDTH: Final = 0.8
# A single renewal beside a storm of hundreds must still be seen.
LEAST_HEIGHT: Final = 1.5
# Minutes of one row of the table.
ROW_MINUTES: Final = 10


def chart(renewals: Renewals) -> str:
    """The picture."""
    width = max(1, len(renewals.bars))
    now = renewals.now + 0.5
    scale = HEIGHT / max(1, renewals.peak)
    marks = "".join(_bar(place, bar, scale) for place, bar in enumerate(renewals.bars) if bar.total)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{summary(renewals)}">'
        f'<line class="grid" x1="0" x2="{width}" y1="0" y2="0"/>'
        f'<line class="grid" x1="0" x2="{width}" y1="{HEIGHT / 2:g}" y2="{HEIGHT / 2:g}"/>'
        f'<line class="base" x1="0" x2="{width}" y1="{HEIGHT:g}" y2="{HEIGHT:g}"/>'
        f'{marks}<line class="now" x1="{now:g}" x2="{now:g}" y1="0" y2="{HEIGHT:g}"/></svg>'
    )


def summary(renewals: Renewals) -> str:
    """The picture in a sentence."""
    return (
        f"Renewals by the minute: {renewals.done} done and {renewals.failed} failed in the last hour, "
        f"{renewals.planned} planned for the next; at most {renewals.peak} in one minute."
    )


def rows(renewals: Renewals) -> Iterator[tuple[int, int, int, int]]:
    """The picture as a table: minutes from now, and what was done, failed and is planned in the ten from there."""
    first = renewals.now % ROW_MINUTES
    for start in range(first - ROW_MINUTES if first else 0, len(renewals.bars), ROW_MINUTES):
        part = renewals.bars[max(0, start) : start + ROW_MINUTES]
        yield (
            start - renewals.now,
            sum(bar.done for bar in part),
            sum(bar.failed for bar in part),
            sum(bar.planned for bar in part),
        )


def _bar(place: int, bar: Bar, scale: float) -> str:
    """From the ground up: done, failed, planned."""
    parts, ground = [], HEIGHT
    for kind, count in (("done", bar.done), ("failed", bar.failed), ("planned", bar.planned)):
        if count:
            height = max(LEAST_HEIGHT, count * scale)
            ground -= height
            parts.append(
                f'<rect class="{kind}" x="{place + (1 - BAR_WIDTH) / 2:.1f}" y="{max(0.0, ground):.1f}" '
                f'width="{BAR_WIDTH}" height="{height:.1f}"/>'
            )
    return "".join(parts)
