"""How the daemon says it is: probes, page and gauges, from the state of its rooms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.daemon.fleet_facts import ClockState, Concern, Expiry, Outbox, Reload, Tokens
from gatewayd.daemon.heartbeat import PROMISED_SECONDS, ROOM
from gatewayd.daemon.status_words import CLOCK_UNSYNCHRONIZED, CLOCK_WRONG, health_remedy
from gatewayd.errors import ConfigProblem
from gatewayd.flow.session_notes import NO_CONNECTION, SessionError
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
        assert sum(count for _, count in rooms.status.fleet().states) == 4


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


def test_the_fleet_is_told_with_its_tokens_and_whose_ends_first(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01", "dev-02", "dev-03") as rooms:
        rooms.up("dev-01")
        rooms.loop.run_for(10.0)
        rooms.up("dev-02")
        rooms.here.present.add(DEV)
        facts = rooms.status.fleet()
        assert (facts.hub, facts.engine) == (HOSTNAME, rooms.keyring.signer.engine)
        assert facts.taken_at == WALL + 10.0
        assert (facts.devices, facts.connected) == (3, 1)
        assert dict(facts.states)["up"] == 2
        assert facts.tokens == Tokens(2, 0, Expiry("dev-01", WALL + LIFETIME))
        rooms.loop.run_for(LIFETIME - 5.0)
        facts = rooms.status.fleet()
        assert facts.tokens.expired == 1, "nobody renewed it: no heartbeat beats here"
        assert [one.what for one in facts.concerns if one.remedy] == [
            "gatewayd is starting",
            "tokens in use past their expiry: 1",
        ]


def test_planned_renewals_stand_in_their_minutes_and_done_ones_in_theirs(tmp_path: Path) -> None:
    names = tuple(f"dev-{number:03}" for number in range(25))
    with daemon_rooms(tmp_path, *names) as rooms:
        rooms.loop.run_for(10_000.0)
        for name in names:
            rooms.up(name)
            rooms.loop.run_for(1.0)
        notes, now = rooms.hub_sessions.notes, rooms.clock.monotonic()
        for ago in (3700.0, 600.0, 600.0, 0.0):
            notes.renewal_done(now - ago)
        notes.renewal_failed(now)
        renewals = rooms.status.fleet().renewals
        assert (renewals.done, renewals.failed, renewals.planned) == (3, 1, 25)
        current = renewals.bars[renewals.now]
        assert current.at <= WALL + now < current.at + 60.0
        assert (current.done, current.failed) == (1, 1)
        assert {bar.done for bar in renewals.bars if bar.at <= WALL + now - 600.0 < bar.at + 60.0} == {2}
        for session in rooms.conductor.sessions():
            (bar,) = (bar for bar in renewals.bars if bar.at <= WALL + session.planned < bar.at + 60.0)
            assert bar.planned


def test_a_renewal_that_is_late_stands_in_the_minute_that_runs(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        session = rooms.up("dev-01")
        rooms.loop.run_for(session.planned + 200.0)
        renewals = rooms.status.fleet().renewals
        assert renewals.bars[renewals.now].planned == renewals.planned == 1


def test_a_step_of_the_wall_clock_moves_no_bar(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        rooms.loop.run_for(1000.0)
        rooms.hub_sessions.notes.renewal_done(700.0)
        before = rooms.status.fleet().renewals
        rooms.clock.offset += 7200.0
        after = rooms.status.fleet().renewals
        assert [bar.done for bar in after.bars] == [bar.done for bar in before.bars]
        assert [bar.at - 7200.0 for bar in after.bars] == [bar.at for bar in before.bars]


def test_errors_are_told_by_cause_what_stands_first_with_what_to_do(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01", "dev-02") as rooms:
        refusal = classify_connack(ConnackCode.NOT_AUTHORIZED, clock_trusted=True, token_fresh=True).refusal
        notes = rooms.hub_sessions.notes
        notes.error(Identity("dev-02"), SessionError(WALL + 5, None, "no route to host"))
        notes.well(Identity("dev-02"))
        notes.error(DEV, SessionError(WALL, refusal, "CONNACK 5"))
        first, second = rooms.status.fleet().causes
        assert (first.key, first.count, first.standing) == ("401003 credential", 1, 1)
        assert (first.last_at, first.last_device, first.words) == (WALL, "dev-01", "CONNACK 5")
        assert (first.name, first.remedy) == (refusal.name, refusal.remedy)
        assert (second.key, second.name, second.standing) == (NO_CONNECTION, "", 0)
        assert second.remedy


def test_a_reload_is_remembered_and_one_that_was_refused_is_a_concern(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        rooms.status.started = True
        assert rooms.status.fleet().reload == Reload(WALL, True)
        rooms.loop.run_for(60.0)
        rooms.status.reloaded((ConfigProblem("tokens.lifetime", "60 has no unit"),))
        facts = rooms.status.fleet()
        assert (facts.reload.at, facts.reload.succeeded) == (WALL + 60.0, False)
        assert facts.reload.problems == ("tokens.lifetime: 60 has no unit",)
        assert [one.what for one in facts.concerns] == ["the last reload was refused"]
        assert facts.ready, "the old configuration serves"
        rooms.status.reloaded(())
        assert rooms.status.fleet().concerns == ()


@dataclass
class Figures:
    """An outbox, as far as the page asks."""

    messages: int
    size: int
    max_bytes: int
    health: str

    def problems(self) -> Iterator[Concern]:
        yield from ()


def test_the_outbox_is_told_and_one_that_is_not_well_is_a_concern(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        rooms.status.started = True
        assert rooms.status.fleet().outbox is None
        rooms.status.outbox = Figures(7, 1000, 4096, "ok")
        assert rooms.status.fleet().outbox == Outbox(7, 1000, 4096, "ok", "")
        assert rooms.status.fleet().concerns == ()
        rooms.status.outbox = Figures(9, 4096, 4096, "disk_full")
        (concern,) = rooms.status.fleet().concerns
        assert concern.what == "the outbox is not well: disk_full"
        assert concern.remedy == health_remedy("disk_full")


def test_the_state_of_the_clock_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel: list[bool | None] = [True, False, None]
    monkeypatch.setattr("gatewayd.daemon.status.kernel_clock_synchronized", lambda: kernel.pop(0))
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        assert rooms.status.fleet().clock == ClockState(True, True, "")
        assert rooms.status.fleet().clock == ClockState(True, False, CLOCK_UNSYNCHRONIZED)
        rooms.clock.offset = 1000.0
        assert rooms.status.fleet().clock == ClockState(False, None, CLOCK_WRONG)
