"""The picture of the status page in docs/: `python -m tests.support.status_shot docs/status-page.png`.

Serves a made-up fleet through the real server and takes the picture with a real browser. `make docs` does not run it,
because not every machine has a browser; a test that has one looks that the command still makes a picture.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from PIL import Image
from prometheus_client import CollectorRegistry

from gatewayd.daemon.config_values import Endpoint
from gatewayd.daemon.fleet_facts import DevicePage, FleetFacts, Verdict
from gatewayd.daemon.status_access import StatusAccess
from gatewayd.daemon.status_answers import StatusAnswers, StatusSources
from gatewayd.daemon.status_server import StatusServer
from tests.support.browser import DESKTOP, browser, looking
from tests.support.fleet_shown import GOOD, page

# As many as the page has, with the edges of its letters; a third of the size.
COLOURS = 200


@asynccontextmanager
async def shown(facts: FleetFacts = GOOD, rows: DevicePage | None = None) -> AsyncIterator[str]:
    """A server that shows these facts to every query; its address."""
    loop = asyncio.get_running_loop()
    listed = rows or page(6, 40)
    sources = StatusSources(
        CollectorRegistry(), lambda: Verdict(True), lambda: Verdict(True), lambda: facts, lambda query: listed
    )
    access = StatusAccess(None, wide=False, metrics_for_all=False, secret=b"", monotonic=loop.time)
    server = StatusServer(StatusAnswers(sources, access, loop.time).answer)
    address = await server.start(Endpoint("127.0.0.1", 0))
    try:
        yield f"http://{address}/"
    finally:
        await server.close()


async def take(
    path: Path, *, facts: FleetFacts = GOOD, rows: DevicePage | None = None, **options: object
) -> None:
    """A picture of the whole page."""
    async with shown(facts, rows) as url, browser() as opened, looking(opened, **options) as looked:
        await looked.page.goto(url)
        await looked.page.screenshot(path=path, full_page=True, animations="disabled")
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1]), viewport=DESKTOP | {"height": 600}))
