"""The registry: files are taken whole or not at all, modules need their device, keys never show in an error."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from gatewayd.emulator import registry
from gatewayd.emulator.registry import (
    Policy,
    RegisteredIdentity,
    Registry,
    RegistryFileError,
    decode_key,
    derive_key,
    derived_identities,
    load_registry,
    parse_csv,
    parse_json,
)

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(32)).decode()


def test_a_csv_file_gives_devices_modules_and_their_state() -> None:
    text = f"id,primary_key,secondary_key,status\ndev-1,{KEY},{OTHER},\ndev-1/mod,{KEY},,\ndev-2,{KEY},,disabled\n"
    loaded = parse_csv(text)
    assert [identity.name for identity in loaded] == ["dev-1", "dev-1/mod", "dev-2"]
    first, module, last = loaded
    assert first.keys == (bytes(range(32)), bytes(32))
    assert module.keys == (bytes(range(32)), bytes(range(32)))
    assert (first.enabled, last.enabled) == (True, False)


def test_a_json_file_gives_devices_and_policies() -> None:
    document = {
        "devices": [{"id": "dev-1", "primary_key": KEY}],
        "policies": [{"name": "device", "primary_key": OTHER, "rights": ["DeviceConnect"]}],
    }
    loaded = parse_json(json.dumps(document))
    assert loaded.find("dev-1") is not None
    policy = loaded.find_policy("device")
    assert policy is not None
    assert policy.rights == {"DeviceConnect"}


def test_the_name_of_the_file_decides_how_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text(f"id,primary_key\na,{KEY}\n")
    (tmp_path / "devices.json").write_text(json.dumps({"devices": [{"id": "b", "primary_key": KEY}]}))
    assert "a" in load_registry(tmp_path / "devices.csv")
    assert "b" in load_registry(tmp_path / "devices.json")


def test_every_problem_of_a_file_is_named_at_once_and_no_key_is_shown() -> None:
    text = f"id,primary_key,secondary_key,status\na,{KEY},,\na,{KEY},,\nb,%%%secret%%%,,\nc,{KEY},,off\nd/m,{KEY},,\n"
    with pytest.raises(RegistryFileError) as caught:
        parse_csv(text)
    assert len(caught.value.problems) == 4
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "line 3",
        "line 4",
        "line 5",
        "d/m",
    ]
    assert "secret" not in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"devices": 1}', '{"devices": [1]}', '{"devices": [{}]}', '{"policies": [{"name": "x"}]}'],
)
def test_json_of_another_shape_is_an_error_of_the_file(text: str) -> None:
    with pytest.raises(RegistryFileError):
        parse_json(text)


def test_a_csv_file_without_its_header_is_an_error_of_the_file() -> None:
    with pytest.raises(RegistryFileError, match="line 1"):
        parse_csv(f"dev-1,{KEY}\n")


@pytest.mark.parametrize("name", ["", "/", "a/", "/m", "a/b/c", "a b", "ä", "x" * 129])
def test_a_name_the_service_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="identity"):
        RegisteredIdentity(name, bytes(32), bytes(32))


@pytest.mark.parametrize("length", [0, 15, 65])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="bytes, allowed"):
        decode_key(base64.b64encode(bytes(length)).decode(), "dev")


def test_a_policy_with_an_unknown_right_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown rights"):
        Policy("device", bytes(32), bytes(32), frozenset({"Connect"}))


def test_a_module_goes_with_its_device() -> None:
    names = Registry(RegisteredIdentity(name, bytes(32), bytes(32)) for name in ("a", "a/m", "ab"))
    assert names.remove("a")
    assert [identity.name for identity in names] == ["ab"]
    assert not names.remove("a")


def test_a_module_without_its_device_is_not_found() -> None:
    assert Registry([RegisteredIdentity("a/m", bytes(32), bytes(32))]).find("a/m") is None


def test_an_identity_can_be_disabled_and_enabled_at_run_time() -> None:
    names = Registry([RegisteredIdentity("a", bytes(32), bytes(32))])
    assert names.enable("a", enabled=False)
    found = names.find("a")
    assert found is not None
    assert not found.enabled
    assert not names.enable("b", enabled=True)


def test_a_derived_key_is_that_of_the_provisioning_articles_example() -> None:
    """ "Symmetric key attestation" (Azure DPS, Microsoft): group key, registration id, derived key."""
    group = base64.b64decode(
        "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
    )
    derived = derive_key(group, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6")
    assert base64.b64encode(derived).decode() == "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="


def test_derived_identities_are_numbered_and_differ_in_their_keys() -> None:
    made = list(derived_identities(bytes(32), 3))
    assert [identity.name for identity in made] == ["device-00000", "device-00001", "device-00002"]
    assert len({identity.primary_key for identity in made}) == 3


def test_the_registry_holds_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_IDENTITIES", 2)
    names = Registry(derived_identities(bytes(32), 2))
    with pytest.raises(ValueError, match="bound"):
        names.put(RegisteredIdentity("more", bytes(32), bytes(32)))
    names.put(RegisteredIdentity("device-00001", bytes(16), bytes(16)))


def test_a_hub_has_no_more_policies_than_the_service_allows() -> None:
    policies = [Policy(f"p{number}", bytes(32), bytes(32), frozenset()) for number in range(17)]
    with pytest.raises(ValueError, match="at most 16"):
        Registry([], policies)
