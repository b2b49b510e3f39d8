"""The rules between keys."""

from __future__ import annotations

import pytest

from gatewayd.daemon.config import settings
from gatewayd.daemon.config_load import parse_config
from gatewayd.daemon.config_rules import DOUBTS, RULES, broken_rules, doubts, longest_attempt
from gatewayd.errors import ConfigError

LEAST = '[hub]\nhostname = "h.net"\n[listener]\ncertificate = "c"\n[devices]\nfile = "d"\n'


def problem_paths(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse_config(LEAST + text)
    return [problem.path for problem in error.value.problems]


def test_the_defaults_break_no_rule_and_raise_no_doubt() -> None:
    config = parse_config(LEAST)
    assert broken_rules(config) == []
    assert doubts(config) == []


@pytest.mark.parametrize("earliest", [0.85, 0.9])
def test_the_window_must_open_before_it_closes(earliest: float) -> None:
    assert problem_paths(f"[tokens]\nrenew_earliest = {earliest}\n") == ["tokens.renew_earliest"]


def test_a_deadline_longer_than_what_a_token_has_left_is_an_error_with_the_numbers() -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(LEAST + '[tokens]\nlifetime = "60s"\n')
    by_path = {problem.path: problem for problem in error.value.problems}
    assert set(by_path) == {"hub.deadlines.dial", "hub.deadlines.handshake", "hub.deadlines.connack"}
    assert "15s is longer than the 9s that a token of 1m has left at renew_latest = 0.85" in str(
        by_path["hub.deadlines.connack"]
    )


def test_short_tokens_are_possible_with_short_deadlines() -> None:
    text = '[tokens]\nlifetime = "30s"\n[hub.deadlines]\ndial = "2s"\nhandshake = "2s"\nconnack = "2s"\n'
    config = parse_config(LEAST + text)
    assert [doubt.path for doubt in doubts(config)] == ["tokens.lifetime"]


def test_a_fast_handover_needs_no_patience() -> None:
    strict = parse_config(LEAST)
    fast = parse_config(LEAST + '[tokens]\nhandover = "fast"\n')
    assert longest_attempt(strict) - longest_attempt(fast) == strict.tokens.handover_patience


def test_pauses_cannot_begin_beyond_their_ceiling() -> None:
    assert problem_paths('[tokens.backoff]\nfirst = "30s"\nceiling = "10s"\n') == ["tokens.backoff.first"]


def test_metrics_and_devices_cannot_share_an_address_unless_the_system_chooses_both() -> None:
    shared = '[metrics]\naddress = "0.0.0.0:8883"\nanonymous = "metrics"\n'
    assert problem_paths(shared) == ["metrics.address"]
    chosen = LEAST.replace("[listener]", '[listener]\naddress = "127.0.0.1:0"')
    parse_config(chosen + '[metrics]\naddress = "127.0.0.1:0"\n')


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "192.168.1.4:9464", "[::]:0"])
def test_an_address_that_others_can_reach_needs_a_token_or_the_word_that_numbers_are_for_all(
    address: str,
) -> None:
    text = f'[metrics]\naddress = "{address}"\n'
    assert problem_paths(text) == ["metrics.address"]
    parse_config(LEAST + text + 'token_file = "token"\n')
    parse_config(LEAST + text + 'anonymous = "metrics"\n')


@pytest.mark.parametrize("address", ["127.0.0.1:9464", "[::1]:9464", "unix:/run/gatewayd/status.sock"])
def test_an_address_that_stays_here_needs_none(address: str) -> None:
    config = parse_config(LEAST + f'[metrics]\naddress = "{address}"\n')
    assert doubts(config) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[metrics]\naddress = "0.0.0.0:9464"\nanonymous = "metrics"\n', "metrics.address"),
        ('[metrics]\naddress = "[::]:9464"\ntoken_file = "t"\n', "metrics.address"),
        ("[hub.budget]\nconnects_per_second = 101\n", "hub.budget.connects_per_second"),
    ],
)
def test_what_works_and_is_probably_not_meant_is_a_doubt(text: str, path: str) -> None:
    config = parse_config(LEAST + text)
    assert [doubt.path for doubt in doubts(config)] == [path]
    assert doubts(config, skip={path}) == []


def test_every_key_a_rule_reads_exists() -> None:
    known = {setting.path for setting in settings()}
    assert {key for rule in (*RULES, *DOUBTS) for key in rule.reads} <= known


def test_a_rule_is_skipped_when_a_table_around_its_key_is_wrong() -> None:
    assert not RULES[0].may_be_asked({"tokens"})
    assert RULES[0].may_be_asked({"token", "tokens.renew"})


@pytest.mark.parametrize(
    ("address", "tables", "path"),
    [
        ("0.0.0.0:8883", "", "listener.websocket_address"),
        ("127.0.0.1:443", '[metrics]\naddress = "127.0.0.1:443"\n', "metrics.address"),
    ],
)
def test_the_websocket_listener_shares_its_address_with_nobody(address: str, tables: str, path: str) -> None:
    head = LEAST.replace("[listener]\n", f'[listener]\nwebsocket_address = "{address}"\n')
    assert problem_paths_of(head + tables) == [path]


def problem_paths_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse_config(text)
    return [problem.path for problem in error.value.problems]


def test_credentials_for_no_proxy_are_a_mistake() -> None:
    text = LEAST.replace("[hub]\n", '[hub]\nproxy_credentials = "p"\n')
    assert problem_paths_of(text) == ["hub.proxy_credentials"]
    parse_config(text.replace("[hub]\n", '[hub]\nproxy = "http://proxy:3128"\n'))


@pytest.mark.parametrize(("transport", "unused"), [("mqtt", "websocket"), ("websocket", "mqtt")])
def test_an_endpoint_of_the_other_transport_is_a_doubt(transport: str, unused: str) -> None:
    head = LEAST.replace("[hub]\n", f'[hub]\ntransport = "{transport}"\n')
    for endpoint in ("mqtt", "websocket"):
        found = doubts(parse_config(head + f'[hub.endpoints]\n{endpoint} = "h:1"\n'))
        assert [doubt.path for doubt in found] == ([f"hub.endpoints.{unused}"] if endpoint == unused else [])


def test_a_websocket_port_that_sdks_cannot_be_told_is_a_doubt() -> None:
    for port, doubted in ((443, []), (8443, ["listener.websocket_address"])):
        text = LEAST.replace("[listener]\n", f'[listener]\nwebsocket_address = "0.0.0.0:{port}"\n')
        assert [doubt.path for doubt in doubts(parse_config(text))] == doubted
