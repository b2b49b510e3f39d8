"""The demo's settings and the configuration of its daemon; judged by the daemon's own reader of configurations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gatewayd.clock import SystemClock
from gatewayd.daemon.config_examination import examine
from gatewayd.daemon.config_load import parse_config
from gatewayd.daemon.config_rules import doubts
from gatewayd.daemon.config_values import Surroundings
from gatewayd.demo.settings import (
    HUB_HOSTNAME,
    Places,
    Policy,
    Settings,
    boot_for,
    budget_for,
    daemon_config,
    duration_seconds,
    fleet_up_seconds,
    problems,
    renewal_floor,
    shortest_duration,
)
from gatewayd.demo.stage import stage, write_private
from gatewayd.tokens.renewal_timetable import feasibility

PLACES = Places(
    hub_port=18883,
    hub_authority=Path("/tmp/stage/hub.pem"),
    listener_port=28883,
    listener_certificate=Path("/tmp/stage/gateway.pem"),
    metrics_port=29464,
    devices_file=Path("/tmp/stage/devices.csv"),
    outbox_file=Path("/tmp/stage/outbox.db"),
    clock_floor_file=Path("/tmp/stage/clock-floor"),
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("60m", 3600.0), ("1.5h", 5400.0), (" 250ms ", 0.25), ("75 s", 75.0)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "", "s", "-3s", "3 weeks", "1d"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"30s, 60m or 1\.5h"):
        duration_seconds(text)


def test_the_default_run_can_be_run() -> None:
    assert problems(Settings()) == []


def test_a_small_fleet_has_the_daemon_s_default_budget() -> None:
    assert budget_for(500, 30.0) == budget_for(10, 30.0) == 50


def test_the_budget_grows_with_the_fleet_to_what_the_daemon_demands() -> None:
    assert renewal_floor(2000, 60.0) == pytest.approx(39.2, abs=0.05)
    assert budget_for(2000, 60.0) == 53
    for devices, lifetime in ((2000, 60.0), (1800, 30.0), (5000, 90.0)):
        budget = budget_for(devices, lifetime)
        assert feasibility(devices, lifetime, 0.70, 0.85, budget, 0.20).feasible
        assert not feasibility(devices, lifetime, 0.70, 0.85, budget - 1, 0.20).feasible


def test_a_fleet_that_a_hub_cannot_take_is_refused_with_the_lifetime_that_works() -> None:
    (problem,) = problems(Settings(devices=5000, lifetime=30.0, duration=600, boot=100))
    assert "a budget of 100 connects/s" in problem
    assert "206 in the fullest second" in problem
    assert problems(Settings(devices=5000, lifetime=78.0, duration=600, boot=100)) == []


def test_tokens_too_short_for_a_handover_are_refused() -> None:
    assert "a handover needs 2 s" in problems(Settings(devices=10, lifetime=13.0))[0]
    assert problems(Settings(devices=10, lifetime=14.0)) == []


def test_a_run_too_short_for_two_renewals_is_refused_with_the_shortest() -> None:
    (problem,) = problems(Settings(duration=60.0))
    assert "at least 69s" in problem
    assert problems(Settings(duration=69.0)) == []


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(devices=2000, lifetime=60.0, boot=40.0),
        Settings(devices=20, lifetime=14.0, boot=1.0),
    ],
)
def test_the_fleet_is_up_when_the_budget_has_gone_round(settings: Settings) -> None:
    """Played second by second: devices that are up renew once in the used part of a life, and go first."""
    used = settings.renew_latest * settings.lifetime
    up, seconds = 0.0, 0.0
    while up < settings.devices - 1e-6:
        seconds += 0.1
        booted = settings.devices * min(1.0, seconds / max(0.1, settings.boot))
        up = min(booted, up + 0.1 * (settings.budget_per_second - up / used))
    assert fleet_up_seconds(settings) == pytest.approx(seconds, rel=0.05)
    assert shortest_duration(settings) == fleet_up_seconds(settings) + 2 * used + 5


def test_the_long_run_of_two_thousand_devices_is_long_enough() -> None:
    settings = Settings(devices=2000, lifetime=60.0, duration=180.0, boot=boot_for(2000))
    assert problems(settings) == []
    assert problems(dataclasses.replace(settings, duration=150.0)) != []


def test_every_setting_out_of_bounds_is_named() -> None:
    found = problems(Settings(devices=0, lifetime=1, rate=0, boot=-1))
    assert [text.split()[0] for text in found] == ["--devices", "--lifetime", "--rate", "--boot"]


def test_a_boot_is_as_fast_as_the_default_budget() -> None:
    assert boot_for(500) == 10.0
    assert boot_for(20) == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(devices=2000, lifetime=60.0, duration=180.0),
        Settings(devices=20, lifetime=14.0),
        Settings(lifetime=3600.0, duration=7200.0),
        Settings(lifetime=86_400.0, duration=200_000.0),
    ],
)
def test_the_daemon_takes_the_configuration_without_a_doubt(settings: Settings) -> None:
    config = parse_config(daemon_config(settings, PLACES), Surroundings())
    assert doubts(config) == []
    assert config.hub.hostname == HUB_HOSTNAME
    assert str(config.hub.dialled) == "127.0.0.1:18883"
    assert config.tokens.lifetime == settings.lifetime
    assert config.hub.budget.connects_per_second == settings.budget_per_second
    assert config.devices.file == PLACES.devices_file


@pytest.mark.parametrize("devices", [20, 500, 2000])
def test_with_the_files_of_a_stage_the_daemon_s_own_examination_finds_nothing(devices: int) -> None:
    wall = SystemClock().wall()
    settings = Settings(devices=devices, lifetime=60.0, duration=180.0)
    with stage(devices, wall) as ready:
        places = dataclasses.replace(
            PLACES,
            hub_authority=ready.gateway_authority,
            listener_certificate=ready.gateway_certificate,
            devices_file=ready.devices_file,
            outbox_file=ready.directory / "outbox.db",
            clock_floor_file=ready.directory / "clock-floor",
        )
        file = write_private(ready.directory / "gatewayd.toml", daemon_config(settings, places).encode())
        examination = examine(file, {}, wall)
    assert examination.problems == ()
    assert examination.warnings == ()
    assert examination.devices == devices


def test_a_long_lived_token_gets_the_deadlines_of_production() -> None:
    config = parse_config(daemon_config(Settings(lifetime=3600.0, duration=7200.0), PLACES), Surroundings())
    assert config.hub.deadlines.handshake == 15.0
    assert config.tokens.handover_patience == 5.0


def test_a_path_with_a_quote_stays_a_path() -> None:
    places = dataclasses.replace(PLACES, devices_file=Path('/tmp/a "b"/devices.csv'))
    config = parse_config(daemon_config(Settings(), places), Surroundings())
    assert config.devices.file == Path('/tmp/a "b"/devices.csv')


def test_a_window_beyond_the_token_s_life_is_refused_by_the_daemon_s_own_rules() -> None:
    """The negative control of the demo is a window too late to be safe, as far as the daemon lets it."""
    late = Settings(renew_earliest=0.94, renew_latest=0.95)
    config = parse_config(daemon_config(late, PLACES), Surroundings())
    assert config.tokens.renew_latest == 0.95


def test_small_fleets_are_played_by_one_process() -> None:
    assert Settings(devices=250).fleet_processes == 1
    assert Settings(devices=251).fleet_processes == 2
    assert Settings(devices=20_000).fleet_processes == 2


def test_the_policies_have_the_names_of_the_command_line() -> None:
    assert {Policy("cut"), Policy("fixed")} == {Policy.CUT, Policy.FIXED}
