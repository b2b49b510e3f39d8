"""Client ids and user names as the SDKs send them. The texts below were seen on the wire or stand in the docs."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import RemoteProtocolError
from gatewayd.message import Identity
from gatewayd.protocol.iothub.addresses import build_username, client_id, parse_username

DEVICE = Identity("leaf1")
MODULE = Identity("leaf1", "mod")
ID_CHARACTERS = "abcXYZ019-.%_#*?!(),:=@$'+"


@pytest.mark.parametrize(
    ("text", "identity", "api_version", "client_type"),
    [
        (
            "myhub.azure-devices.net/leaf1/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py"
            "%2F2.14.0%283.11.2%3BLinux%29",
            DEVICE,
            "2019-10-01",
            "azure-iot-device-iothub-py/2.14.0(3.11.2;Linux)",
        ),
        (
            "myhub.azure-devices.net/leaf1/?api-version=2021-04-12&model-id=dtmi:com:example:Thermostat;1"
            "&DeviceClientType=azure-iot-device%2F1.18.4%20(node%20v20)",
            DEVICE,
            "2021-04-12",
            "azure-iot-device/1.18.4 (node v20)",
        ),
        ("myhub.azure-devices.net/leaf1/api-version=2016-11-14", DEVICE, "2016-11-14", ""),
        ("myhub.azure-devices.net/leaf1/mod/?api-version=2020-09-30", MODULE, "2020-09-30", ""),
        ("gw/leaf1/mod/api-version=2018-06-30&DeviceClientType=x%2Fy", MODULE, "2018-06-30", "x/y"),
        ("gw/leaf1/?DeviceClientType=a/b&api-version=1", DEVICE, "1", "a/b"),
        ("gw/leaf1/?x=y&api-version=2018-06-30&unknown=z", DEVICE, "2018-06-30", ""),
        ("gw/?odd/?api-version=1", Identity("?odd"), "1", ""),
    ],
)
def test_a_user_name_is_read(text: str, identity: Identity, api_version: str, client_type: str) -> None:
    name = parse_username(text)
    assert name.identity == identity
    assert name.api_version == api_version
    assert name.client_type == client_type


def test_a_model_id_is_read_raw_and_encoded() -> None:
    raw = parse_username("h/d/?api-version=1&model-id=dtmi:com:x;1")
    encoded = parse_username("h/d/?api-version=1&model-id=dtmi%3Acom%3Ax%3B1")
    assert raw.model_id == encoded.model_id == "dtmi:com:x;1"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not"),
        ("hub", "is not"),
        ("hub/leaf1", "is not"),
        ("hub/leaf1/mod", "is not"),
        ("hub/leaf1/mod/extra/?api-version=1", "is not"),
        ("hub/leaf1/?DeviceClientType=x", "no api-version"),
        ("hub/leaf1/?api-version=", "no api-version"),
        ("hub//?api-version=1", "non-empty id"),
        ("hub/leaf1//?api-version=1", "non-empty id"),
        ("/leaf1/?api-version=1", "no host name"),
    ],
)
def test_a_bad_user_name_is_refused_with_what_is_missing(text: str, problem: str) -> None:
    with pytest.raises(RemoteProtocolError, match=problem):
        parse_username(text)


def test_our_own_user_name_reads_as_a_url_query() -> None:
    name = build_username("myhub.azure-devices.net", MODULE, "gatewayd/0.1.0")
    parts = urlsplit(f"//{name}")
    assert parts.netloc + parts.path == "myhub.azure-devices.net/leaf1/mod/"
    assert parse_qs(parts.query) == {"api-version": ["2021-04-12"], "DeviceClientType": ["gatewayd/0.1.0"]}
    assert "gatewayd%2F0.1.0" in name


def test_a_client_id_is_device_or_device_slash_module() -> None:
    assert (client_id(DEVICE), client_id(MODULE)) == ("leaf1", "leaf1/mod")


@given(
    st.text(ID_CHARACTERS, min_size=1, max_size=20),
    st.none() | st.text(ID_CHARACTERS, min_size=1, max_size=20),
)
def test_every_identity_comes_back_from_our_own_user_name(device: str, module: str | None) -> None:
    identity = Identity(device, module)
    built = build_username("h", identity, "gatewayd/0.1.0")
    if "api-version=" not in (module or ""):
        assert parse_username(built).identity == identity
