"""An emulated hub with its remote control, and a client of that over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from gatewayd.emulator.control import ControlServer
from tests.support.emulated_hub import DeskHub, emulated_hub


class Remote:
    """A client of the control interface."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, method: str, path: str, expected: int = 200, /, **body: object) -> Any:
        async with self._session.request(method, path, json=body or None) as response:
            answer = await response.json()
            assert response.status == expected, answer
            return answer

    async def text(self, method: str, path: str) -> str:
        async with self._session.request(method, path) as response:
            assert response.status == 200
            return await response.text()


@asynccontextmanager
async def controlled(*identities: str) -> AsyncIterator[tuple[DeskHub, Remote]]:
    async with emulated_hub(*identities) as desk:
        control = ControlServer(desk.hub)
        await control.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{control.port}") as session:
                yield desk, Remote(session)
        finally:
            await control.close()
