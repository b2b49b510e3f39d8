"""Tokens of five generators are read as they stand. Oracle: stdlib hmac over what we say is signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import RemoteProtocolError
from gatewayd.message import Identity
from gatewayd.protocol.iothub.sas import MAX_TOKEN_LENGTH, audience, covers, parse, resource

VECTORS = json.loads((Path(__file__).parent / "vectors" / "sas.json").read_text())
HUB = "myhub.azure-devices.net"
HOSTS = frozenset({HUB, "gateway.local"})
DEVICE = Identity("dev-01")
ODD = Identity("a+b#c%d@e'f*")


@pytest.mark.parametrize("text", VECTORS["tokens"])
def test_what_we_call_signed_is_what_the_generator_signed(text: str) -> None:
    token = parse(text)
    key = base64.b64decode(VECTORS["PK"] if token.policy == "device" else VECTORS["K"])
    digest = hmac.digest(key, token.signed_text.encode(), hashlib.sha256)
    assert base64.b64encode(digest).decode() == unquote(token.signature)
    assert token.expiry == VECTORS["se"]


@pytest.mark.parametrize("text", VECTORS["tokens"][:4])
def test_a_device_token_covers_its_device_however_it_is_encoded(text: str) -> None:
    assert covers(parse(text).audience, DEVICE, HOSTS)
    assert not covers(parse(text).audience, Identity("dev-02"), HOSTS)


@pytest.mark.parametrize("text", VECTORS["tokens"][8:11])
def test_an_odd_id_is_found_after_one_or_two_decodings(text: str) -> None:
    assert covers(parse(text).audience, ODD, HOSTS)


def test_an_odd_id_is_found_unencoded() -> None:
    assert covers(f"{HUB}/devices/{ODD.device_id}", ODD, HOSTS)
    assert covers(f"{HUB}/devices/a%41b", Identity("a%41b"), HOSTS)


def test_a_module_token_covers_the_module_only() -> None:
    raw = parse(VECTORS["tokens"][4]).audience
    assert covers(raw, Identity("dev-01", "mod-a"), HOSTS)
    assert not covers(raw, Identity("dev-01", "mod-b"), HOSTS)
    assert not covers(raw, DEVICE, HOSTS)


def test_a_prefix_covers_what_lies_below_by_whole_segments() -> None:
    for raw in (HUB, f"{HUB}/devices", f"{HUB}%2Fdevices%2Fdev-01"):
        assert covers(raw, Identity("dev-01", "mod-a"), HOSTS)
    assert not covers(f"{HUB}/devices/dev-0", DEVICE, HOSTS)
    assert not covers(f"{HUB}/dev", DEVICE, HOSTS)


def test_host_and_ids_compare_without_case() -> None:
    assert covers("MyHub.Azure-Devices.NET/devices/DEV-01", DEVICE, HOSTS)


def test_the_gateways_own_name_is_a_host_too() -> None:
    assert covers("Gateway.local/devices/dev-01", DEVICE, HOSTS)
    assert not covers("otherhub.azure-devices.net/devices/dev-01", DEVICE, HOSTS)


def test_our_audience_is_the_one_of_the_python_sdk() -> None:
    assert audience(HUB, DEVICE) == parse(VECTORS["tokens"][0]).audience
    assert audience(HUB, Identity("dev-01", "mod-a")) == parse(VECTORS["tokens"][4]).audience
    assert audience(HUB, ODD) == parse(VECTORS["tokens"][8]).audience


def test_a_resource_is_written_as_people_write_it() -> None:
    assert resource(HUB, DEVICE) == f"{HUB}/devices/dev-01"
    assert resource(HUB, Identity("dev-01", "mod-a")) == f"{HUB}/devices/dev-01/modules/mod-a"


def test_fields_come_in_any_order() -> None:
    for fields in ("sr=a&sig=b&se=1&skn=p", "skn=p&se=1&sr=a&sig=b"):
        token = parse(f"SharedAccessSignature {fields}")
        assert (token.audience, token.signature, token.expiry, token.policy) == ("a", "b", 1, "p")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "begin with"),
        ("Bearer x", "begin with"),
        ("sharedaccesssignature sr=a&sig=b&se=1", "begin with"),
        ("SharedAccessSignature", "begin with"),
        ("SharedAccessSignature  sr=a&sig=b&se=1", "not sr, sig, se or skn"),
        ("SharedAccessSignature sr=a&sig=b", "no se"),
        ("SharedAccessSignature se=1", "no sr, sig"),
        ("SharedAccessSignature sr=a&sig=b&se=1&sr=c", "sr twice"),
        ("SharedAccessSignature sr=a&sig=b&se=1&foo=c", "not sr, sig, se or skn"),
        ("SharedAccessSignature sr=a&sig=b&se=1&", "not sr, sig, se or skn"),
        ("SharedAccessSignature sr=a&sig=&se=1", "empty sig"),
        ("SharedAccessSignature sr=a&sig=b&se=soon", "not a number"),
        ("SharedAccessSignature sr=a&sig=b&se=-1", "not a number"),
        ("SharedAccessSignature sr=a&sig=b&se=\u0661", "not a number"),
        ("SharedAccessSignature sr=a&sig=b&se=" + "9" * 20, "not a number"),
        ("SharedAccessSignature sr=" + "a" * MAX_TOKEN_LENGTH, "longer than"),
    ],
)
def test_a_malformed_token_is_refused_with_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(RemoteProtocolError, match=problem):
        parse(text)


def test_neither_error_nor_repr_holds_the_token() -> None:
    secret = "c2VjcmV0"
    with pytest.raises(RemoteProtocolError) as caught:
        parse(f"SharedAccessSignature sr=a&sig={secret}&se=1&{secret}=1")
    assert secret not in str(caught.value)
    assert secret not in repr(parse(f"SharedAccessSignature sr={secret}&sig={secret}&se=1"))


def test_a_token_expires_after_the_skew() -> None:
    token = parse("SharedAccessSignature sr=a&sig=b&se=1000")
    assert not token.expired(1300.0)
    assert token.expired(1300.5)
    assert token.expired(1000.5, skew=0)


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        token = parse(f"SharedAccessSignature {text}")
    except RemoteProtocolError:
        return
    assert token.expiry >= 0


ids = st.text("abcXYZ019-.%_#*?!(),:=@$'+", min_size=1, max_size=24)


@given(ids, st.none() | ids, st.integers(0, 2))
def test_an_audience_covers_its_identity_at_every_depth_of_encoding(
    device: str, module: str | None, depth: int
) -> None:
    identity = Identity(device, module)
    text = f"{HUB}/devices/{device}" + (f"/modules/{module}" if module else "")
    for _ in range(depth):
        text = quote(text, safe="")
    assert covers(text, identity, HOSTS)
