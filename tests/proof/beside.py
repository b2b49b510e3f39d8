"""Tasks that live while a block runs, so that a failure of the block is told as it is.

A task group would wrap it, once for each rig around it. What a companion failed with is raised at the end of a block
that did not fail itself; else it is noted on the block's own failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(*companions: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run them until the block ends, then cancel them."""
    tasks = [asyncio.create_task(companion) for companion in companions]
    try:
        yield
    except BaseException as failure:
        for fault in await _end(tasks):
            failure.add_note(f"beside it: {fault!r}")
        raise
    for fault in await _end(tasks):
        raise fault


async def _end(tasks: list[asyncio.Task[None]]) -> list[BaseException]:
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return [
        end for end in ends if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError)
    ]
