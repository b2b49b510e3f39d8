"""The look each second: clocks, progress, and the watchdog that is fed only while renewals go on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gatewayd.clock import RELEASE_EPOCH_SECONDS
from gatewayd.daemon.heartbeat import EVERY_SECONDS, OVERDUE_SECONDS, PROMISED_SECONDS, ROOM, SWEEP_EVERY
from gatewayd.daemon.progress import Stall
from gatewayd.daemon.watchdog import Watchdog
from gatewayd.message import Identity
from gatewayd.upstream.session import State
from tests.support.daemon_rooms import LIFETIME, WALL, DaemonRooms, daemon_rooms

DEV = Identity("dev-01")
INTERVAL = 30.0
# From the moment renewals stop until the watchdog may be fed for the last time.
LATEST = OVERDUE_SECONDS + PROMISED_SECONDS + SWEEP_EVERY * EVERY_SECONDS + INTERVAL / 3


class Watched:
    """A watchdog over the rooms, with the times it was fed."""

    def __init__(self, rooms: DaemonRooms) -> None:
        self.fed: list[float] = []
        self.stalls: list[Stall] = []
        self.watchdog = Watchdog(
            rooms.loop,
            rooms.progress,
            INTERVAL,
            feed=lambda: self.fed.append(rooms.loop.time()),
            stalled=self.stalls.append,
        )
        rooms.heartbeat.start()
        self.watchdog.start()


# Progress and the watchdog


def test_the_watchdog_is_fed_while_renewals_go_on_also_with_a_hub_that_is_away(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01", "dev-02") as rooms:
        watched = Watched(rooms)
        rooms.hub_sessions.device_arrived(DEV)
        rooms.loop.run_for(3600.0)
        assert rooms.conductor.state(DEV) in {State.BACKOFF, State.OPENING}
        gaps = [
            later - earlier for earlier, later in zip(watched.fed, [*watched.fed[1:], 3600.0], strict=True)
        ]
        assert max(gaps) <= INTERVAL / 2
        assert watched.stalls == []
        watched.watchdog.stop()


def test_the_watchdog_starves_when_nobody_carries_out_what_the_conductor_says(tmp_path: Path) -> None:
    """The event loop turns and /metrics would answer; only the renewal loop stands still."""
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        watched = Watched(rooms)
        rooms.up("dev-01")
        rooms.loop.run_for(60.0)
        assert watched.fed[-1] > 60.0 - INTERVAL / 2
        rooms.hub_sessions._in_turn = True  # a turn that never comes to its end
        session = rooms.conductor.session(DEV)
        assert session is not None
        due = session.planned
        rooms.loop.run_for(LIFETIME)
        assert due < watched.fed[-1] + INTERVAL < due + LATEST + INTERVAL
        assert [stall.room for stall in watched.stalls] == [ROOM]
        assert not rooms.status.alive().good
        watched.watchdog.stop()


def test_the_watchdog_starves_when_an_identity_has_no_next_action(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with daemon_rooms(tmp_path, "dev-01", "dev-02") as rooms:
        watched = Watched(rooms)
        forgotten = rooms.up("dev-01")
        rooms.up("dev-02")
        rooms.loop.run_for(60.0)
        forgotten.wake = None
        rooms.loop.run_for(300.0)
        assert watched.fed[-1] < 60.0 + LATEST
        assert [stall.room for stall in watched.stalls] == [ROOM]
        assert "1 identities have no next action, dev-01 among them" in caplog.text
        watched.watchdog.stop()


def test_a_next_action_that_is_back_feeds_the_watchdog_again(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        watched = Watched(rooms)
        session = rooms.up("dev-01")
        wake, session.wake = session.wake, None
        rooms.loop.run_for(100.0)
        starved = watched.fed[-1]
        session.wake = wake
        rooms.conductor._file(session)
        rooms.loop.run_for(60.0)
        assert watched.fed[-1] > starved + 30.0
        watched.watchdog.stop()


def test_nothing_is_expected_any_more_once_it_has_stopped(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        rooms.heartbeat.start()
        rooms.loop.run_for(5.0)
        rooms.heartbeat.stop()
        looked = len(rooms.looked)
        rooms.loop.run_for(100.0)
        assert len(rooms.looked) == looked
        assert rooms.status.alive().good


# Clocks


def test_a_step_of_the_wall_clock_moves_every_expiry_within_a_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        rooms.heartbeat.start()
        session = rooms.up("dev-01")
        rooms.loop.run_for(10.0)
        expires = session.expires
        rooms.clock.offset += 600.0
        rooms.loop.run_for(EVERY_SECONDS + 0.1)
        assert session.expires == expires - 600.0
        assert rooms.value("gatewayd_clock_steps_total") == 1
        assert "the wall clock moved by +600.0 s" in caplog.text


def test_slow_drift_is_no_step(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01") as rooms:
        rooms.heartbeat.start()
        for _ in range(100):
            rooms.clock.offset += 0.0005  # 500 ppm, the most that NTP slews
            rooms.loop.run_for(1.0)
        assert rooms.value("gatewayd_clock_steps_total") == 0


def test_the_gate_opens_when_the_clock_becomes_good_and_shuts_when_it_is_wrong_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with daemon_rooms(tmp_path, "dev-01", wall=1000.0) as rooms:
        rooms.heartbeat.start()
        rooms.hub_sessions.device_arrived(DEV)
        rooms.loop.run_for(60.0)
        assert rooms.conductor.state(DEV) is State.QUEUED
        assert rooms.value("gatewayd_clock_trusted") == 0
        assert (rooms.looked, rooms.became_good) == ([], 0)
        assert caplog.text.count("nothing is signed until it is set") == 1
        rooms.clock.offset = WALL
        rooms.loop.run_for(EVERY_SECONDS + 0.1)
        assert rooms.conductor.state(DEV) is State.OPENING
        assert rooms.value("gatewayd_clock_trusted") == 1
        assert rooms.became_good == 1
        assert rooms.looked[-1] >= WALL
        rooms.clock.offset = 1000.0
        rooms.loop.run_for(EVERY_SECONDS + 0.1)
        assert rooms.value("gatewayd_clock_trusted") == 0
        assert caplog.text.count("nothing is signed until it is set") == 2


def test_a_wrong_clock_is_not_a_stall(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path, "dev-01", wall=RELEASE_EPOCH_SECONDS - 1000.0) as rooms:
        rooms.heartbeat.start()
        rooms.hub_sessions.device_arrived(DEV)
        rooms.loop.run_for(900.0)
        assert rooms.status.alive().good


# The loop


def test_how_late_the_event_loop_was_is_shown(tmp_path: Path) -> None:
    with daemon_rooms(tmp_path) as rooms:
        rooms.heartbeat.start()
        rooms.loop.run_for(5.0)
        assert rooms.value("gatewayd_event_loop_lag_seconds") == pytest.approx(0.0, abs=1e-6)
        rooms.loop.call_later(0.5, rooms.loop.jump, 3.0)
        rooms.loop.run_for(0.6)
        lag = rooms.value("gatewayd_event_loop_lag_seconds")
        assert lag is not None
        assert 2.0 < lag <= 3.0
