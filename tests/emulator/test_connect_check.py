"""CONNECT checks: the user name's forms, and each refusal with its code and cause."""

from __future__ import annotations

import pytest

from gatewayd.emulator.connect_check import (
    ConnectAllowed,
    ConnectRefused,
    UserName,
    check_connect,
    parse_username,
)
from gatewayd.emulator.event_log import HubCode
from gatewayd.emulator.registry import RegisteredIdentity, Registry
from tests.emulator.test_sas_check import HUB, KEY, MODULE, PYTHON, SE

REST = "?api-version=2021-04-12&DeviceClientType=x%2F1"


def registry() -> Registry:
    return Registry(RegisteredIdentity(name, KEY, KEY) for name in ("dev-01", "dev-01/mod-a"))


def judge(
    username: str | None = f"{HUB}/dev-01/{REST}",
    client_id: str = "dev-01",
    token: str = PYTHON,
    names: Registry | None = None,
) -> ConnectAllowed | ConnectRefused:
    return check_connect(
        client_id,
        username,
        token.encode(),
        names or registry(),
        hostname=HUB,
        wall=SE - 1.0,
        skew_seconds=0.0,
    )


@pytest.mark.parametrize(
    ("username", "parts"),
    [
        ("hub/dev/?api-version=1", UserName("hub", "dev", "1")),
        ("hub/dev/api-version=1", UserName("hub", "dev", "1")),
        ("hub/dev/mod/?api-version=1&DeviceClientType=a/b", UserName("hub", "dev/mod", "1")),
        ("hub/dev/?DeviceClientType=a&api-version=1&model-id=dtmi:com:a;1", UserName("hub", "dev", "1")),
        ("hub/a+b#c%d@e'f*/?api-version=1", UserName("hub", "a+b#c%d@e'f*", "1")),
        ("hub/dev/?x=1", UserName("hub", "dev", "")),
        ("hub/dev/", UserName("hub", "dev", "")),
        ("hub/a/b/c/?api-version=1", None),
        ("hub/?api-version=1", None),
        ("hub//?api-version=1", None),
        ("/dev/?api-version=1", None),
        ("hub", None),
        ("", None),
    ],
)
def test_a_user_name_is_read_in_every_form_clients_send(username: str, parts: UserName | None) -> None:
    assert parse_username(username) == parts


def test_a_good_connect_is_allowed_until_its_token_ends() -> None:
    assert judge() == ConnectAllowed("dev-01", SE)
    assert judge(f"{HUB}/dev-01/mod-a/{REST}", "dev-01/mod-a", MODULE) == ConnectAllowed("dev-01/mod-a", SE)


@pytest.mark.parametrize(
    ("username", "client_id", "cause"),
    [
        (None, "dev-01", "username_malformed"),
        ("dev-01", "dev-01", "username_malformed"),
        (f"{HUB}/dev-01/", "dev-01", "api_version_missing"),
        (f"{HUB}/dev-01/?api-version=", "dev-01", "api_version_missing"),
        (f"other.net/dev-01/{REST}", "dev-01", "foreign_hub"),
        (f"{HUB}/dev-01/{REST}", "dev-02", "client_id_mismatch"),
        (f"{HUB}/dev-01/{REST}", "DEV-01", "client_id_mismatch"),
    ],
)
def test_a_user_name_that_does_not_fit_is_refused_before_the_token(
    username: str | None, client_id: str, cause: str
) -> None:
    verdict = judge(username, client_id)
    assert isinstance(verdict, ConnectRefused)
    assert (verdict.code, verdict.cause) == (HubCode.UNAUTHORIZED_FORM, cause)


def test_the_token_s_refusal_is_a_401003_with_its_cause() -> None:
    verdict = judge(token="")
    assert isinstance(verdict, ConnectRefused)
    assert (verdict.code, verdict.cause) == (HubCode.UNAUTHORIZED, "no_authorization_header")
    assert verdict.text == "Authorization header missing"


@pytest.mark.parametrize("disabled", ["dev-01", "dev-01/mod-a"])
def test_a_disabled_identity_or_a_module_of_a_disabled_device_is_refused(disabled: str) -> None:
    names = registry()
    names.enable(disabled, enabled=False)
    verdict = judge(f"{HUB}/dev-01/mod-a/{REST}", "dev-01/mod-a", MODULE, names)
    assert isinstance(verdict, ConnectRefused)
    assert verdict.code is HubCode.DEVICE_DISABLED
