"""The identity registry of the emulated hub: devices, modules and shared access policies.

An identity is named as it appears in a client id: `device` or `device/module`. Each has a primary and a secondary key
of its own and may be disabled; a module exists only below a device that exists. Policies are the hub's shared access
policies: a name (`skn` in a token), two keys and rights.

Loads CSV (`id,primary_key,secondary_key[,status]`, header needed) and JSON
(`{"devices": [{"id", "primary_key", "secondary_key", "status"}], "policies": [{"name", "primary_key",
"secondary_key", "rights"}]}`). A file is taken whole or not at all; its errors name line or entry and identity, never
a key. Keys are held as plain bytes: this is a test hub, it guards nothing.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

# Device ids of the service: up to 128 of these ASCII characters ("Identity properties", Understand the identity
# registry in your IoT hub, Microsoft).
_ID_PART = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@$']{1,128}")

# Service keys are 16 to 64 bytes before base64.
MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 64

# One hub holds at most a million devices and modules (IoT Hub quotas and throttling, Microsoft); a desk holds fewer.
MAX_IDENTITIES = 200_000

RIGHTS = frozenset({"RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"})
MAX_POLICIES = 16


class RegistryFileError(Exception):
    """A device file that cannot be used, with every problem found in it. Holds no key."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class RegisteredIdentity:
    """One device or module."""

    name: str
    primary_key: bytes
    secondary_key: bytes
    enabled: bool = True

    def __post_init__(self) -> None:
        check_identity_name(self.name)
        for key in (self.primary_key, self.secondary_key):
            _check_key(key, self.name)

    @property
    def keys(self) -> tuple[bytes, bytes]:
        return self.primary_key, self.secondary_key

    @property
    def device_id(self) -> str:
        return self.name.partition("/")[0]

    @property
    def resource(self) -> str:
        """The path of this identity below the host name, as a token's audience spells it."""
        return resource_of(self.name)


@dataclass(frozen=True, slots=True)
class Policy:
    """A shared access policy of the hub."""

    name: str
    primary_key: bytes
    secondary_key: bytes
    rights: frozenset[str]

    def __post_init__(self) -> None:
        for key in (self.primary_key, self.secondary_key):
            _check_key(key, f"policy {self.name}")
        if unknown := self.rights - RIGHTS:
            raise ValueError(
                f"policy {self.name}: unknown rights {sorted(unknown)}, allowed {sorted(RIGHTS)}"
            )

    @property
    def keys(self) -> tuple[bytes, bytes]:
        return self.primary_key, self.secondary_key


class Registry:
    """All identities and policies; changes at run time take effect with the next CONNECT."""

    __slots__ = ("_identities", "_policies")

    def __init__(
        self, identities: Iterable[RegisteredIdentity] = (), policies: Iterable[Policy] = ()
    ) -> None:
        self._identities: dict[str, RegisteredIdentity] = {}
        self._policies: dict[str, Policy] = {}
        for identity in identities:
            self.put(identity)
        for policy in policies:
            self.put_policy(policy)

    def __len__(self) -> int:
        return len(self._identities)

    def __iter__(self) -> Iterator[RegisteredIdentity]:
        return iter(self._identities.values())

    def __contains__(self, name: object) -> bool:
        return name in self._identities

    def find(self, name: str) -> RegisteredIdentity | None:
        """The identity, or None; a module whose device is gone is gone too."""
        identity = self._identities.get(name)
        if identity is None or identity.device_id not in self._identities:
            return None
        return identity

    def find_policy(self, name: str) -> Policy | None:
        return self._policies.get(name)

    def put(self, identity: RegisteredIdentity) -> None:
        """Add or replace."""
        if identity.name not in self._identities and len(self._identities) >= MAX_IDENTITIES:
            raise ValueError(f"the registry holds {MAX_IDENTITIES} identities, which is its bound")
        self._identities[identity.name] = identity

    def put_policy(self, policy: Policy) -> None:
        if policy.name not in self._policies and len(self._policies) >= MAX_POLICIES:
            raise ValueError(f"a hub has at most {MAX_POLICIES} policies")
        self._policies[policy.name] = policy

    def remove(self, name: str) -> bool:
        """Delete an identity, and with a device its modules; False when it was not there."""
        if self._identities.pop(name, None) is None:
            return False
        for module in [other for other in self._identities if other.startswith(f"{name}/")]:
            del self._identities[module]
        return True

    def enable(self, name: str, *, enabled: bool) -> bool:
        """Enable or disable; False when the identity does not exist."""
        identity = self._identities.get(name)
        if identity is None:
            return False
        self._identities[name] = replace(identity, enabled=enabled)
        return True


def check_identity_name(name: str) -> None:
    parts = name.split("/")
    if len(parts) > 2 or not all(_ID_PART.fullmatch(part) for part in parts):
        raise ValueError(f"identity {name!r}: expected device or device/module of the service's characters")


def resource_of(name: str) -> str:
    device, slash, module = name.partition("/")
    return f"devices/{device}/modules/{module}" if slash else f"devices/{device}"


def decode_key(text: str, owner: str) -> bytes:
    """The bytes of a base64 key; ValueError names the owner, never the key."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise ValueError(f"key of {owner}: not base64") from None
    _check_key(key, owner)
    return key


def derive_key(group_key: bytes, registration_id: str) -> bytes:
    """The device key of a symmetric enrollment group: HMAC-SHA256(group key, registration id)."""
    return hmac.new(group_key, registration_id.encode(), hashlib.sha256).digest()


def derived_identities(group_key: bytes, count: int, prefix: str = "device-") -> Iterator[RegisteredIdentity]:
    """`device-00000` and its brothers, each with the key derived from one group key."""
    for number in range(count):
        name = f"{prefix}{number:05d}"
        key = derive_key(group_key, name)
        yield RegisteredIdentity(name, key, key)


def load_registry(path: Path) -> Registry:
    """Read a device file, CSV or (by its name) JSON."""
    text = path.read_text(encoding="utf-8")
    return parse_json(text) if path.suffix == ".json" else parse_csv(text)


def parse_csv(text: str) -> Registry:
    rows = csv.DictReader(text.splitlines())
    wanted = {"id", "primary_key"}
    if not wanted <= set(rows.fieldnames or ()):
        raise RegistryFileError(["line 1: expected the header id,primary_key,secondary_key[,status]"])
    entries = (
        (f"line {rows.line_num}", {key: value or "" for key, value in row.items() if key}) for row in rows
    )
    return Registry(_read_identities(entries))


def parse_json(text: str) -> Registry:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise RegistryFileError([f"not JSON: {error}"]) from None
    if not isinstance(document, dict) or not isinstance(document.get("devices", []), list):
        raise RegistryFileError(['expected an object with a list "devices"'])
    entries = ((f"devices[{number}]", entry) for number, entry in enumerate(document.get("devices", [])))
    identities = _read_identities(entries)
    problems: list[str] = []
    policies: list[Policy] = []
    for number, entry in enumerate(document.get("policies", [])):
        try:
            name = str(entry["name"])
            primary = decode_key(str(entry["primary_key"]), name)
            secondary = decode_key(str(entry.get("secondary_key") or entry["primary_key"]), name)
            policies.append(Policy(name, primary, secondary, frozenset(entry["rights"])))
        except (ValueError, TypeError, KeyError) as error:
            problems.append(f"policies[{number}]: {error}")
    if problems:
        raise RegistryFileError(problems)
    return Registry(identities, policies)


def _read_identities(entries: Iterable[tuple[str, dict[str, str]]]) -> list[RegisteredIdentity]:
    problems: list[str] = []
    found: dict[str, RegisteredIdentity] = {}
    for place, entry in entries:
        try:
            identity = _read_identity(entry)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(f"{place}: {error}")
            continue
        if identity.name in found:
            problems.append(f"{place}: {identity.name} is listed twice")
        found[identity.name] = identity
    problems += [f"{name}: its device is not listed" for name in found if name.partition("/")[0] not in found]
    if problems:
        raise RegistryFileError(problems)
    return list(found.values())


def _read_identity(entry: dict[str, str]) -> RegisteredIdentity:
    name = entry["id"].strip()
    primary = decode_key(entry["primary_key"], name)
    secondary = decode_key(entry.get("secondary_key") or entry["primary_key"], name)
    status = (entry.get("status") or "enabled").strip()
    if status not in {"enabled", "disabled"}:
        raise ValueError(f"{name}: status {status!r}, allowed enabled or disabled")
    return RegisteredIdentity(name, primary, secondary, enabled=status == "enabled")


def _check_key(key: bytes, owner: str) -> None:
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"key of {owner}: {len(key)} bytes, allowed {MIN_KEY_BYTES} to {MAX_KEY_BYTES}")
