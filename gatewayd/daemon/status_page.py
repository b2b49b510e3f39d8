"""The status page: what a person wants to see first, as plain HTML that is whole without a script. Pure.

A snapshot is shown without looking anywhere else. Every text is escaped: device ids and reasons are strangers' words.
Searching, sorting and paging are links and a form; the script only saves the reload of the page, and swaps the parts
that carry an id here. Beside each thing that is not well stands what to do. Nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from typing import Final
from urllib.parse import urlencode

from gatewayd.daemon.device_table import DeviceQuery
from gatewayd.daemon.fleet_facts import Cause, DeviceFacts, DevicePage, FleetFacts
from gatewayd.daemon.renewal_chart import chart, rows, summary
from gatewayd.daemon.status_words import STATES, StateWord, Tone

# What fits one screen; beyond it /api, /metrics and the log are the place to look.
SHOWN: Final = 20
REFRESH_SECONDS: Final = 10

_SIGNS: Final = {Tone.GOOD: "●", Tone.BUSY: "◐", Tone.WARN: "▲", Tone.BAD: "■", Tone.QUIET: "○"}
_UNKNOWN: Final = StateWord("unknown", Tone.QUIET, "")
_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def status_page(facts: FleetFacts, page: DevicePage, query: DeviceQuery, *, files: str, login: bool) -> str:
    """The page. `files` marks the version of the static files; `login`: whoever reads it has logged in."""
    return "".join(
        (
            _head("gatewayd", files, refresh=True),
            '<body><a class="skip" href="#devices">Skip to the devices</a>',
            _masthead(facts, login=login),
            '<p id="stale" class="stale" role="alert" hidden></p><main>',
            '<div id="glance">',
            _concerns(facts),
            _tiles(facts),
            _renewals(facts),
            _causes(facts),
            "</div>",
            _devices(facts, page, query),
            "</main>",
            f'<script src="static/status.js?{files}" defer></script></body></html>\n',
        )
    )


def login_page(files: str, *, problem: str = "") -> str:
    """The form for the token."""
    said = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return (
        _head("gatewayd: token", files, refresh=False)
        + '<body class="login"><main><form class="card" method="post" action="login"><h1>gatewayd</h1>'
        + "<p>This page shows the fleet. It asks for the token in the file that "
        + "<code>metrics.token_file</code> names.</p>"
        + said
        # Who keeps passwords in the browser needs a name to keep it under.
        + '<input type="text" name="user" value="gatewayd" autocomplete="username" hidden>'
        + '<label for="token">Token</label><input id="token" name="token" type="password" required autofocus '
        + 'autocomplete="current-password"><button type="submit">Show the fleet</button></form></main></body></html>\n'
    )


def _head(title: str, files: str, *, refresh: bool) -> str:
    again = f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}"></noscript>' if refresh else ""
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" type="image/svg+xml" href="static/status.svg?{files}">'
        f'<link rel="stylesheet" href="static/status.css?{files}">{again}</head>'
    )


def _masthead(facts: FleetFacts, *, login: bool) -> str:
    tone, word = (Tone.GOOD, "ready") if facts.ready else (Tone.BAD, "not ready")
    leave = (
        '<form method="post" action="logout"><button type="submit">Log out</button></form>' if login else ""
    )
    return (
        '<header><div class="brand"><h1>gatewayd</h1>'
        f'<span id="verdict" class="pill {tone.value}">{_sign(tone)}{word}</span></div>'
        f'<p class="about"><span>{escape(facts.hub)}</span> <span id="taken">{_clock_time(facts.taken_at)}</span> '
        f"<span>version {escape(facts.version)}, signer {escape(facts.engine)}</span></p>{leave}</header>"
    )


def _concerns(facts: FleetFacts) -> str:
    if not facts.concerns:
        return ""
    items = "".join(
        f'<li><strong>{escape(one.what)}</strong> <span class="remedy">{escape(one.remedy)}</span></li>'
        for one in facts.concerns[:SHOWN]
    )
    return f'<section class="card concerns" aria-label="What needs somebody"><ul>{items}</ul></section>'


def _tiles(facts: FleetFacts) -> str:
    return f'<div class="tiles">{_fleet(facts)}{_tokens(facts)}{_outbox(facts)}{_clock(facts)}{_reload(facts)}</div>'


def _fleet(facts: FleetFacts) -> str:
    present = [(name, count) for name, count in facts.states if count]
    order = list(STATES)
    present.sort(key=lambda item: order.index(item[0]) if item[0] in STATES else len(order))
    parts, left = [], 0.0
    for name, count in present:
        width = 100.0 * count / max(1, facts.devices)
        tone = STATES.get(name, _UNKNOWN).tone.value
        parts.append(f'<rect class="{tone}" x="{left:.2f}" y="0" width="{width:.2f}" height="6"/>')
        left += width
    words = "".join(
        f'<li><a href="?{urlencode({"state": name})}#devices" title="{escape(word.means)}">'
        f'<span class="{word.tone.value}">{_sign(word.tone)}</span>{escape(word.word)}</a> <b>{_number(count)}</b></li>'
        for name, count, word in (
            (name, count, STATES.get(name, replace(_UNKNOWN, word=name))) for name, count in present
        )
    )
    return (
        f'<section class="card fleet"><h2>Devices</h2><p class="figure">{_number(facts.devices)}</p>'
        f"<p>{_number(facts.connected)} connected here</p>"
        '<svg class="share" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(parts)}</svg><ul class="states">{words}</ul></section>'
    )


def _tokens(facts: FleetFacts) -> str:
    tokens = facts.tokens
    text = "none is in use"
    if tokens.earliest is not None:
        first = tokens.earliest
        ends = "ends" if first.at >= facts.taken_at else "ended"
        text = f"the first {ends} {_when(first.at, facts.taken_at)}<br>{escape(first.device)}"
    expired = (
        f'<p class="bad">{_sign(Tone.BAD)}{_number(tokens.expired)} expired</p>' if tokens.expired else ""
    )
    return _tile("Tokens in use", _number(tokens.in_use), text, expired)


def _outbox(facts: FleetFacts) -> str:
    outbox = facts.outbox
    if outbox is None:
        return ""
    share = min(1.0, outbox.size / outbox.max_bytes) if outbox.max_bytes else 0.0
    tone = Tone.BAD if outbox.remedy else Tone.GOOD
    more = (
        f'<meter min="0" max="1" high="0.8" value="{share:.3f}" aria-label="share of the outbox in use">'
        f"{share:.0%}</meter>"
        f'<p class="{tone.value}">{_sign(tone)}{escape(outbox.health.replace("_", " "))}</p>'
    )
    text = f"{_bytes(outbox.size)} of {_bytes(outbox.max_bytes)} on disk"
    return _tile("In the outbox", _number(outbox.messages), text, more + _remedy(outbox.remedy, facts))


def _clock(facts: FleetFacts) -> str:
    clock = facts.clock
    tone, word = (Tone.GOOD, "good") if clock.trusted else (Tone.BAD, "known wrong")
    if clock.trusted and clock.synchronized is False:
        tone, word = Tone.WARN, "not synchronised"
    figure = f'<span class="{tone.value}">{_sign(tone)}</span>{word}'
    return _tile(
        "Clock",
        figure,
        "tokens are signed" if clock.trusted else "nothing is signed",
        _remedy(clock.remedy, facts),
    )


def _reload(facts: FleetFacts) -> str:
    reload = facts.reload
    tone, word = (Tone.GOOD, "in force") if reload.succeeded else (Tone.BAD, "refused")
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in reload.problems[:SHOWN])
    more = f'<ul class="problems">{problems}</ul>{_remedy(reload.remedy, facts)}' if problems else ""
    figure = f'<span class="{tone.value}">{_sign(tone)}</span>{word}'
    return _tile("Configuration", figure, f"read {_when(reload.at, facts.taken_at)}", more)


def _tile(title: str, figure: str, text: str, more: str = "") -> str:
    return (
        f'<section class="card"><h2>{title}</h2><p class="figure">{figure}</p><p>{text}</p>{more}</section>'
    )


def _renewals(facts: FleetFacts) -> str:
    renewals = facts.renewals
    table = _table(
        ("minutes from now", "done", "failed", "planned"),
        (
            (f"{start} to {start + 10}", _number(done), _number(failed), _number(planned))
            for start, done, failed, planned in rows(renewals)
        ),
    )
    failed = f'<li><i class="failed"></i>{_number(renewals.failed)} failed</li>' if renewals.failed else ""
    return (
        '<section class="card"><h2>Renewals</h2><ul class="legend">'
        f'<li><i class="done"></i>{_number(renewals.done)} done in the last hour</li>{failed}'
        f'<li><i class="planned"></i>{_number(renewals.planned)} planned for the next hour</li></ul>'
        f'<p class="peak">{_number(renewals.peak)} a minute</p>{chart(renewals)}'
        '<div class="axis" aria-hidden="true"><span>1 h ago</span><span>now</span><span>in 1 h</span></div>'
        f'<details id="numbers"><summary>As numbers</summary><p>{summary(renewals)}</p>{table}</details></section>'
    )


def _causes(facts: FleetFacts) -> str:
    if not facts.causes:
        return f'<section class="card"><h2>Errors</h2><p>{_sign(Tone.GOOD)}None since gatewayd started.</p></section>'
    body = "".join(_cause(cause, facts.taken_at) for cause in facts.causes[:SHOWN])
    left = len(facts.causes) - SHOWN
    more = f"<p>{left} more causes are not shown.</p>" if left > 0 else ""
    return (
        '<section class="card"><h2>Errors by cause</h2><div class="scroll" tabindex="0" role="region" '
        'aria-label="Errors by cause"><table class="causes"><thead><tr><th scope="col">cause</th>'
        '<th scope="col" class="count">devices now</th><th scope="col" class="count">times</th>'
        '<th scope="col">last</th><th scope="col">what to do</th></tr></thead><tbody>'
        f"{body}</tbody></table></div>{more}</section>"
    )


def _cause(cause: Cause, now: float) -> str:
    tone = Tone.BAD if cause.standing else Tone.QUIET
    standing = _number(cause.standing)
    if cause.standing:
        link = urlencode({"cause": cause.key})
        standing = (
            f'<a href="?{link}#devices" aria-label="show these {cause.standing} devices">{standing}</a>'
        )
    return (
        f'<tr><th scope="row"><span class="{tone.value}">{_sign(tone)}</span>{escape(cause.key.replace("_", " "))}'
        f'<small>{escape(cause.name)}</small></th><td class="count">{standing}</td>'
        f'<td class="count">{_number(cause.count)}</td>'
        f"<td>{_when(cause.last_at, now)}<small>{escape(cause.last_device)}: {escape(cause.words)}</small></td>"
        f'<td class="remedy">{escape(cause.remedy)}</td></tr>'
    )


def _devices(facts: FleetFacts, page: DevicePage, query: DeviceQuery) -> str:
    options = "".join(
        f'<option value="{name}"{" selected" if name == query.state else ""}>{escape(word.word)}</option>'
        for name, word in STATES.items()
    )
    return (
        '<section class="card" id="devices"><h2>Devices</h2>'
        '<form id="search" role="search" method="get" action="#devices">'
        '<label>Search ids<input type="search" name="search" maxlength="257" autocomplete="off" spellcheck="false" '
        f'value="{escape(query.search)}"></label><label>State<select name="state"><option value="">every state</option>'
        f'{options}</select></label>{_hidden(query)}<button type="submit">Show</button></form>'
        f'<p id="found" role="status">{_found(page, query)}</p><div id="table">{_rows(page, query)}</div></section>'
    )


def _hidden(query: DeviceQuery) -> str:
    """What the form keeps beside its two fields."""
    kept = {"cause": query.cause, "sort": query.sort if query.sort != "id" else "", "order": _order(query)}
    return "".join(
        f'<input type="hidden" name="{name}" value="{escape(word)}">' for name, word in kept.items() if word
    )


def _found(page: DevicePage, query: DeviceQuery) -> str:
    narrowed = query.search or query.state or query.cause
    text = (
        f"{_number(page.matched)} of {_number(page.total)} devices"
        if narrowed
        else f"{_number(page.total)} devices"
    )
    if query.cause:
        text += f", whose last error is {escape(query.cause.replace('_', ' '))}"
    return f'{text} <a href="?#devices">show all</a>' if narrowed else text


def _rows(page: DevicePage, query: DeviceQuery) -> str:
    if not page.devices:
        return "<p>No device here. Search for another part of the id, or take the filter away.</p>"
    heads = "".join(
        _sortable(title, column, query)
        for title, column in (
            ("device", "id"),
            ("state", "state"),
            ("token", "expires"),
            ("last error", "error"),
        )
    )
    body = "".join(_row(device, page.taken_at) for device in page.devices)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Devices"><table class="devices"><thead><tr>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div>{_pager(page, query)}"
    )


def _sortable(title: str, column: str, query: DeviceQuery) -> str:
    current = query.sort == column
    link = _link(replace(query, sort=column, descending=current and not query.descending, offset=0))
    sorted_ = f' aria-sort="{"descending" if query.descending else "ascending"}"' if current else ""
    arrow = f'<span aria-hidden="true"> {"↓" if query.descending else "↑"}</span>' if current else ""
    return f'<th scope="col"{sorted_}><a id="by-{column}" href="{link}">{title}{arrow}</a></th>'


def _row(device: DeviceFacts, now: float) -> str:
    word = STATES.get(device.state, replace(_UNKNOWN, word=device.state))
    here = "" if device.connected or word.tone is Tone.QUIET else "<small>its device is not connected</small>"
    life = "–"
    if device.expires is not None and device.signed is not None:
        renews = "" if device.renews is None else f", renewal {_when(device.renews, now)}"
        life = f"ends {_when(device.expires, now)}<small>{_span(now - device.signed)} old{renews}</small>"
    error = device.error
    said = "–"
    if error is not None:
        remedy = f'<small class="remedy">{escape(error.remedy)}</small>' if error.stands else ""
        past = "" if error.stands else ", well since"
        said = f"{escape(error.cause.replace('_', ' '))} {_when(error.at, now)}{past}{remedy}"
    return (
        f'<tr><th scope="row">{escape(device.id)}</th><td data-label="state"><span class="{word.tone.value}">'
        f'{_sign(word.tone)}</span>{escape(word.word)}{here}</td><td data-label="token">{life}</td>'
        f'<td data-label="last error">{said}</td></tr>'
    )


def _pager(page: DevicePage, query: DeviceQuery) -> str:
    if page.matched <= query.limit and not query.offset:
        return ""
    last = page.offset + len(page.devices)
    before = replace(query, offset=max(0, query.offset - query.limit))
    after = replace(query, offset=query.offset + query.limit)
    back = f'<a id="back" rel="prev" href="{_link(before)}">← back</a>' if query.offset else ""
    on = f'<a id="on" rel="next" href="{_link(after)}">on →</a>' if last < page.matched else ""
    return (
        f'<nav class="pager" aria-label="Pages of devices">{back}'
        f"<span>{_number(page.offset + 1)} to {_number(last)} of {_number(page.matched)}</span>{on}</nav>"
    )


def _link(query: DeviceQuery) -> str:
    """The way to this query, without what goes without saying."""
    plain = DeviceQuery()
    words = {
        name: value
        for name in ("search", "state", "cause", "sort", "offset", "limit")
        if (value := getattr(query, name)) != getattr(plain, name)
    }
    order = {"order": "desc"} if query.descending else {}
    return escape(f"?{urlencode(words | order)}#devices")


def _order(query: DeviceQuery) -> str:
    return "desc" if query.descending else ""


def _table(heads: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _remedy(text: str, facts: FleetFacts) -> str:
    """What to do, unless it stands among the concerns above already."""
    said = not text or any(text == concern.remedy for concern in facts.concerns)
    return "" if said else f'<p class="remedy">{escape(text)}</p>'


def _sign(tone: Tone) -> str:
    return f'<span class="sign" aria-hidden="true">{_SIGNS[tone]}</span>'


def _number(count: int) -> str:
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _when(at: float, now: float) -> str:
    """An instant as seen from now, and in full for who looks closer."""
    away = at - now
    text = "now" if abs(away) < 1.0 else f"in {_span(away)}" if away > 0 else f"{_span(-away)} ago"
    moment = _utc(at)
    if moment is None:
        return f"{at:.0f} s"
    return (
        f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}" title="{moment:%Y-%m-%d %H:%M:%S} UTC">{text}</time>'
    )


def _span(seconds: float) -> str:
    """A length of time, to its first unit."""
    seconds = max(0.0, seconds)
    for length, unit in _UNITS:
        if seconds >= 2 * length or (unit == "min" and seconds >= 90):
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _clock_time(at: float) -> str:
    moment = _utc(at)
    if moment is None:
        return f"{at:.0f} s"
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'


def _utc(at: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(at, UTC)
    except (OverflowError, OSError, ValueError):
        return None
