"""From the configuration's words to the values of the rooms."""

from __future__ import annotations

from importlib import metadata

import pytest

from gatewayd.daemon.config import Config
from gatewayd.daemon.config_load import parse_config
from gatewayd.daemon.config_rules import longest_attempt
from gatewayd.daemon.tuning import (
    VERSION,
    dial_deadlines,
    handover_timeouts,
    lane_bounds,
    listener_policy,
    mqtt_settings,
    session_policy,
)
from gatewayd.downstream.listener import ListenerPolicy
from gatewayd.upstream.handover import Mode

LEAST = '[hub]\nhostname = "h.net"\n[listener]\ncertificate = "c"\n[devices]\nfile = "d"\n'


def config(more: str = "") -> Config:
    return parse_config(LEAST + more)


def test_the_version_is_that_of_the_package() -> None:
    assert metadata.version("gatewayd") == VERSION
    assert mqtt_settings(config()).client_type == f"gatewayd/{VERSION}"


def test_a_handover_has_the_deadlines_of_the_hub_and_the_patience_of_the_tokens() -> None:
    timeouts = handover_timeouts(
        config(
            '[hub.deadlines]\ndial = "3s"\nhandshake = "4s"\nconnack = "5s"\n'
            '[tokens]\nhandover_drain = "6s"\nhandover_patience = "7s"\n'
        )
    )
    assert (timeouts.dial, timeouts.connack, timeouts.close) == (7.0, 5.0, 7.0)
    assert timeouts.patience + timeouts.drain == 6.0


@pytest.mark.parametrize("more", ["", '[hub.deadlines]\ndial = "60s"\n[tokens]\nhandover_drain = "30s"\n'])
def test_an_attempt_is_given_up_only_after_all_of_its_own_deadlines(more: str) -> None:
    assert session_policy(config(more)).attempt_limit > longest_attempt(config(more))


def test_a_dial_has_time_for_the_lookup_the_connection_and_the_handshake() -> None:
    deadlines = dial_deadlines(config('[hub.deadlines]\ndial = "3s"\nhandshake = "4s"\n'))
    assert (deadlines.connect, deadlines.handshake, deadlines.overall) == (3.0, 4.0, 7.0)


def test_a_hub_session_is_as_the_file_says() -> None:
    settings = mqtt_settings(
        config(
            '[hub.session]\nkeep_alive = "100s"\nwindow = 5\n[hub.deadlines]\nping = "6s"\nconnack = "5s"\n'
            '[tokens]\nhandover = "fast"\nhandover_patience = "2s"\n'
        )
    )
    assert (settings.hostname, settings.keep_alive, settings.window) == ("h.net", 100, 5)
    assert settings.mode is Mode.FAST
    limits = settings.limits
    assert (limits.ping_timeout, limits.connect_timeout, limits.disconnect_timeout) == (6.0, 5.0, 2.0)


def test_backoff_and_parking_are_as_the_file_says() -> None:
    policy = session_policy(
        config('[tokens.backoff]\nfirst = "2s"\nceiling = "30s"\nstable = "40s"\nparking_probe = "5m"\n')
    )
    assert (policy.retry.first, policy.retry.ceiling, policy.retry.stable) == (2.0, 30.0, 40.0)
    assert policy.park_first == 300.0


@pytest.mark.parametrize("probe", ["10s", "1h", "24h"])
def test_a_parked_device_is_never_probed_more_slowly_than_the_file_says_first(probe: str) -> None:
    policy = session_policy(config(f'[tokens.backoff]\nparking_probe = "{probe}"\n'))
    assert policy.park_ceiling >= policy.park_first


def test_a_device_may_hold_what_the_file_says() -> None:
    said = '[listener]\nmax_unreceipted_messages = 7\nmax_unreceipted_bytes = "2MiB"'
    bounds = lane_bounds(parse_config(LEAST.replace("[listener]", said)))
    assert (bounds.max_messages, bounds.max_bytes) == (7, 2 << 20)


def test_the_protocol_core_parks_a_device_only_after_its_lane_has_paused_it() -> None:
    for messages in (1, 100, 10_000):
        text = LEAST.replace("[listener]", f"[listener]\nmax_unreceipted_messages = {messages}")
        judged = parse_config(text)
        assert listener_policy(judged).max_unreceipted_messages > lane_bounds(judged).max_messages


def test_the_listener_is_as_the_file_says_and_by_default_as_it_is_made() -> None:
    made, default = ListenerPolicy(), listener_policy(config())
    for name in (
        "handshake_deadline",
        "connect_deadline",
        "hold",
        "keep_alive_cap",
        "max_connections",
        "connects_per_address_per_second",
        "expired_token_grace",
    ):
        assert getattr(default, name) == getattr(made, name), name
