"""A process that stores messages and says which ones are acknowledged, to be killed at any moment.

    python -m tests.support.storing_child PATH FIRST WHEN

Messages are numbered from FIRST on; a line on standard output is the number of one that was acknowledged. WHEN is
"stored" for what the store promises, "asked" for the fault that a checker must catch: the line comes before the commit.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gatewayd.store.messages import Health
from tests.support.outbox_rig import new, open_store

AT_ONCE = 20


async def main(path: Path, first: int, too_early: bool) -> None:
    rig = await open_store(path)
    room = asyncio.Semaphore(AT_ONCE)

    def acknowledge(number: int) -> None:
        os.write(1, b"%d\n" % number)

    def store(number: int) -> None:
        def done(answer: tuple[int, ...] | Health) -> None:
            room.release()
            if isinstance(answer, tuple) and not too_early:
                acknowledge(number)

        rig.store.append([new(payload=b"%d" % number + bytes(number % 3000))], done)
        if too_early:
            acknowledge(number)

    while True:
        await room.acquire()
        store(first)
        first += 1


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "asked"))
