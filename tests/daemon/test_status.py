"""How the daemon says it is: probes, page and gauges, from the state of its rooms."""

from __future__ import annotations

from pathlib import Path

from gatewayd.daemon.heartbeat import PROMISED_SECONDS, ROOM
from gatewayd.daemon.status_page import SHOWN, status_page
from gatewayd.flow.hub_sessions import NotedRefusal
from gatewayd.message import Identity
from gatewayd.protocol.iothub.refusals import Ask, classify_connack
from gatewayd.protocol.mqtt.faults import ConnackCode
from tests.support.daemon_rooms import LIFETIME, WALL, DaemonRooms, daemon_rooms
from tests.support.emulated_hub import HOSTNAME

DEV = Identity("dev-01")


def reasons(rooms: DaemonRooms) -> tuple[str, ...]:
    verdict = rooms.status.ready()
    assert verdict.good is not bool(verdict.reasons)
    return verdict.reasons


def fail(rooms: DaemonRooms, name: str) -> None:
    """An identity that is wanted, and could not be opened."""
    identity, now = Identity.parse(name), rooms.clock.monotonic()
    rooms.conductor.want(identity, now)
    assert rooms.conductor.next_command(now) is not None
    rooms.conductor.open_failed(identity, Ask.WAIT, now)


def test_it_is_ready_between_its_start_and_its_end(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        assert reasons(rooms) == ("gatewayd is starting",)
        rooms.status.started = True
        assert reasons(rooms) == ()
        rooms.status.stopping = True
        assert reasons(rooms) == ("gatewayd is stopping",)


def test_a_wrong_clock_is_a_reason(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01", wall=1000.0) as rooms:
        rooms.status.started = True
        assert reasons(rooms) == ("the wall clock is known wrong, nothing is signed: set it",)
        rooms.clock.offset = WALL
        assert reasons(rooms) == ()


def test_a_fleet_of_which_nobody_is_at_the_hub_is_a_reason_and_one_that_is_will_do(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01", "dev-02", "dev-03") as rooms:
        rooms.status.started = True
        fail(rooms, "dev-01")
        fail(rooms, "dev-02")
        assert reasons(rooms) == ("none of 2 wanted identities is at the hub",)
        rooms.up("dev-03")
        assert reasons(rooms) == ()


def test_a_session_that_has_not_failed_yet_is_no_reason(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        rooms.status.started = True
        rooms.conductor.want(DEV, 0.0)
        assert reasons(rooms) == ()


def test_it_is_alive_while_every_room_keeps_its_promise(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        rooms.progress.expect(ROOM, PROMISED_SECONDS, 0.0)
        assert rooms.status.alive().good
        rooms.loop.run_for(PROMISED_SECONDS + 1.0)
        verdict = rooms.status.alive()
        assert not verdict.good
        assert verdict.reasons[0].startswith("renewal has not reported for 11.0 s")


def test_every_identity_with_a_key_is_counted_in_one_state(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01", "dev-02", "dev-03", "dev-04") as rooms:
        rooms.up("dev-01")
        fail(rooms, "dev-02")
        states = ("absent", "queued", "up", "backoff", "parked", "renewing")
        counted = {state: rooms.value("gatewayd_devices", state=state) for state in states}
        assert counted == {"absent": 2, "queued": 0, "up": 1, "backoff": 1, "parked": 0, "renewing": 0}
        assert sum(count for _, count in rooms.status.snapshot().devices) == 4


def test_the_gauges_of_the_tokens_are_in_wall_time(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01", "dev-02") as rooms:
        assert rooms.value("gatewayd_token_earliest_expiry_timestamp_seconds") == 0
        rooms.up("dev-01")
        rooms.loop.run_for(100.0)
        rooms.up("dev-02")
        assert rooms.value("gatewayd_token_earliest_expiry_timestamp_seconds") == WALL + LIFETIME
        assert rooms.value("gatewayd_tokens_expired") == 0
        rooms.loop.run_for(LIFETIME - 1.0)
        assert rooms.value("gatewayd_tokens_expired") == 1, "nobody renewed it: no heartbeat beats here"
        assert rooms.value("gatewayd_connect_budget_available") == 10


def test_the_page_shows_the_next_renewals_and_the_first_expiry(tmp_path: Path) -> None:
    names = tuple(f"dev-{number:03}" for number in range(SHOWN + 5))
    with daemon_rooms(tmp_path, *names) as rooms:
        for name in names:
            rooms.up(name)
            rooms.loop.run_for(1.0)
        snapshot = rooms.status.snapshot()
        planned = {str(one.identity): WALL + one.planned for one in rooms.conductor.sessions()}
        assert len(snapshot.next_renewals) == SHOWN + 1, "one more than is shown, so that the page can say so"
        assert [one.at for one in snapshot.next_renewals] == sorted(planned.values())[: SHOWN + 1]
        assert all(planned[one.identity] == one.at for one in snapshot.next_renewals)
        assert snapshot.earliest_expiry is not None
        assert (snapshot.earliest_expiry.identity, snapshot.earliest_expiry.at) == (
            "dev-000",
            WALL + LIFETIME,
        )
        assert (snapshot.hub, snapshot.engine) == (HOSTNAME, rooms.keyring.signer.engine)
        assert "dev-000" in status_page(snapshot)


def test_the_page_shows_the_latest_refusal_first_with_what_to_do(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01", "dev-02") as rooms:
        refusal = classify_connack(ConnackCode.NOT_AUTHORIZED, clock_trusted=True, token_fresh=True).refusal
        for name, at in (("dev-01", WALL), ("dev-02", WALL + 5)):
            rooms.hub_sessions.refusals.append(NotedRefusal(at, Identity.parse(name), refusal))
        seen = rooms.status.snapshot().refusals
        assert [one.identity for one in seen] == ["dev-02", "dev-01"]
        assert (seen[0].code, seen[0].remedy) == (refusal.code, refusal.remedy)
        assert seen[0].remedy
