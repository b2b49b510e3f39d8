"""The SAS check against tokens that others made: the SDKs' forms, and azure-iot-device's own generator."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from azure.iot.device.common.auth import sastoken, signing_mechanism

from gatewayd.emulator.registry import Policy, RegisteredIdentity, Registry
from gatewayd.emulator.sas_check import (
    MAX_TOKEN_BYTES,
    AuthCause,
    Authorized,
    NotAToken,
    Refused,
    check,
    parse,
)

HUB = "myhub.azure-devices.net"
KEY = bytes(range(32))
POLICY_KEY = b"P" * 32
SPECIAL = "a+b#c%d@e'f*"
SE = 1767225600

# Token texts as the SDKs write them for key 00..1f (identities) and 32 x "P" (policy), se 2026-01-01T00:00:00Z.
PYTHON = (
    "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdev-01"
    "&sig=R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE%3D&se=1767225600"
)
C = (
    "SharedAccessSignature sr=myhub.azure-devices.net/devices/dev-01"
    "&sig=GG5rq7RwOlJU1X4axATa0jdC9D8Gh2NlmTaHIrCRo9I%3d&se=1767225600"
)
JAVA = (
    "SharedAccessSignature sig=GG5rq7RwOlJU1X4axATa0jdC9D8Gh2NlmTaHIrCRo9I%3D&se=1767225600"
    "&sr=myhub.azure-devices.net/devices/dev-01"
)
LOWER = (
    "SharedAccessSignature sr=myhub.azure-devices.net%2fdevices%2fdev-01"
    "&sig=G5ghGp5KomwWHzNn9Yt%2B32AkbeA9tsAws4SZ1OvyAkI%3D&se=1767225600"
)
MODULE = (
    "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdev-01%2Fmodules%2Fmod-a"
    "&sig=aFKrCyhk6z%2Fi%2BTczX71S2M05zh7XMpfuMd0KZ6UB54I%3D&se=1767225600"
)
POLICY_HUB = (
    "SharedAccessSignature sr=myhub.azure-devices.net"
    "&sig=BWHyW%2FZ40WsGM4y0Vex%2BcpUbSBRCh7X93gTZQa%2B3IWM%3D&se=1767225600&skn=device"
)
POLICY_DEVICE = (
    "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdev-01"
    "&sig=x6cd51MumiH2mnSSfszw5aZz8wlI5D0Hp7t4xV%2B0TdQ%3D&skn=device&se=1767225600"
)
POLICY_PREFIX = (
    "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices"
    "&sig=5ZmE%2FUCAQfX5wJmJkdlMD1DuA4apHwqLYnGY1qPkQ2A%3D&se=1767225600&skn=device"
)
SPECIAL_PYTHON = (
    "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fa%2Bb%23c%25d%40e%27f%2A"
    "&sig=oqYplp3b1Q84AMVWkZcbCKrTIh7KQxRsfXjfPBHXq3g%3D&se=1767225600"
)
SPECIAL_TWICE = (
    "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fa%252Bb%2523c%2525d%2540e%2527f*"
    "&sig=qrEZ%2Bcd4gTKdlTj2cRSogw064gq7quPRDpnI%2F6ESOvM%3D&se=1767225600"
)
SPECIAL_NODE = (
    "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fa%2Bb%23c%25d%40e%27f%2a"
    "&sig=ZAvbZO6UJayQ2iUYP6EO21IlUTXBWEjEC%2FZOVFcJCw8%3D&se=1767225600"
)


def registry() -> Registry:
    names = ("dev-01", "dev-01/mod-a", "dev-011", SPECIAL)
    return Registry(
        [RegisteredIdentity(name, KEY, b"S" * 32) for name in names],
        [
            Policy("device", POLICY_KEY, b"p" * 32, frozenset({"DeviceConnect"})),
            Policy("service", POLICY_KEY, b"p" * 32, frozenset({"ServiceConnect"})),
        ],
    )


def judge(
    token: str | bytes | None, name: str = "dev-01", wall: float = SE - 60.0, skew: float = 0.0
) -> Authorized | Refused:
    password = token.encode() if isinstance(token, str) else token
    return check(password, name, registry(), hostname=HUB, wall=wall, skew_seconds=skew)


def cause(verdict: Authorized | Refused) -> AuthCause:
    assert isinstance(verdict, Refused)
    return verdict.cause


def azure_token(uri: str, key: bytes = KEY, ttl: int = 3600) -> tuple[str, int]:
    """A token made by azure-iot-device, and its expiry."""
    signing: Any = signing_mechanism  # the SDK has no types
    tokens: Any = sastoken
    mechanism = signing.SymmetricKeySigningMechanism(base64.b64encode(key).decode())
    token = tokens.RenewableSasToken(uri, mechanism, ttl=ttl)
    return str(token), token.expiry_time


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (PYTHON, "dev-01"),
        (C, "dev-01"),
        (JAVA, "dev-01"),
        (LOWER, "dev-01"),
        (MODULE, "dev-01/mod-a"),
        (POLICY_HUB, "dev-01"),
        (POLICY_HUB, "dev-01/mod-a"),
        (POLICY_DEVICE, "dev-01"),
        (POLICY_DEVICE, "dev-01/mod-a"),
        (POLICY_PREFIX, "dev-011"),
        (SPECIAL_PYTHON, SPECIAL),
        (SPECIAL_TWICE, SPECIAL),
        (SPECIAL_NODE, SPECIAL),
    ],
)
def test_every_form_an_sdk_writes_opens_the_hub(token: str, name: str) -> None:
    verdict = judge(token, name)
    assert isinstance(verdict, Authorized)
    assert verdict.expiry == SE
    assert verdict.policy == ("device" if "skn" in token else "")


def test_a_token_made_by_the_azure_sdk_opens_the_hub() -> None:
    token, expiry = azure_token(f"{HUB}/devices/dev-01")
    assert judge(token, wall=expiry - 1) == Authorized(expiry)


def test_the_secondary_key_is_as_good_as_the_primary() -> None:
    token, expiry = azure_token(f"{HUB}/devices/dev-01", b"S" * 32)
    assert judge(token, wall=expiry - 1) == Authorized(expiry)


@pytest.mark.parametrize("token", [None, b""])
def test_no_token_is_a_missing_authorization_header(token: bytes | None) -> None:
    verdict = judge(token)
    assert verdict == Refused(AuthCause.NO_AUTHORIZATION, "Authorization header missing")


def test_an_identity_nobody_registered_is_an_unknown_device() -> None:
    verdict = judge(PYTHON, "nobody")
    assert isinstance(verdict, Refused)
    assert verdict.cause is AuthCause.UNKNOWN_DEVICE
    assert verdict.text == "IotHub 'myhub' does not contain the specified device 'nobody'"


def test_a_policy_that_may_not_connect_devices_is_a_rule_without_the_right() -> None:
    token, expiry = azure_token(f"{HUB}/devices/dev-01", POLICY_KEY)
    verdict = judge(f"{token}&skn=service", wall=expiry - 1)
    assert isinstance(verdict, Refused)
    assert verdict.cause is AuthCause.RULE_WITHOUT_RIGHT
    assert verdict.text == f"Authorization rule 'service' does not allow access for '{HUB}/devices/dev-01'"


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (PYTHON.replace("R01n", "R01m"), "dev-01"),
        (PYTHON.replace("1767225600", "1767225601"), "dev-01"),
        (PYTHON.replace("sig=R", "sig=%"), "dev-01"),
        (PYTHON.replace("%2Fdevices", "%2fdevices"), "dev-01"),
        (PYTHON, "dev-011"),
        (PYTHON, "dev-01/mod-a"),
        (MODULE, "dev-01"),
        (POLICY_DEVICE, "dev-011"),
        (POLICY_HUB.replace("skn=device", "skn=nobody"), "dev-01"),
        (POLICY_HUB.removesuffix("&skn=device"), "dev-01"),
        ("not a token", "dev-01"),
    ],
)
def test_a_token_of_someone_else_or_a_changed_one_is_a_bad_token(token: str, name: str) -> None:
    assert cause(judge(token, name)) is AuthCause.BAD_TOKEN


def test_a_token_for_another_hub_is_a_bad_token() -> None:
    token, expiry = azure_token("other.azure-devices.net/devices/dev-01")
    assert cause(judge(token, wall=expiry - 1)) is AuthCause.BAD_TOKEN


def test_the_host_of_the_audience_is_compared_without_case() -> None:
    token, expiry = azure_token(f"{HUB.upper()}/devices/dev-01")
    assert judge(token, wall=expiry - 1) == Authorized(expiry)


def test_a_token_is_expired_from_its_expiry_on_when_no_skew_is_allowed() -> None:
    assert isinstance(judge(PYTHON, wall=SE - 0.001), Authorized)
    assert cause(judge(PYTHON, wall=SE)) is AuthCause.EXPIRED


def test_a_token_is_good_for_the_skew_longer() -> None:
    assert isinstance(judge(PYTHON, wall=SE + 299.0, skew=300.0), Authorized)
    assert cause(judge(PYTHON, wall=SE + 300.0, skew=300.0)) is AuthCause.EXPIRED


def test_a_forged_token_is_bad_even_when_it_is_also_expired() -> None:
    assert cause(judge(PYTHON.replace("R01n", "R01m"), wall=SE + 1)) is AuthCause.BAD_TOKEN


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"SharedAccessSignature ",
        b"sharedaccesssignature sr=a&sig=b&se=1",
        b"SharedAccessSignature sr=a&sig=b",
        b"SharedAccessSignature sr=a&sr=a&sig=b&se=1",
        b"SharedAccessSignature sr=a&sig=b&se=1&x=1",
        b"SharedAccessSignature sr=a&sig=b&se=-1",
        b"SharedAccessSignature sr=a&sig=b&se=1.5",
        b"SharedAccessSignature sr=a&sig=b&se=" + b"9" * 13,
        b"SharedAccessSignature sr=\xff&sig=b&se=1",
        b"SharedAccessSignature sr=" + b"a" * MAX_TOKEN_BYTES + b"&sig=b&se=1",
    ],
)
def test_text_of_another_form_is_not_a_token(text: bytes) -> None:
    with pytest.raises(NotAToken):
        parse(text)


def test_no_refusal_repeats_any_of_the_token() -> None:
    for token in (PYTHON.replace("R01n", "R01m"), "SharedAccessSignature secret", PYTHON + "&secret=1"):
        verdict = judge(token)
        assert isinstance(verdict, Refused)
        assert "secret" not in f"{verdict}"
        assert "JJMIZFpc39" not in f"{verdict}"
