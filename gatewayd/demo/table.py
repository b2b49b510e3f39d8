"""What a person sees: a live table on a terminal, plain lines elsewhere, and the end of the run in words.

With `--json` nothing but the JSON goes to standard output, so everything else is said on standard error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gatewayd.demo.comparison import HOW, OtherFleet, OurConnects, side_by_side
from gatewayd.demo.summary import Criterion, Summary

PLAIN_EVERY_SECONDS = 5.0
NEVER_WANTED = ("401003", "404104", "400027")


@dataclass(frozen=True, slots=True)
class Glance:
    """One fleet at one moment."""

    title: str
    devices: int
    connected: int = 0
    at_hub: int = 0
    due: int = 0
    sent: int = 0
    receipted: int = 0
    messages_at_hub: int = 0
    connects_last_second: int = 0
    connects_peak: int = 0
    renewals: int = 0
    hub_errors: Mapping[str, int] = field(default_factory=dict)
    renewals_failed: int | None = None
    rss_kib: int | None = None


class Screen(Protocol):
    """Where a run is shown."""

    def show(self, elapsed: float, duration: float, glances: list[Glance]) -> None: ...
    def say(self, text: str) -> None: ...
    def __enter__(self) -> Screen: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LiveScreen:
    """A table that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Redrawn when there is something new; a refresh of its own would need a thread.
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, elapsed: float, duration: float, glances: list[Glance]) -> None:
        self._live.update(progress_table(elapsed, duration, glances), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(Text(text))


class PlainScreen:
    """A line now and then: for a log, a pipe, a build server."""

    def __init__(self, console: Console, every: float = PLAIN_EVERY_SECONDS) -> None:
        self._console = console
        self._every = every
        self._next = 0.0

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def show(self, elapsed: float, duration: float, glances: list[Glance]) -> None:
        if elapsed < self._next:
            return
        self._next = (elapsed // self._every + 1) * self._every
        for glance in glances:
            self.say(glance_line(elapsed, duration, glance))

    def say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def screen_for(console: Console) -> Screen:
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)


def glance_line(elapsed: float, duration: float, glance: Glance) -> str:
    """One moment on one line."""
    memory = "" if glance.rss_kib is None else f", daemon {glance.rss_kib / 1024:.0f} MiB"
    return (
        f"{elapsed:5.0f}/{duration:.0f} s  {glance.title}: {glance.connected}/{glance.devices} connected, "
        f"{glance.at_hub} at the hub, {glance.receipted}/{glance.due} receipted, {glance.renewals} renewals, "
        f"{glance.connects_last_second} connects/s (peak {glance.connects_peak}), "
        f"hub errors: {errors_text(glance.hub_errors)}{memory}"
    )


def progress_table(elapsed: float, duration: float, glances: list[Glance]) -> Table:
    """One moment, a column for each fleet."""
    table = Table(title=f"{min(elapsed, duration):.0f} of {duration:.0f} s", title_justify="left")
    table.add_column("")
    for glance in glances:
        table.add_column(glance.title, justify="right")

    def row(name: str, *cells: Text | str) -> None:
        table.add_row(name, *cells)

    row("devices connected", *(f"{g.connected:,} of {g.devices:,}" for g in glances))
    row("connected at the hub", *(f"{g.at_hub:,}" for g in glances))
    row("hub connects, last second", *(f"{g.connects_last_second:,}" for g in glances))
    row("hub connects, most in a second", *(f"{g.connects_peak:,}" for g in glances))
    row("renewals", *(f"{g.renewals:,}" for g in glances))
    row("messages due / sent", *(f"{g.due:,} / {g.sent:,}" for g in glances))
    row("messages receipted / at the hub", *(f"{g.receipted:,} / {g.messages_at_hub:,}" for g in glances))
    seen = {code for glance in glances for code in glance.hub_errors}
    for code in (*NEVER_WANTED, *sorted(seen - set(NEVER_WANTED))):
        row(f"hub error {code}", *(_count(glance.hub_errors.get(code, 0)) for glance in glances))
    if any(glance.rss_kib is not None for glance in glances):
        row(
            "renewals to be tried again",
            *("" if g.renewals_failed is None else _count(g.renewals_failed) for g in glances),
        )
        row("daemon memory", *("" if g.rss_kib is None else f"{g.rss_kib / 1024:.1f} MiB" for g in glances))
    return table


def summary_table(summary: Summary) -> Table:
    """The end of the run."""
    table = Table(title="What was measured", title_justify="left", show_header=False)
    gap, drain = summary.renewal_gap_ms, summary.renewal_drain_ms
    for name, value in (
        ("devices", f"{summary.devices:,}"),
        ("duration", f"{summary.duration_s:g} s"),
        ("renewals", f"{summary.renewals:,}"),
        ("renewals a second", f"{summary.renewals_mean_per_s:.1f} mean, {summary.renewals_peak_per_s} most"),
        ("hub connects, most in a second", f"{summary.connects_peak_per_s}"),
        ("renewal gap", f"{gap.p50:g} ms median, {gap.p99:g} ms p99, {gap.max:g} ms most"),
        ("renewal drain", f"{drain.p50:g} ms median, {drain.p99:g} ms p99, {drain.max:g} ms most"),
        ("messages scheduled / sent", f"{summary.messages_scheduled:,} / {summary.messages_sent:,}"),
        ("messages receipted / at the hub", f"{summary.messages_receipted:,} / {summary.messages_at_hub:,}"),
        ("lost / duplicates", f"{summary.lost:,} / {summary.duplicates:,}"),
        ("hub errors", errors_text(summary.hub_errors)),
        ("daemon memory for a device", f"{summary.rss_kib_per_device:.1f} KiB"),
        ("signing engine", summary.engine),
    ):
        table.add_row(name, value)
    return table


def comparison_table(summary: Summary, seen: OurConnects, other: OtherFleet) -> Table:
    """Both fleets side by side."""
    table = Table(
        title="The same fleet, both ways",
        title_justify="left",
        caption=f"As the SDKs do: {HOW[other.policy]}.",
        caption_justify="left",
    )
    table.add_column("")
    table.add_column("through gatewayd", justify="right")
    table.add_column("as the SDKs do", justify="right")
    for row in side_by_side(summary, seen, other):
        table.add_row(row.name, row.ours, row.theirs)
    return table


def verdict_lines(criteria: list[Criterion]) -> Group:
    """Each criterion with its answer."""
    return Group(
        *(
            Text.assemble(
                (
                    "  yes  " if criterion.passed else "  NO   ",
                    "bold green" if criterion.passed else "bold red",
                ),
                f"{criterion.wanted}: {criterion.found}",
            )
            for criterion in criteria
        )
    )


def errors_text(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} x {code}" for code, count in errors.items()) or "none"


def _count(count: int | None) -> Text:
    if count is None:
        return Text()
    return Text(f"{count:,}", style="bold red" if count else "green")
