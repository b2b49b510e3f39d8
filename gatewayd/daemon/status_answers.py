"""From a request to the status server to its answer: the paths, who may read them, and how often one is made anew.

Scrapers and people must never slow the renewals down. So what all see is made at most once a second however many ask,
an answer that depends on its query is kept as long, and how many of those are made in a second is bounded: one too many
is told to come back. What is said comes from callables; nothing here knows devices or tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from gatewayd.daemon.device_table import BadQuery, DeviceQuery
from gatewayd.daemon.fleet_facts import DevicePage, FleetFacts, Verdict, devices_json, fleet_json
from gatewayd.daemon.status_access import COOKIE, COOKIE_SECONDS, Access, Asker, StatusAccess
from gatewayd.daemon.status_files import StaticFiles
from gatewayd.daemon.status_page import login_page, status_page

# How old an answer may be. Far below any scrape interval, far above the cost of making one.
FRESH_SECONDS: Final = 1.0
# Different answers kept that long.
KEPT: Final = 32
# Answers made in one second: at some milliseconds each for 10,000 devices, a tenth of the loop at the most.
MADE_PER_SECOND: Final = 20
# A token and the words of the form around it.
LOGIN_BYTES: Final = 4096

# Prometheus text format 0.0.4, which every scraper reads.
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_READ_ONLY: Final = frozenset({"GET", "HEAD"})

_SAID: Final = {
    Access.ASK: (
        401,
        "a token is needed: Authorization: Bearer, with what the file of metrics.token_file holds",
    ),
    Access.WRONG: (
        401,
        "this is not the token in the file of metrics.token_file; a changed file needs a restart",
    ),
    Access.PACED: (429, "too many wrong tokens from this address; try again in ten seconds"),
    Access.CLOSED: (
        403,
        "only numbers are told here: set metrics.token_file to read about devices from outside",
    ),
    Access.FOREIGN: (421, "without a token this is told to localhost and to addresses, not to host names"),
}


@dataclass(frozen=True, slots=True)
class StatusSources:
    """Where the answers come from. Each is called on the event loop and must return at once."""

    registry: CollectorRegistry
    alive: Callable[[], Verdict]
    ready: Callable[[], Verdict]
    fleet: Callable[[], FleetFacts]
    devices: Callable[[DeviceQuery], DevicePage]


class TooMany(Exception):
    """As many answers as may be were made in this second."""


class StatusAnswers:
    """Answers requests."""

    def __init__(self, sources: StatusSources, access: StatusAccess, monotonic: Callable[[], float]) -> None:
        self._sources = sources
        self._access = access
        self._files = StaticFiles()
        self._fresh = _Fresh(monotonic)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer, whatever was asked."""
        path = request.path
        if path in {"/login", "/logout"} and request.method == "POST" and self._access.asks_for_token:
            return await self._log_in(request) if path == "/login" else _log_out()
        if request.method not in _READ_ONLY:
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        if path == "/login":
            return self._login_form()
        access = self._access.judge(path, _asker(request))
        if access is not Access.GRANTED:
            if path == "/" and access in (Access.ASK, Access.WRONG):
                return web.Response(status=303, headers={"Location": "login", **_HEADERS})
            return _refusal(access)
        try:
            return self._tell(path, request.query_string)
        except BadQuery as error:
            return _json({"error": str(error)}, 400)
        except TooMany:
            return web.Response(
                status=503,
                text="too many questions in one second\n",
                headers={"Retry-After": "1", **_HEADERS},
            )

    def _tell(self, path: str, query: str) -> web.Response:
        match path:
            case "/metrics":
                body = self._fresh.get("/metrics", lambda: generate_latest(self._sources.registry))
                return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})
            case "/livez":
                return _verdict(self._sources.alive())
            case "/readyz":
                return _verdict(self._sources.ready())
            case "/":
                return _html(self._page(query))
            case "/api/fleet":
                return _json_body(self._fresh.get("/api/fleet", self._fleet))
            case "/api/devices":
                asked = DeviceQuery.parse(query)
                return _json_body(self._fresh.get(f"/api/devices {asked}", lambda: self._devices(asked)))
            case _:
                return self._file(path)

    def _page(self, query: str) -> bytes:
        try:
            asked = DeviceQuery.parse(query)
        except BadQuery:
            asked = (
                DeviceQuery()
            )  # a person who mangled a link is better served with the page than with a lecture
        return self._fresh.get(
            f"/ {asked}",
            lambda: status_page(
                self._facts(),
                self._sources.devices(asked),
                asked,
                files=self._files.mark,
                login=self._access.asks_for_token,
            ).encode(),
        )

    def _facts(self) -> FleetFacts:
        return self._fresh.facts(self._sources.fleet)

    def _fleet(self) -> bytes:
        return _dumped(fleet_json(self._facts()))

    def _devices(self, asked: DeviceQuery) -> bytes:
        return _dumped(devices_json(self._sources.devices(asked)))

    def _file(self, path: str) -> web.Response:
        file = self._files.find(path.removeprefix("/static/")) if path.startswith("/static/") else None
        if file is None:
            return web.Response(status=404)
        headers = {**_HEADERS, "Cache-Control": "public, max-age=86400"}
        return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=headers)

    def _login_form(self, problem: str = "", status: int = 200) -> web.Response:
        if not self._access.asks_for_token:
            return web.Response(status=303, headers={"Location": "./", **_HEADERS})
        return _html(login_page(self._files.mark, problem=problem).encode(), status)

    async def _log_in(self, request: web.BaseRequest) -> web.Response:
        if request.content_length is None or request.content_length > LOGIN_BYTES:
            return web.Response(status=413)
        form = parse_qs((await request.read()).decode("latin-1"))
        access, cookie = self._access.log_in(
            "".join(form.get("token", [])[:1]).encode(), _asker(request).peer
        )
        if access is not Access.GRANTED:
            status, words = _SAID[access]
            return self._login_form(f"{words[:1].upper()}{words[1:]}.", 403 if status == 401 else status)
        response = web.Response(status=303, headers={"Location": "./", **_HEADERS})
        response.set_cookie(
            COOKIE, cookie, max_age=COOKIE_SECONDS, httponly=True, samesite="Strict", path="/"
        )
        return response


class _Fresh:
    """Answers that are young enough to be given again, and the bound on making others."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kept: dict[str, tuple[float, bytes]] = {}
        self._facts: tuple[float, FleetFacts] | None = None
        self._since = 0.0
        self._made = 0

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The answer to `key`. TooMany when it would have to be made and may not."""
        now = self._monotonic()
        kept = self._kept.pop(key, None)
        if kept is None or now - kept[0] >= FRESH_SECONDS:
            self._spend(now)
            kept = (now, make())
        self._kept[key] = kept
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return kept[1]

    def facts(self, make: Callable[[], FleetFacts]) -> FleetFacts:
        """The fleet at a glance, which is the same whatever is searched for."""
        now = self._monotonic()
        if self._facts is None or now - self._facts[0] >= FRESH_SECONDS:
            self._facts = (now, make())
        return self._facts[1]

    def _spend(self, now: float) -> None:
        if now - self._since >= 1.0:
            self._since, self._made = now, 0
        if self._made >= MADE_PER_SECOND:
            raise TooMany
        self._made += 1


def _asker(request: web.BaseRequest) -> Asker:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return Asker(
        peer=str(peer[0]) if isinstance(peer, tuple) else "",
        host=request.headers.get("Host", ""),
        authorization=request.headers.get("Authorization", ""),
        cookie=request.cookies.get(COOKIE, ""),
    )


def _log_out() -> web.Response:
    response = web.Response(status=303, headers={"Location": "login", **_HEADERS})
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
    return response


def _refusal(access: Access) -> web.Response:
    status, words = _SAID[access]
    headers = dict(_HEADERS)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="gatewayd"'
    if status == 429:
        headers["Retry-After"] = "10"
    return web.Response(status=status, text=f"{words}\n", headers=headers)


def _verdict(verdict: Verdict) -> web.Response:
    said = {"status": "ok" if verdict.good else "not ok", "reasons": list(verdict.reasons)}
    return _json(said, 200 if verdict.good else 503)


def _html(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="text/html", charset="utf-8", headers=_HEADERS)


def _json(said: object, status: int = 200) -> web.Response:
    return _json_body(_dumped(said), status)


def _json_body(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=_HEADERS)


def _dumped(said: object) -> bytes:
    return json.dumps(said).encode() + b"\n"
