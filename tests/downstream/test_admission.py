"""Wrong credentials are refused, trouble of ours holds, and nobody but the device itself uses up its limit."""

from __future__ import annotations

import pytest

from gatewayd.downstream.admission import (
    Admission,
    Admitted,
    Decision,
    HeldBecause,
    Hold,
    Refused,
    RefusedBecause,
)
from gatewayd.message import Identity
from gatewayd.protocol.mqtt.packets import Connect
from tests.support.sas_keys import HUB, KeyRing, key_of, sign, username

NOW = 1_800_000_000.0
DEVICE = Identity("dev-01")
MODULE = Identity("dev-01", "mod-a")
PRIMARY, SECONDARY = key_of("primary"), key_of("secondary")
HOSTS = frozenset({HUB, "Gateway.local"})


def ring() -> KeyRing:
    return KeyRing({DEVICE: (PRIMARY, SECONDARY), MODULE: (key_of("module"),)})


def connect(
    identity: Identity = DEVICE,
    *,
    client_id: str | None = None,
    user: str | None = "",
    password: bytes | None = b"",
    key: bytes = PRIMARY,
    expiry: float = NOW + 3600,
) -> Connect:
    """A good CONNECT, unless told otherwise."""
    if user is None:
        password = None
    return Connect(
        client_id=str(identity) if client_id is None else client_id,
        username=username(identity) if user == "" else user,
        password=sign(key, identity, expiry) if password == b"" else password,
    )


def decide(
    admission: Admission,
    packet: Connect,
    *,
    now: float = 0.0,
    wall: float = NOW,
    clock_trusted: bool = True,
    patience: float = 0.0,
    counted: bool = False,
) -> Decision:
    return admission.decide(
        packet, now=now, wall=wall, clock_trusted=clock_trusted, patience=patience, counted=counted
    )


@pytest.mark.parametrize("key", [PRIMARY, SECONDARY])
def test_both_keys_of_a_device_are_accepted(key: bytes) -> None:
    found = decide(Admission(ring(), HOSTS), connect(key=key))
    assert found == Admitted(DEVICE, int(NOW) + 3600, True, "test/1")


def test_a_module_comes_in_with_its_own_key() -> None:
    found = decide(Admission(ring(), HOSTS), connect(MODULE, key=key_of("module")))
    assert isinstance(found, Admitted)
    assert found.identity == MODULE


def test_a_token_that_is_not_encoded_is_accepted() -> None:
    packet = connect(password=sign(PRIMARY, DEVICE, NOW + 60, encode=False))
    assert isinstance(decide(Admission(ring(), HOSTS), packet), Admitted)


def test_a_token_for_the_gateways_own_name_is_accepted() -> None:
    packet = connect(password=sign(PRIMARY, DEVICE, NOW + 60, host="gateway.local"))
    assert isinstance(decide(Admission(ring(), HOSTS), packet), Admitted)


def test_the_host_in_the_user_name_is_not_checked() -> None:
    packet = connect(user=username(DEVICE, host="anything"))
    assert isinstance(decide(Admission(ring(), HOSTS), packet), Admitted)


@pytest.mark.parametrize(
    ("packet", "because"),
    [
        (connect(client_id="a/b/c"), RefusedBecause.CLIENT_ID),
        (connect(user=None), RefusedBecause.NO_CREDENTIAL),
        (connect(password=None), RefusedBecause.NO_CREDENTIAL),
        (connect(user="hub/dev-01"), RefusedBecause.USER_NAME),
        (connect(user=f"{HUB}/dev-01/?x=1"), RefusedBecause.USER_NAME),
        (connect(client_id="dev-02"), RefusedBecause.CLIENT_ID_MISMATCH),
        (connect(client_id="DEV-01"), RefusedBecause.CLIENT_ID_MISMATCH),
        (connect(client_id="dev-01/mod-a"), RefusedBecause.CLIENT_ID_MISMATCH),
        (connect(password=b"secret"), RefusedBecause.MALFORMED_TOKEN),
        (connect(password=b"\xff\xfe"), RefusedBecause.MALFORMED_TOKEN),
        (
            connect(password=sign(PRIMARY, DEVICE, NOW + 60, host="other.azure-devices.net")),
            RefusedBecause.WRONG_AUDIENCE,
        ),
        (connect(password=sign(PRIMARY, Identity("dev-02"), NOW + 60)), RefusedBecause.WRONG_AUDIENCE),
        (connect(Identity("stranger")), RefusedBecause.UNKNOWN_DEVICE),
        (connect(key=key_of("other")), RefusedBecause.BAD_SIGNATURE),
        (connect(MODULE), RefusedBecause.BAD_SIGNATURE),
        (connect(expiry=NOW - 301), RefusedBecause.EXPIRED),
    ],
)
def test_a_wrong_credential_is_refused_with_reason_and_remedy(
    packet: Connect, because: RefusedBecause
) -> None:
    found = decide(Admission(ring(), HOSTS), packet)
    assert isinstance(found, Refused)
    assert found.because is because
    assert found.remedy


def test_a_policys_token_is_told_apart_from_a_wrong_key() -> None:
    packet = connect(password=sign(key_of("policy"), DEVICE, NOW + 60, policy="device"))
    found = decide(Admission(ring(), HOSTS), packet)
    assert isinstance(found, Refused)
    assert "policy" in found.remedy


def test_no_remedy_holds_any_of_the_token() -> None:
    for packet in (connect(key=key_of("other")), connect(expiry=NOW - 999), connect(password=b"c2VjcmV0")):
        found = decide(Admission(ring(), HOSTS), packet)
        assert isinstance(found, Refused)
        assert packet.password is not None
        assert packet.password.decode().split("sig=")[-1][:8] not in found.remedy


def test_five_minutes_of_skew_are_allowed() -> None:
    assert isinstance(decide(Admission(ring(), HOSTS), connect(expiry=NOW - 300)), Admitted)


def test_while_the_clock_is_not_trusted_the_expiry_is_not_checked() -> None:
    admission = Admission(ring(), HOSTS)
    found = decide(admission, connect(expiry=NOW - 9999), clock_trusted=False)
    assert isinstance(found, Admitted)
    assert not found.expiry_checked


def test_while_the_clock_is_not_trusted_the_signature_is_checked() -> None:
    found = decide(Admission(ring(), HOSTS), connect(key=key_of("other")), clock_trusted=False)
    assert isinstance(found, Refused)


def test_the_expiry_is_checked_again_once_the_clock_is_good() -> None:
    admission = Admission(ring(), HOSTS)
    late = decide(admission, connect(expiry=NOW - 301), clock_trusted=False)
    good = decide(admission, connect(expiry=NOW + 60), clock_trusted=False)
    assert isinstance(late, Admitted)
    assert isinstance(good, Admitted)
    refused = admission.recheck(late, wall=NOW)
    assert isinstance(refused, Refused)
    assert refused.because is RefusedBecause.EXPIRED
    checked = admission.recheck(good, wall=NOW)
    assert isinstance(checked, Admitted)
    assert checked.expiry_checked


def test_keys_that_are_not_loaded_hold_and_never_refuse() -> None:
    keys = ring()
    keys.ready = False
    for packet in (connect(), connect(Identity("stranger")), connect(key=key_of("other"))):
        assert decide(Admission(keys, HOSTS), packet) == Hold(HeldBecause.KEYS_NOT_LOADED)


def test_a_device_that_the_hub_refused_is_held() -> None:
    admission = Admission(ring(), HOSTS, unready=lambda identity: HeldBecause.PARKED)
    assert decide(admission, connect()) == Hold(HeldBecause.PARKED)


def test_a_parked_device_with_a_wrong_key_is_refused() -> None:
    admission = Admission(ring(), HOSTS, unready=lambda identity: HeldBecause.PARKED)
    assert isinstance(decide(admission, connect(key=key_of("other"))), Refused)


def test_a_device_that_connects_too_often_gets_a_later_place() -> None:
    admission = Admission(ring(), HOSTS, connects_per_device_per_minute=2)
    found = [decide(admission, connect(), patience=40.0) for _ in range(4)]
    assert isinstance(found[0], Admitted)
    assert isinstance(found[1], Admitted)
    assert found[2] == Hold(HeldBecause.DEVICE_CONNECTS, 30.0)
    assert found[3] == Hold(HeldBecause.DEVICE_CONNECTS, None)


def test_a_place_that_was_kept_is_not_counted_twice() -> None:
    admission = Admission(ring(), HOSTS, connects_per_device_per_minute=1)
    decide(admission, connect())
    assert decide(admission, connect(), patience=60.0) == Hold(HeldBecause.DEVICE_CONNECTS, 60.0)
    assert isinstance(decide(admission, connect(), now=60.0, counted=True), Admitted)


def test_an_impostor_does_not_use_up_the_devices_limit() -> None:
    admission = Admission(ring(), HOSTS, connects_per_device_per_minute=1)
    for _ in range(50):
        assert isinstance(decide(admission, connect(key=key_of("other"))), Refused)
    assert isinstance(decide(admission, connect()), Admitted)


def test_a_device_that_is_held_for_another_reason_uses_up_no_place() -> None:
    keys = ring()
    admission = Admission(keys, HOSTS, connects_per_device_per_minute=1)
    keys.ready = False
    for _ in range(5):
        decide(admission, connect())
    keys.ready = True
    assert isinstance(decide(admission, connect()), Admitted)


def test_a_new_limit_holds_from_then_on() -> None:
    admission = Admission(ring(), HOSTS, connects_per_device_per_minute=1)
    decide(admission, connect())
    assert isinstance(decide(admission, connect()), Hold)
    admission.retune(2)
    assert isinstance(decide(admission, connect()), Admitted)
    assert isinstance(decide(admission, connect()), Admitted)
    assert isinstance(decide(admission, connect()), Hold)
