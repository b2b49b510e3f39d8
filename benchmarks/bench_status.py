"""What does the status page cost the event loop of a gateway with thousands of devices?

    .venv/bin/python -m benchmarks.bench_status [DEVICES]

Each row is one answer made anew, in process, from 90 % of the devices at the hub and 1 % with an error: first for a
table that was not asked before (sessions have come that no look has seen), then the median and the worst of 50. Time is
the thread's own on the CPU.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time

from gatewayd.daemon.device_table import LOOK_SECONDS, DeviceQuery
from gatewayd.daemon.fleet_facts import devices_json, fleet_json
from gatewayd.daemon.status_page import status_page
from gatewayd.flow.session_notes import SessionError
from gatewayd.message import Identity
from gatewayd.protocol.iothub.refusals import TABLE
from tests.support.daemon_rooms import LIFETIME, DaemonRooms, daemon_rooms

QUERIES = (
    "",
    "offset=9000",
    "limit=200",
    "search=07",
    "state=up",
    "state=up&offset=4500",
    "state=absent",
    "sort=expires",
    "sort=expires&order=desc&offset=5000",
    "sort=state&search=device",
    "sort=error",
)
ROUNDS = 50


def fill(rooms: DaemonRooms, names: tuple[str, ...]) -> None:
    """Sessions at the hub, without a wait for the budget."""
    for name in names:
        identity, now = Identity.parse(name), rooms.clock.monotonic()
        rooms.conductor.want(identity, now)
        while rooms.conductor.next_command(now) is None:
            rooms.loop.run_for(1.0)
            now = rooms.clock.monotonic()
        rooms.conductor.connecting(identity, now)
        rooms.conductor.opened(identity, now, now + 100 * LIFETIME, now)
    for name in names[::100]:
        rooms.hub_sessions.notes.error(
            Identity.parse(name), SessionError(rooms.clock.wall(), TABLE[0], "seen")
        )


def row(rooms: DaemonRooms, title: str, make: Callable[[], object]) -> None:
    took = []
    for _ in range(ROUNDS):
        rooms.loop.run_for(LOOK_SECONDS)
        began = thread_time()
        make()
        took.append(1e3 * (thread_time() - began))
    print(
        f"{title:55} first {took[0]:7.2f} ms   median {statistics.median(took):6.2f} ms   worst {max(took):6.2f} ms"
    )


def devices(rooms: DaemonRooms, query: DeviceQuery) -> str:
    return json.dumps(devices_json(rooms.status.devices(query)))


def main(count: int) -> None:
    names = tuple(f"device-{number:05}" for number in range(count))
    with tempfile.TemporaryDirectory() as folder, daemon_rooms(Path(folder), *names) as rooms:
        fill(rooms, names[: count * 9 // 10])
        status = rooms.status
        began = perf_counter()
        status.devices(DeviceQuery())
        print(f"{'ids sorted, once after the keys are loaded':55} {1e3 * (perf_counter() - began):7.2f} ms")
        for text in QUERIES:
            query = DeviceQuery.parse(text)
            row(rooms, f"/api/devices?{text}", partial(devices, rooms, query))
        row(rooms, "/api/fleet", lambda: json.dumps(fleet_json(status.fleet())))
        plain = DeviceQuery()
        row(
            rooms,
            "/",
            lambda: status_page(status.fleet(), status.devices(plain), plain, files="", login=False),
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
