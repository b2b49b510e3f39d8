"""What the status server answers, asked over real sockets: pages, JSON, probes, and who is turned away."""

from __future__ import annotations

import asyncio
import json
from http.cookies import SimpleCookie

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gatewayd.daemon.device_table import DeviceQuery
from gatewayd.daemon.fleet_facts import Verdict, devices_json, fleet_json
from gatewayd.daemon.status_access import COOKIE, TRIES
from gatewayd.daemon.status_answers import FRESH_SECONDS, KEPT, LOGIN_BYTES, MADE_PER_SECOND
from tests.support.fleet_shown import GOOD, page
from tests.support.status_rig import status_rig

TOKEN = "f81d4fae7dec11d0"
BEARER = f"Bearer {TOKEN}"


async def test_metrics_are_readable_by_a_prometheus_parser() -> None:
    async with status_rig() as rig:
        answer = await rig.ask("/metrics")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
        assert families["gatewayd_things"].samples[0].value == 3.0
        assert "gatewayd_tokens_expired" in families


async def test_liveness_and_readiness_say_why_not() -> None:
    async with status_rig() as rig:
        answer = await rig.ask("/livez")
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok", "reasons": []})
        assert answer.headers["content-type"].startswith("application/json")
        rig.ready = Verdict(False, ("the clock is known wrong", "no device is connected"))
        answer = await rig.ask("/readyz")
        assert answer.status == 503
        assert json.loads(answer.body)["reasons"] == ["the clock is known wrong", "no device is connected"]
        assert (await rig.ask("/livez")).status == 200, "one does not answer for the other"
        rig.alive = Verdict(False, ("renewal has not reported",))
        assert (await rig.ask("/livez")).status == 503


async def test_the_page_is_html_that_may_load_nothing_but_its_own_files() -> None:
    async with status_rig() as rig:
        answer = await rig.ask("/?search=pump&state=up")
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert rig.asked == [DeviceQuery(search="pump", state="up")]
        policy = dict(
            rule.partition(" ")[::2] for rule in answer.headers["content-security-policy"].split("; ")
        )
        assert policy["default-src"] == "'none'"
        assert set(policy.values()) == {"'none'", "'self'"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert b"contoso.azure-devices.net" in answer.body


@pytest.mark.parametrize(
    ("name", "kind"),
    [("status.css", "text/css"), ("status.js", "text/javascript"), ("status.svg", "image/svg+xml")],
)
async def test_its_files_are_kept_by_the_browser(name: str, kind: str) -> None:
    async with status_rig() as rig:
        answer = await rig.ask(f"/static/{name}?mark")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "max-age" in answer.headers["cache-control"]


async def test_scripts_get_the_fleet_and_devices_as_json() -> None:
    async with status_rig() as rig:
        answer = await rig.ask("/api/fleet")
        assert answer.headers["content-type"].startswith("application/json")
        assert json.loads(answer.body) == fleet_json(GOOD)
        answer = await rig.ask("/api/devices?search=a%20b&sort=error&order=desc&offset=5&limit=7")
        assert rig.asked == [DeviceQuery(search="a b", sort="error", descending=True, offset=5, limit=7)]
        assert json.loads(answer.body) == devices_json(page())


async def test_a_script_is_told_what_is_wrong_with_its_query_and_a_person_gets_the_page() -> None:
    async with status_rig() as rig:
        answer = await rig.ask("/api/devices?limit=many")
        assert answer.status == 400
        assert "limit: expected a whole number" in json.loads(answer.body)["error"]
        assert (await rig.ask("/?limit=many")).status == 200
        assert rig.asked == [DeviceQuery()]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/nothing", "GET", 404),
        ("/static/", "GET", 404),
        ("/static/../status.py", "GET", 404),
        ("/../etc/passwd", "GET", 404),
        ("/metrics", "POST", 405),
        ("/login", "POST", 405),
        ("/", "DELETE", 405),
    ],
)
async def test_anything_else_is_refused(path: str, method: str, status: int) -> None:
    async with status_rig() as rig:
        assert (await rig.ask(path, method)).status == status


async def test_a_head_request_gets_no_body() -> None:
    async with status_rig() as rig:
        answer = await rig.ask("/metrics", "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers["content-length"]) > 0


async def test_a_name_that_somebody_points_here_shows_no_device() -> None:
    async with status_rig() as rig:
        for path in ("/", "/api/devices", "/api/fleet"):
            answer = await rig.ask(path, host="attacker.example")
            assert answer.status == 421
            assert b"pump" not in answer.body
        assert (await rig.ask("/metrics", host="gateway.example")).status == 200


# Cost


async def test_many_scrapers_cost_one_collection_a_second() -> None:
    async with status_rig() as rig:
        loop = asyncio.get_running_loop()
        before, began = rig.collected, loop.time()
        answers = [await rig.ask("/metrics") for _ in range(50)]
        assert all(answer.status == 200 for answer in answers)
        assert rig.collected - before <= 1 + int(loop.time() - began)


async def test_one_question_is_answered_once_a_second_and_another_anew() -> None:
    async with status_rig() as rig:
        rig.shift = -asyncio.get_running_loop().time()  # a second that does not pass by itself, nearly
        for _ in range(3):
            await rig.ask("/api/devices?search=a")
        await rig.ask("/api/devices?search=b")
        assert [query.search for query in rig.asked] == ["a", "b"]
        rig.shift += FRESH_SECONDS
        await rig.ask("/api/devices?search=a")
        assert [query.search for query in rig.asked] == ["a", "b", "a"]


async def test_more_different_questions_than_may_be_are_told_to_come_back() -> None:
    async with status_rig() as rig:
        rig.shift = -asyncio.get_running_loop().time()
        answers = [await rig.ask(f"/api/devices?offset={number}") for number in range(MADE_PER_SECOND + 5)]
        turned_away = [answer for answer in answers if answer.status == 503]
        assert turned_away
        assert all(answer.headers["retry-after"] == "1" for answer in turned_away)
        assert len(rig.asked) <= MADE_PER_SECOND + 2 * int(1 + rig.shift + asyncio.get_running_loop().time())
        assert (await rig.ask("/livez")).status == 200, "probes are answered whatever others ask"
        rig.shift += 1.0
        assert (await rig.ask("/api/devices?offset=77")).status == 200


async def test_no_more_answers_are_kept_than_written() -> None:
    async with status_rig() as rig:
        for number in range(2 * KEPT):
            rig.shift += 1.0
            await rig.ask(f"/api/devices?offset={number}")
        assert len(rig.answers._fresh._kept) == KEPT


# The token


@pytest.mark.parametrize("path", ["/metrics", "/api/fleet", "/api/devices"])
async def test_with_a_token_scripts_show_it(path: str) -> None:
    async with status_rig(token=TOKEN, wide=True) as rig:
        answer = await rig.ask(path)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert b"metrics.token_file" in answer.body
        assert (await rig.ask(path, Authorization="Bearer 0000000000000000")).status == 401
        assert (await rig.ask(path, Authorization=BEARER)).status == 200


async def test_probes_and_files_ask_nobody() -> None:
    async with status_rig(token=TOKEN, wide=True) as rig:
        for path in ("/livez", "/readyz", "/static/status.css"):
            assert (await rig.ask(path, host="gateway.example")).status == 200


async def test_a_person_is_led_to_the_form_and_through_it() -> None:
    async with status_rig(token=TOKEN, wide=True) as rig:
        answer = await rig.ask("/")
        assert (answer.status, answer.headers["location"]) == (303, "login")
        assert b"pump" not in answer.body
        form = await rig.ask("/login")
        assert form.status == 200
        assert b'name="token"' in form.body
        assert "frame-ancestors 'none'" in form.headers["content-security-policy"]
        answer = await rig.log_in(TOKEN)
        assert (answer.status, answer.headers["location"]) == (303, "./")
        cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
        assert TOKEN not in cookie.value
        shown = await rig.ask("/", Cookie=f"{COOKIE}={cookie.value}")
        assert shown.status == 200
        assert b"Log out" in shown.body
        assert (await rig.ask("/api/fleet", Cookie=f"{COOKIE}={cookie.value}")).status == 200


async def test_the_way_out_takes_the_cookie_away() -> None:
    async with status_rig(token=TOKEN) as rig:
        answer = await rig.ask("/logout", "POST", body=b"")
        assert answer.status == 303
        assert SimpleCookie(answer.headers["set-cookie"])[COOKIE].value == ""


@pytest.mark.parametrize(
    "body",
    [b"token=0000000000000000", b"token=", b"", b"other=1", b"\xff\xfe=%ff&token=%ff", b"token=" + b"&" * 50],
)
async def test_a_wrong_token_shows_the_form_again_with_what_was_wrong(body: bytes) -> None:
    async with status_rig(token=TOKEN) as rig:
        answer = await rig.ask("/login", "POST", body=body)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers
        assert b"This is not the token in the file of metrics.token_file" in answer.body


async def test_guessing_is_told_to_wait() -> None:
    async with status_rig(token=TOKEN) as rig:
        for _ in range(TRIES):
            assert (await rig.log_in("0000000000000000")).status == 403
        assert (await rig.log_in(TOKEN)).status == 429
        answer = await rig.ask("/metrics", Authorization=BEARER)
        assert (answer.status, answer.headers["retry-after"]) == (429, "10")


@pytest.mark.parametrize("size", [LOGIN_BYTES + 1, 10_000_000])
async def test_a_form_larger_than_a_token_is_not_read(size: int) -> None:
    async with status_rig(token=TOKEN) as rig:
        reader, writer = await rig.connect()
        writer.write(
            f"POST /login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 413")
        writer.close()


async def test_a_form_without_a_length_is_not_read() -> None:
    async with status_rig(token=TOKEN) as rig:
        answer = await rig.ask("/login", "POST", Transfer_Encoding="chunked")
        assert answer.status == 413


async def test_numbers_for_all_are_numbers_only() -> None:
    async with status_rig(wide=True, metrics_for_all=True) as rig:
        assert (await rig.ask("/metrics", host="gateway.example")).status == 200
        for path in ("/", "/api/devices"):
            answer = await rig.ask(path)
            assert answer.status == 403
            assert b"set metrics.token_file" in answer.body


async def test_without_a_token_there_is_no_form() -> None:
    async with status_rig() as rig:
        answer = await rig.ask("/login")
        assert (answer.status, answer.headers["location"]) == (303, "./")
