"""A reload: all of it or nothing."""

from __future__ import annotations

import pytest

from gatewayd.daemon.config import Config
from gatewayd.daemon.config_load import parse_config
from gatewayd.daemon.reload import Change, Reloader, changes_between, tuning_changes
from gatewayd.errors import Bounded, ConfigError

LEAST = '[hub]\nhostname = "h.net"\n[listener]\ncertificate = "c"\n[devices]\nfile = "d"\n'


class Gateway:
    """A daemon that remembers what was put in force, and can fail to."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.in_force = parse_config(text)
        self.fail_on: float | None = None
        self.reloader = Reloader(self.in_force, lambda: parse_config(self.text), self.apply)

    def apply(self, config: Config, changes: tuple[Change, ...]) -> None:
        assert changes
        self.in_force = config
        if config.tokens.lifetime == self.fail_on:
            raise Bounded("no room")


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(LEAST)


def test_tuning_keys_are_put_in_force(gateway: Gateway) -> None:
    gateway.text = LEAST + '[tokens]\nlifetime = "30m"\n[log]\nlevel = "debug"\n'
    outcome = gateway.reloader.reload()
    assert outcome.succeeded
    assert [str(change) for change in outcome.applied] == [
        'tokens.lifetime: "1h" becomes "30m"',
        'log.level: "info" becomes "debug"',
    ]
    assert gateway.in_force.tokens.lifetime == 1800.0
    assert gateway.reloader.config is gateway.in_force


def test_the_same_file_changes_nothing_and_succeeds(gateway: Gateway) -> None:
    before = gateway.in_force
    outcome = gateway.reloader.reload()
    assert outcome.succeeded
    assert outcome.applied == ()
    assert gateway.in_force is before


def test_one_key_that_needs_a_restart_rejects_the_whole_with_its_name(gateway: Gateway) -> None:
    before = gateway.in_force
    gateway.text = LEAST + '[tokens]\nlifetime = "30m"\n[metrics]\naddress = "127.0.0.1:9999"\n'
    outcome = gateway.reloader.reload()
    assert not outcome.succeeded
    assert [problem.path for problem in outcome.problems] == ["metrics.address"]
    assert 'metrics.address: "127.0.0.1:9464" becomes "127.0.0.1:9999"' in outcome.problems[0].problem
    assert gateway.in_force is before
    assert gateway.reloader.config is before


def test_a_bad_file_keeps_the_old_configuration(gateway: Gateway) -> None:
    before = gateway.in_force
    for bad in (LEAST + "[tokens]\nlifetime = 60\n", "nonsense"):
        gateway.text = bad
        assert not gateway.reloader.reload().succeeded
        assert gateway.in_force is before
    gateway.text = LEAST + '[tokens]\nlifetime = "30m"\n'
    assert gateway.reloader.reload().succeeded


def test_a_failure_while_applying_puts_the_old_configuration_back(gateway: Gateway) -> None:
    before = gateway.in_force
    gateway.fail_on = 1800.0
    gateway.text = LEAST + '[tokens]\nlifetime = "30m"\n'
    outcome = gateway.reloader.reload()
    assert [str(problem) for problem in outcome.problems] == ["reload: could not be applied: no room"]
    assert gateway.in_force is before
    assert gateway.reloader.config is before


def test_a_key_that_was_unset_is_shown_as_such() -> None:
    old, new = parse_config(LEAST), parse_config(LEAST + '[hub.endpoints]\nmqtt = "127.0.0.1:1"\n')
    assert [str(change) for change in changes_between(old, new)] == [
        'hub.endpoints.mqtt: unset becomes "127.0.0.1:1"'
    ]
    with pytest.raises(ConfigError, match="needs a restart"):
        tuning_changes(old, new)
