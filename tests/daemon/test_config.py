"""The keys of the configuration: defaults, and the list that documentation and reload read."""

from __future__ import annotations

import tomllib

import pytest
from pydantic import ValidationError

from gatewayd.daemon.config import Applies, Config, sections, settings
from gatewayd.daemon.config_load import parse_config
from gatewayd.daemon.config_values import Endpoint, Surroundings

LEAST = '[hub]\nhostname = "h.net"\n[listener]\ncertificate = "c"\n[devices]\nfile = "d"\n'


def test_three_keys_are_enough_and_the_rest_has_defaults() -> None:
    config = parse_config(LEAST)
    assert [setting.path for setting in settings() if setting.required] == [
        "hub.hostname",
        "listener.certificate",
        "devices.file",
    ]
    assert config.tokens.lifetime == 3600.0
    assert (config.tokens.renew_earliest, config.tokens.renew_latest) == (0.70, 0.85)
    assert config.hub.budget.connects_per_second == 50
    assert config.listener.hold == 20.0
    assert config.metrics.address == Endpoint("127.0.0.1", 9464)


def test_every_default_is_what_is_documented() -> None:
    config = parse_config(LEAST)
    for setting in settings():
        if setting.default is not None:
            written = tomllib.loads(f"key = {setting.default}")["key"]
            assert setting.kind.read(written, Surroundings()) == setting.value_in(config), setting.path


def test_every_key_has_a_meaning_and_belongs_to_a_section() -> None:
    tables = sections()
    for setting in settings():
        assert setting.says.endswith("."), setting.path
        assert setting.section in tables, setting.path
    assert all(says.endswith(".") for says in tables.values())


def test_the_hub_is_dialled_at_its_name_unless_an_endpoint_says_otherwise() -> None:
    assert parse_config(LEAST).hub.dialled == Endpoint("h.net", 8883)
    elsewhere = parse_config(LEAST + '[hub.endpoints]\nmqtt = "127.0.0.1:18883"\n')
    assert elsewhere.hub.dialled == Endpoint("127.0.0.1", 18883)
    assert elsewhere.hub.hostname == "h.net"


def test_websocket_is_dialled_at_443_unless_its_own_endpoint_says_otherwise() -> None:
    text = (
        LEAST.replace("[hub]\n", '[hub]\ntransport = "websocket"\n') + '[hub.endpoints]\nmqtt = "other:1"\n'
    )
    assert parse_config(text).hub.dialled == Endpoint("h.net", 443)
    elsewhere = parse_config(text + 'websocket = "127.0.0.1:8443"\n')
    assert elsewhere.hub.dialled == Endpoint("127.0.0.1", 8443)


def test_where_to_listen_and_whom_to_serve_needs_a_restart() -> None:
    restart = {setting.path for setting in settings() if setting.applies is Applies.RESTART}
    assert {"hub.hostname", "listener.address", "devices.file", "metrics.address"} <= restart
    assert not {"tokens.lifetime", "hub.budget.connects_per_second", "log.level"} & restart


def test_a_configuration_is_frozen() -> None:
    config = parse_config(LEAST)
    with pytest.raises(ValidationError):
        config.tokens.lifetime = 1.0


def test_the_schema_for_editors_knows_bounds_and_refuses_unknown_keys() -> None:
    schema = Config.model_json_schema()
    assert schema["additionalProperties"] is False
    tokens = schema["$defs"]["Tokens"]["properties"]
    assert '"24h"' in tokens["lifetime"]["allowed"]
    assert tokens["handover"]["enum"] == ["strict", "fast"]
    assert tokens["renew_latest"]["maximum"] == 0.95
    assert schema["$defs"]["Listener"]["properties"]["max_connections"]["minimum"] == 1
