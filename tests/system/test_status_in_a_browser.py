"""The status page of a whole gateway in a real browser: figures, bars, search, refresh, token, and who it talks to."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, expect

from gatewayd.daemon.fleet_facts import DeviceFacts, DevicePage
from gatewayd.message import Identity
from gatewayd.upstream.session import State
from tests.support.browser import PHONE, Looked, browser, looking, needs_chromium
from tests.support.fleet_shown import BAD, EVIL, GOOD, NOW
from tests.support.gateway_rig import GatewayRig, gateway_rig
from tests.support.raw_device import RawDevice
from tests.support.status_shot import shown, take

pytestmark = [pytest.mark.system, needs_chromium]

TOKEN = "f81d4fae7dec11d0a765"
NAMES = ("pump-01", "pump-02", "meter")
# What a person reads must stand out from its ground by 4.5 to 1 (WCAG 2.2, 1.4.3): the text that does not.
FAINT_TEXT = """() => {
  const parts = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => rgb.slice(0, 3).map(linear).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = parts(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const one of document.querySelectorAll("body *:not(script, option)")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(`${one.tagName} ${one.className} ${one.textContent}`);
  }
  return faint;
}"""
PICTURE = Path(__file__).parents[2] / "docs" / "status-page.png"


@asynccontextmanager
async def opened(rig: GatewayRig, **options: Any) -> AsyncIterator[Looked]:
    """The gateway's page, which talks to nobody else and complains of nothing."""
    async with browser() as running, looked_at(running, address(rig), **options) as looked:
        yield looked


@asynccontextmanager
async def looked_at(running: Browser, url: str, **options: Any) -> AsyncIterator[Looked]:
    async with looking(running, **options) as looked:
        await looked.page.goto(url)
        yield looked
        assert looked.said == []
        assert {urlsplit(one).netloc for one in looked.asked} == {urlsplit(url).netloc}


def address(rig: GatewayRig) -> str:
    return f"http://127.0.0.1:{rig.site.metrics_port}/"


async def fetched(rig: GatewayRig, path: str) -> Any:
    """What a script gets, asked by another client than the browser."""

    def ask() -> Any:
        with urllib.request.urlopen(address(rig) + path, timeout=5) as answer:
            return json.load(answer)

    return await asyncio.to_thread(ask)


async def at_hub(rig: GatewayRig, *names: str) -> list[RawDevice]:
    devices = [await RawDevice.connect(rig.site, name) for name in names]
    await rig.until(lambda: all(rig.gateway.conductor.state(Identity(name)) is State.UP for name in names))
    return devices


async def test_the_page_shows_the_gateway_as_it_is_and_follows_it(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, *NAMES, session='linger = "0s"') as rig:
        first, second = await at_hub(rig, "pump-01", "pump-02")
        async with opened(rig) as looked:
            fleet = await looked.text(".fleet")
            assert fleet.startswith("Devices 3 2 connected here")
            assert "at the hub 2" in fleet
            assert "not needed 1" in fleet
            assert await looked.text("#verdict") == "●ready"
            assert await looked.text("#found") == "3 devices"
            said = await fetched(rig, "api/fleet")
            assert said["devices"] == {"total": 3, "connected": 2, "by_state": said["devices"]["by_state"]}
            assert said["devices"]["by_state"]["up"] == 2
            # It leaves, nobody touches the page, and the page says so.
            await second.disconnect()
            await looked.until_text(".fleet", "1 connected here")
            assert "not needed 2" in await looked.text(".fleet")
            assert (await fetched(rig, "api/devices?search=pump-02"))["devices"][0]["state"] == "absent"
        await first.close()


async def test_bars_stand_where_renewals_were_done_and_are_planned(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, *NAMES, lifetime=10) as rig:
        devices = await at_hub(rig, *NAMES)
        notes = rig.gateway.hub_sessions.notes
        await rig.until(lambda: sum(one.done for one in notes.minutes(rig.clock.monotonic())) >= 3, within=30)
        async with opened(rig) as looked:
            bars = await looked.page.locator(".chart rect").evaluate_all(
                "all => all.map(one => [one.getAttribute('class'), Math.floor(one.getAttribute('x')), "
                "one.getBoundingClientRect().height])"
            )
            said = (await fetched(rig, "api/fleet"))["renewals"]
        drawn = {(kind, minute) for kind, minute, height in bars if height > 1}
        done = {("done", place) for place, minute in enumerate(said["minutes"]) if minute["done"]}
        assert done
        assert done <= drawn
        assert any(kind == "planned" for kind, _ in drawn)
        assert not any(minute > 62 for _, minute in drawn), (
            "a token of 10 s is renewed within the next minute"
        )
        for device in devices:
            await device.close()


async def test_searching_and_filtering_need_no_reload_and_stay_in_the_address(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, *NAMES) as rig:
        (device,) = await at_hub(rig, "pump-02")
        async with opened(rig) as looked:
            await looked.page.evaluate("window.kept = 'since the load'")
            await looked.page.get_by_label("Search ids").fill("PUMP")
            await looked.until_text("#found", "2 of 3 devices")
            ids = looked.page.locator(".devices tbody th")
            assert await ids.all_inner_texts() == ["pump-01", "pump-02"]
            assert urlsplit(looked.page.url).query == "search=PUMP"
            await looked.page.get_by_label("State").select_option("up")
            await looked.until_text("#found", "1 of 3 devices")
            assert await ids.all_inner_texts() == ["pump-02"]
            await looked.page.get_by_role("link", name="show all").click()
            await looked.until_text("#found", "3 devices")
            await looked.page.get_by_role("link", name="device", exact=True).click()
            await expect(ids).to_have_text(["pump-02", "pump-01", "meter"])
            await looked.page.go_back()
            await expect(ids).to_have_text(["meter", "pump-01", "pump-02"])
            assert await looked.page.evaluate("window.kept") == "since the load"
        await device.close()


async def test_a_device_that_the_hub_refuses_is_found_under_its_cause_with_what_to_do(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, *NAMES) as rig:
        (good,) = await at_hub(rig, "pump-01")
        rig.hub.hub.registry.remove("meter")
        refused = await RawDevice.connect(rig.site, "meter")
        await rig.until(lambda: bool(rig.gateway.hub_sessions.notes.standing))
        async with opened(rig) as looked:
            causes = await looked.text(".causes tbody")
            assert causes.startswith("■401003 credential")
            assert "its key was regenerated" in causes
            await looked.page.get_by_role("link", name="show these 1 devices").click()
            await looked.until_text("#found", "1 of 3 devices")
            assert await looked.page.locator(".devices tbody th").all_inner_texts() == ["meter"]
        await good.close()
        await refused.close()


async def test_the_token_opens_the_page_and_nothing_opens_without_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    async with gateway_rig(tmp_path, *NAMES, metrics='token_file = "token"') as rig, opened(rig) as looked:
        assert urlsplit(looked.page.url).path == "/login"
        assert "pump" not in await looked.page.content()
        await looked.page.get_by_label("Token").fill(TOKEN)
        await looked.page.keyboard.press("Enter")
        await looked.until_text(".fleet", "0 connected here")
        (cookie,) = await looked.page.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert await looked.page.evaluate("document.cookie") == "", "no script reads it"
        await looked.page.get_by_role("button", name="Log out").click()
        await looked.page.get_by_label("Token").wait_for()


async def test_without_a_script_the_page_is_whole_and_its_search_works(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, *NAMES) as rig, opened(rig, java_script_enabled=False) as looked:
        assert (await looked.text(".fleet")).startswith("Devices 3 0 connected here")
        await looked.page.get_by_label("Search ids").fill("met")
        await looked.page.get_by_role("button", name="Show").click()
        await looked.until_text("#found", "1 of 3 devices")
        assert await looked.page.locator(".devices tbody th").all_inner_texts() == ["meter"]


async def test_a_gateway_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    async with browser() as running, looking(running) as looked:
        async with gateway_rig(tmp_path, *NAMES) as rig:
            await looked.page.goto(address(rig))
        await looked.until_text("#stale", "gatewayd has not answered since")
        assert (await looked.text(".fleet")).startswith("Devices 3"), "what was known stays"


async def test_names_that_are_markup_are_text() -> None:
    facts = replace(GOOD, hub=EVIL, causes=(replace(GOOD.causes[0], words=EVIL, last_device=EVIL),))
    rows = DevicePage(NOW, 1, 1, 0, (DeviceFacts(EVIL, "up", connected=True),))
    async with shown(facts, rows) as url, browser() as running, looked_at(running, url) as looked:
        assert await looked.page.locator(".devices tbody th").inner_text() == EVIL
        assert EVIL in await looked.page.locator(".about").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_is_cut_off_on_a_phone_and_text_stands_out_in_both_schemes(scheme: str) -> None:
    as_on = {"viewport": PHONE, "color_scheme": scheme}
    async with shown(BAD) as url, browser() as running, looked_at(running, url, **as_on) as looked:
        assert await looked.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert await looked.page.evaluate(FAINT_TEXT) == []


async def test_a_keyboard_reaches_the_search_and_the_rows() -> None:
    async with shown(GOOD) as url, browser() as running, looked_at(running, url) as looked:
        reached = []
        for _ in range(30):
            await looked.page.keyboard.press("Tab")
            reached.append(
                await looked.page.evaluate("document.activeElement.innerText || document.activeElement.name")
            )
        for target in ("Skip to the devices", "search", "state", "device ↑", "on →"):
            assert target in reached


async def test_the_picture_in_the_documents_can_be_taken_again(tmp_path: Path) -> None:
    taken = tmp_path / "page.png"
    await take(taken)
    for picture in (taken, PICTURE):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 150_000
