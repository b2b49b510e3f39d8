"""The table of devices over real rooms: searched, filtered, sorted, paged, and quick with ten thousand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest

from gatewayd.daemon.device_table import LONGEST_QUERY, LOOK_SECONDS, MOST_ROWS, ROWS, BadQuery, DeviceQuery
from gatewayd.daemon.fleet_facts import DevicePage
from gatewayd.flow.session_notes import NO_CONNECTION, SessionError
from gatewayd.message import Identity
from gatewayd.protocol.iothub.refusals import TABLE
from tests.support.daemon_rooms import LIFETIME, WALL, DaemonRooms, daemon_rooms

CREDENTIAL = next(row for row in TABLE if (row.code, row.cause) == (401003, "credential"))


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[DaemonRooms]:
    """Five devices: two at the hub, one parked, one of another name, a module."""
    with daemon_rooms(tmp_path, "pump-10", "pump-02", "Pump-03", "meter", "meter/flow") as rooms:
        rooms.up("pump-10")
        rooms.loop.run_for(10.0)
        rooms.up("meter/flow")
        park(rooms, "pump-02")
        yield rooms


def park(rooms: DaemonRooms, name: str) -> None:
    identity, now = Identity.parse(name), rooms.clock.monotonic()
    rooms.conductor.want(identity, now)
    assert rooms.conductor.next_command(now) is not None
    rooms.conductor.open_failed(identity, CREDENTIAL.then, now)
    rooms.hub_sessions.notes.error(identity, SessionError(rooms.clock.wall(), CREDENTIAL, "CONNACK 5"))


def listed(rooms: DaemonRooms, query: str = "") -> DevicePage:
    return rooms.status.devices(DeviceQuery.parse(query))


def ids(rooms: DaemonRooms, query: str = "") -> list[str]:
    page = listed(rooms, query)
    assert page.matched == len(page.devices), "small enough for one page"
    return [device.id for device in page.devices]


ALL = ["Pump-03", "meter", "meter/flow", "pump-02", "pump-10"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ALL),
        ("order=desc", ALL[::-1]),
        ("search=PUMP", ["Pump-03", "pump-02", "pump-10"]),
        ("search=%20meter/%20", ["meter/flow"]),
        ("search=nobody", []),
        ("state=up", ["meter/flow", "pump-10"]),
        ("state=parked", ["pump-02"]),
        ("state=absent", ["Pump-03", "meter"]),
        ("state=absent&search=e", ["meter"]),
        ("state=renewing", []),
        ("cause=401003+credential", ["pump-02"]),
        ("cause=no_connection", []),
        ("sort=expires", ["pump-10", "meter/flow", "Pump-03", "meter", "pump-02"]),
        ("sort=expires&order=desc", ["meter/flow", "pump-10", "Pump-03", "meter", "pump-02"]),
        ("sort=error", ["pump-02", "Pump-03", "meter", "meter/flow", "pump-10"]),
        ("sort=state", ["pump-02", "meter/flow", "pump-10", "Pump-03", "meter"]),
        ("sort=state&order=desc&state=up", ["meter/flow", "pump-10"]),
    ],
)
def test_what_is_asked_for_is_found_in_order(rooms: DaemonRooms, query: str, found: list[str]) -> None:
    assert ids(rooms, query) == found


def test_a_row_says_how_its_device_is(rooms: DaemonRooms) -> None:
    rooms.here.present.add(Identity("pump-10"))
    rows = {device.id: device for device in listed(rooms).devices}
    up, parked, absent = rows["pump-10"], rows["pump-02"], rows["meter"]
    session = rooms.conductor.session(Identity("pump-10"))
    assert session is not None
    assert (up.state, up.connected, up.signed, up.expires) == ("up", True, WALL, WALL + LIFETIME)
    assert up.renews == WALL + session.planned
    assert (parked.state, parked.connected, parked.signed, parked.expires) == ("parked", False, None, None)
    assert parked.error is not None
    assert (parked.error.cause, parked.error.at, parked.error.stands) == (
        "401003 credential",
        WALL + 10.0,
        True,
    )
    assert parked.error.remedy == CREDENTIAL.remedy
    assert (absent.state, absent.error) == ("absent", None)


def test_the_latest_error_comes_first(rooms: DaemonRooms) -> None:
    notes = rooms.hub_sessions.notes
    notes.error(Identity("meter"), SessionError(WALL + 99.0, None, "no route"))
    assert ids(rooms, "sort=error")[:2] == ["meter", "pump-02"]
    assert ids(rooms, "sort=error&order=desc")[:2] == ["pump-02", "meter"]
    assert ids(rooms, f"cause={NO_CONNECTION}") == ["meter"]
    notes.well(Identity("meter"))
    assert ids(rooms, f"cause={NO_CONNECTION}") == []
    (row,) = listed(rooms, "search=meter&limit=1").devices
    assert row.error is not None
    assert not row.error.stands


def test_a_page_is_a_part_and_says_of_how_many(rooms: DaemonRooms) -> None:
    page = listed(rooms, "offset=1&limit=2")
    assert [device.id for device in page.devices] == ALL[1:3]
    assert (page.total, page.matched, page.offset) == (5, 5, 1)
    beyond = listed(rooms, "offset=7")
    assert (beyond.devices, beyond.matched) == ((), 5)


def test_a_device_that_comes_is_in_its_state_after_the_next_look(rooms: DaemonRooms) -> None:
    assert ids(rooms, "state=up") == ["meter/flow", "pump-10"]
    rooms.up("meter")
    rooms.loop.run_for(LOOK_SECONDS)
    assert ids(rooms, "state=up") == ["meter", "meter/flow", "pump-10"]
    rooms.conductor.unwant(Identity("pump-02"), rooms.clock.monotonic())
    rooms.loop.run_for(LOOK_SECONDS)
    assert ids(rooms, "state=parked") == []
    assert "pump-02" in ids(rooms, "state=absent")


def test_keys_that_are_loaded_anew_are_seen(rooms: DaemonRooms, tmp_path: Path) -> None:
    assert len(ids(rooms)) == 5
    more = tmp_path / "more.csv"
    more.write_text(f"extra,{'A' * 43}=,\n")
    rooms.keyring.load(more, check_permissions=False)
    assert "extra" in ids(rooms)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("state=lost", "state: expected one of up,"),
        ("sort=size", "sort: expected one of id, state, expires, error"),
        ("order=up", "order: expected one of asc, desc"),
        ("limit=0", f"limit: expected a whole number from 1 to {MOST_ROWS}"),
        (f"limit={MOST_ROWS + 1}", "limit:"),
        ("limit=٣", "limit:"),
        ("limit=" + "9" * 5000, "longer than"),
        ("offset=-1", "offset:"),
        ("offset=1e3", "offset:"),
        ("offset=", "offset:"),
        ("seach=x", "unknown: seach; allowed: search, state"),
        ("a=b&" * 20, "unknown: a"),
        ("search=" + "x" * LONGEST_QUERY, "longer than"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(query: str, problem: str) -> None:
    with pytest.raises(BadQuery, match=problem):
        DeviceQuery.parse(query)


def test_a_plain_query_is_a_screen_of_all() -> None:
    assert DeviceQuery.parse("") == DeviceQuery()
    assert DeviceQuery().limit == ROWS


def test_ten_thousand_devices_hold_nobody_up(tmp_path: Path) -> None:
    """The bound is loose for a busy machine: benchmarks/bench_status.py has the figures."""
    names = tuple(f"device-{number:05}" for number in range(10_000))
    with daemon_rooms(tmp_path, *names) as rooms:
        for name in names[:9_000]:
            up_at_once(rooms, name)
        listed(rooms)
        for query in ("", "search=07", "state=up", "sort=expires&offset=5000", "state=absent&order=desc"):
            rooms.loop.run_for(LOOK_SECONDS)
            best = min(timed(rooms, query) for _ in range(5))
            assert best < 0.050, query


def up_at_once(rooms: DaemonRooms, name: str) -> None:
    """At the hub without waiting for the budget."""
    identity, now = Identity.parse(name), rooms.clock.monotonic()
    rooms.conductor.want(identity, now)
    while rooms.conductor.next_command(now) is None:
        rooms.loop.run_for(1.0)
        now = rooms.clock.monotonic()
    rooms.conductor.connecting(identity, now)
    rooms.conductor.opened(identity, now, now + 100 * LIFETIME, now)


def timed(rooms: DaemonRooms, query: str) -> float:
    began = perf_counter()
    listed(rooms, query)
    return perf_counter() - began
