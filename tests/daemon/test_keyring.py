"""The fleet's keys in the key table; the tokens made with them are checked with the standard library's HMAC."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from gatewayd.daemon.keyring import Keyring
from gatewayd.errors import DeviceFileError, KeyMalformed
from gatewayd.message import Identity
from tests.support.emulated_hub import HOSTNAME, device_key, device_key_text, sas_token

EXPIRY = 1_900_000_000


def second_key(name: str) -> bytes:
    return device_key(f"{name}:2")


def device_file(folder: Path, *names: str, secondary: bool = True) -> Path:
    path = folder / "devices.csv"
    path.write_text(
        "".join(
            f"{name},{device_key_text(name)},"
            f"{base64.b64encode(second_key(name)).decode() if secondary else ''}\n"
            for name in names
        )
    )
    path.chmod(0o600)
    return path


def test_every_key_signs_for_its_own_identity(tmp_path: Path) -> None:
    names = ("dev-01", "dev-02/module", "dev.03")
    ring = Keyring(HOSTNAME, capacity=6)
    assert not ring.loaded
    assert ring.load(device_file(tmp_path, *names), check_permissions=True) == 3
    assert ring.loaded
    for name in names:
        keys = ring.by_identity[Identity.parse(name)]
        assert keys.secondary is not None
        token = ring.signer.sign_one(keys.primary, EXPIRY).decode()
        assert token == sas_token(HOSTNAME, name, device_key(name), EXPIRY)
        token = ring.signer.sign_one(keys.secondary, EXPIRY).decode()
        assert token == sas_token(HOSTNAME, name, second_key(name), EXPIRY)
    ring.close()


def test_indices_are_primary_first_and_none_for_a_stranger(tmp_path: Path) -> None:
    ring = Keyring(HOSTNAME, capacity=4)
    ring.load(device_file(tmp_path, "dev-01"), check_permissions=True)
    keys = ring.by_identity[Identity("dev-01")]
    assert ring.indices(Identity("dev-01")) == (keys.primary, keys.secondary)
    assert ring.indices(Identity("dev-02")) is None
    ring.close()


def test_an_identity_may_have_one_key_only(tmp_path: Path) -> None:
    ring = Keyring(HOSTNAME, capacity=4)
    ring.load(device_file(tmp_path, "dev-01", secondary=False), check_permissions=True)
    assert ring.indices(Identity("dev-01")) == (ring.by_identity[Identity("dev-01")].primary,)
    ring.close()


def test_a_key_that_is_none_is_named_by_its_device_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text(f"dev-01,{device_key_text('dev-01')},\ndev-02,not*a*key,\n")
    path.chmod(0o600)
    ring = Keyring(HOSTNAME, capacity=4)
    with pytest.raises((KeyMalformed, DeviceFileError)) as caught:
        ring.load(path, check_permissions=True)
    assert "dev-02" in str(caught.value)
    assert "not*a*key" not in str(caught.value)
    assert not ring.loaded
    ring.close()


def test_a_file_that_has_grown_since_it_was_counted_is_loaded_all_the_same(tmp_path: Path) -> None:
    ring = Keyring(HOSTNAME, capacity=0)
    assert ring.load(device_file(tmp_path, "dev-01", "dev-02"), check_permissions=True) == 2
    ring.close()


def test_a_file_others_can_read_is_refused_unless_somebody_else_guards_it(tmp_path: Path) -> None:
    path = device_file(tmp_path, "dev-01")
    path.chmod(0o644)
    ring = Keyring(HOSTNAME, capacity=2)
    with pytest.raises(DeviceFileError):
        ring.load(path, check_permissions=True)
    assert ring.load(path, check_permissions=False) == 1
    ring.close()


def test_memory_that_cannot_be_locked_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = Keyring(HOSTNAME, capacity=2)
    monkeypatch.setattr(type(ring.table), "locked", property(lambda table: False))
    ring.load(device_file(tmp_path, "dev-01"), check_permissions=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "LimitMEMLOCK=" in caplog.text
    ring.close()
