"""The status page: what a person wants to see first, as plain HTML. Pure.

A snapshot is taken when the page is asked for, is frozen, and is shown without looking anywhere else. Every text is
escaped: device ids and reasons are strangers' words. Lists are cut at a written length and say how much was left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

# What fits one screen; beyond it /metrics and the log are the place to look.
SHOWN = 20

_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.2em .8em;text-align:left;"
    "border-bottom:1px solid #ccc;vertical-align:top}.no{color:#a00}.yes{color:#070}"
)


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A renewal that is placed: whose, and at which wall time."""

    identity: str
    at: float


@dataclass(frozen=True, slots=True)
class SeenRefusal:
    """A refusal that happened: when (wall time), to whom, what it means and what to do."""

    at: float
    identity: str
    code: int
    name: str
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """The daemon at one moment. Times are wall seconds; None where nothing is scheduled."""

    taken_at: float
    version: str
    engine: str
    hub: str
    ready: bool
    reasons: tuple[str, ...]
    devices: tuple[tuple[str, int], ...]
    earliest_expiry: Upcoming | None = None
    next_renewals: tuple[Upcoming, ...] = ()
    refusals: tuple[SeenRefusal, ...] = ()


def status_page(snapshot: StatusSnapshot) -> str:
    """The page."""
    state = '<b class="yes">ready</b>' if snapshot.ready else '<b class="no">not ready</b>'
    total = sum(count for _, count in snapshot.devices)
    return "".join(
        (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>gatewayd</title>',
            '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="10">',
            f"<style>{_STYLE}</style></head><body><h1>gatewayd: {state}</h1>",
            f"<p>{escape(snapshot.hub)}, {_instant(snapshot.taken_at)}, version {escape(snapshot.version)}, ",
            f"signer {escape(snapshot.engine)}</p>",
            _reasons(snapshot.reasons),
            f"<h2>Devices: {total}</h2>",
            _table(("state", "devices"), ((state, str(count)) for state, count in snapshot.devices)),
            "<h2>Tokens</h2>",
            _earliest(snapshot),
            _upcoming(snapshot),
            "<h2>Last refusals</h2>",
            _refusals(snapshot.refusals),
            "</body></html>\n",
        )
    )


def _reasons(reasons: tuple[str, ...]) -> str:
    if not reasons:
        return ""
    return "<ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in reasons[:SHOWN]) + "</ul>"


def _earliest(snapshot: StatusSnapshot) -> str:
    first = snapshot.earliest_expiry
    if first is None:
        return "<p>No token is in use.</p>"
    left = first.at - snapshot.taken_at
    verdict = f"in {left:.0f} s" if left >= 0 else f'<b class="no">{-left:.0f} s ago</b>'
    return f"<p>Earliest expiry: {escape(first.identity)}, {_instant(first.at)}, {verdict}</p>"


def _upcoming(snapshot: StatusSnapshot) -> str:
    if not snapshot.next_renewals:
        return "<p>No renewal is placed.</p>"
    rows = (
        (one.identity, _instant(one.at), f"{one.at - snapshot.taken_at:.0f} s")
        for one in snapshot.next_renewals[:SHOWN]
    )
    return _table(("next renewals", "at", "in"), rows) + _left_out(len(snapshot.next_renewals))


def _refusals(refusals: tuple[SeenRefusal, ...]) -> str:
    if not refusals:
        return "<p>None.</p>"
    rows = (
        (_instant(one.at), one.identity, f"{one.code} {one.name}", one.cause, one.remedy)
        for one in refusals[:SHOWN]
    )
    return _table(("at", "device", "code", "cause", "what to do"), rows) + _left_out(len(refusals))


def _left_out(count: int) -> str:
    return f"<p>{count - SHOWN} more are not shown.</p>" if count > SHOWN else ""


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _instant(wall: float) -> str:
    try:
        return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"{wall:.0f} s"
