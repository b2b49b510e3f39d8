"""The picture of a run: new connections at the hub, second by second, gatewayd's fleet and the other one.

One panel for each fleet, one above the other, with the same scales, so that the eye compares heights. PNG or SVG by
the file's suffix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gatewayd.demo.settings import HUB_CONNECTS_PER_SECOND, Settings, renewal_floor

HEADROOM = 1.32  # above the highest bar, for what is written there

_INK = "#24292f"
_FAINT = "#8b949e"
_CALM = "#1f6feb"
_HERD = "#d1495b"


@dataclass(frozen=True, slots=True)
class Panel:
    """One fleet: connections in each second since the start, and what to say of them."""

    title: str
    connects: tuple[int, ...]
    remark: str
    herd: bool
    floor: float | None = None


def own_panel(settings: Settings, connects: list[int], errors: Mapping[str, int]) -> Panel:
    """The fleet behind gatewayd."""
    return Panel(
        "Through gatewayd: renewed ahead of expiry, staggered",
        tuple(connects),
        _errors_text(errors),
        herd=False,
        floor=renewal_floor(settings.devices, settings.lifetime, settings.renew_latest),
    )


def other_panel(how: str, connects: list[int], errors: Mapping[str, int]) -> Panel:
    """The fleet that talks to the hub itself."""
    return Panel(f"As the SDKs do: {how}", tuple(connects), _errors_text(errors), herd=True)


def draw(settings: Settings, panels: list[Panel], path: Path) -> None:
    """Write the picture."""
    style: dict[Any, object] = {
        "font.size": 10.5,
        "text.color": _INK,
        "axes.edgecolor": _FAINT,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "svg.fonttype": "none",
        "svg.hashsalt": "gatewayd",
        "font.family": "sans-serif",
    }
    with mpl.rc_context(style):
        # A Figure of its own, without pyplot: no global state and the Agg canvas, no display needed.
        figure = Figure(
            figsize=(9.6, 1.1 + 2.15 * len(panels)), dpi=150, layout="constrained", facecolor="white"
        )
        axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        top = max(1.0, *(height for panel in panels for height in (*panel.connects, panel.floor or 0.0)))
        for panel, place in zip(panels, axes, strict=True):
            _draw_panel(place, panel, settings, top)
        axes[-1].set_xlabel("seconds since the first device was switched on")
        figure.suptitle(
            f"New connections at the hub in each second  ·  {settings.devices:,} devices, "
            f"tokens of {settings.lifetime:g} s",
            x=0.012,
            ha="left",
            fontsize=13,
            fontweight="bold",
        )
        figure.savefig(path)


def _draw_panel(axes: Axes, panel: Panel, settings: Settings, top: float) -> None:
    seconds = range(len(panel.connects))
    axes.axvspan(0, settings.boot, color=_FAINT, alpha=0.13, linewidth=0)
    axes.text(
        settings.boot / 2,
        top * 1.16,
        "boot",
        ha="center",
        va="center",
        color=_FAINT,
        fontsize=9,
        clip_on=True,
    )
    axes.bar(
        seconds, panel.connects, width=0.86, align="edge", color=_HERD if panel.herd else _CALM, linewidth=0
    )
    if panel.floor is not None:
        _mark(axes, panel.floor, f"least\npossible:\n{panel.floor:.1f}", _INK)
    if top > 0.8 * HUB_CONNECTS_PER_SECOND:
        _mark(axes, HUB_CONNECTS_PER_SECOND, f"an S1 hub\ntakes {HUB_CONNECTS_PER_SECOND}", _FAINT)
    axes.set_title(
        panel.title, loc="left", fontsize=11, color=_HERD if panel.herd else _CALM, fontweight="bold"
    )
    axes.text(
        0.995,
        0.9,
        panel.remark,
        transform=axes.transAxes,
        ha="right",
        va="center",
        fontweight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 3},
    )
    axes.set_ylim(0, top * HEADROOM)
    axes.set_xlim(0, len(panel.connects))
    axes.grid(axis="y", color=_FAINT, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=True))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)


def _mark(axes: Axes, height: float, words: str, color: str) -> None:
    """A line across, and what it means beside it."""
    axes.axhline(height, color=color, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(
        1.008,
        height,
        words,
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=8.5,
        linespacing=1.25,
        color=color,
    )


def _errors_text(errors: Mapping[str, int]) -> str:
    if not errors:
        return "hub errors: none"
    return "hub errors:   " + "    ".join(f"{code} × {count:,}" for code, count in errors.items())
