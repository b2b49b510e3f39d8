"""A real headless Chromium to look at the status page with, where the system has one.

It is the system's own, started through playwright; nothing is downloaded. What it writes to its console and what it
asks of any host is kept, so that a test can look.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

DESKTOP = {"width": 1180, "height": 900}
PHONE = {"width": 390, "height": 844}


class Looked:
    """A page that is open, and what happened in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))

    async def text(self, selector: str) -> str:
        """What a person reads there."""
        return " ".join((await self.page.locator(selector).inner_text()).split())

    async def until_text(self, selector: str, words: str, *, within: float = 15.0) -> None:
        """Until a person reads `words` there."""
        await self.page.locator(selector).get_by_text(words).first.wait_for(timeout=1000 * within)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """The browser, for as long as the block lasts."""
    async with async_playwright() as playwright:
        # Root, as on a build machine, has no sandbox; the pages are our own.
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            await opened.close()


@asynccontextmanager
async def looking(opened: Browser, **options: Any) -> AsyncIterator[Looked]:
    """A page in a context of its own; `options` are playwright's: viewport, color_scheme, java_script_enabled."""
    context = await opened.new_context(**({"viewport": DESKTOP} | options))
    context.set_default_timeout(15_000)
    try:
        yield Looked(await context.new_page())
    finally:
        await context.close()
