"""Whether a CONNECT may open the hub: user name, client id, token, in the service's order. Pure.

The user name is `{host}/{device}[/{module}]/?api-version=...`; older clients leave out the question mark. The client
id must be exactly the identity the user name speaks of. Every no carries the CONNACK code, the error code the service
logs, the cause and the text.
"""

from __future__ import annotations

from dataclasses import dataclass

from gatewayd.emulator import sas_check
from gatewayd.emulator.event_log import HubCode
from gatewayd.emulator.registry import Registry


@dataclass(frozen=True, slots=True)
class ConnectRefused:
    """The hub's no: what is logged. The wire carries CONNACK 5 alone."""

    code: HubCode
    cause: str
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ConnectAllowed:
    """The hub's yes for `name`, with a token that ends at `expiry` (wall seconds)."""

    name: str
    expiry: int
    policy: str = ""


@dataclass(frozen=True, slots=True)
class UserName:
    """The parts of a CONNECT user name."""

    host: str
    name: str
    api_version: str


def check_connect(
    client_id: str,
    username: str | None,
    password: bytes | None,
    registry: Registry,
    *,
    hostname: str,
    wall: float,
    skew_seconds: float,
) -> ConnectAllowed | ConnectRefused:
    """Judge one CONNECT."""
    parts = parse_username(username or "")
    if parts is None:
        return _unauthorized("username_malformed", "expected host/device[/module]/?api-version=...")
    if not parts.api_version:
        return _unauthorized("api_version_missing", "the user name names no api-version")
    if parts.host.lower() != hostname.lower():
        return _unauthorized("foreign_hub", "the user name names another hub")
    if parts.name != client_id:
        return _unauthorized("client_id_mismatch", "the client id is not the identity of the user name")
    verdict = sas_check.check(
        password, parts.name, registry, hostname=hostname, wall=wall, skew_seconds=skew_seconds
    )
    if isinstance(verdict, sas_check.Refused):
        return ConnectRefused(HubCode.UNAUTHORIZED, verdict.cause, verdict.text, verdict.detail)
    identity = registry.find(parts.name)
    device = identity and registry.find(identity.device_id)
    if identity is None or device is None or not (identity.enabled and device.enabled):
        return ConnectRefused(HubCode.DEVICE_DISABLED, "disabled", f"Device {parts.name} is disabled")
    return ConnectAllowed(parts.name, verdict.expiry, verdict.policy)


def parse_username(username: str) -> UserName | None:
    """The parts of a user name, or None when it has another form."""
    marker = username.find("api-version=")
    slash = username.rfind("/", 0, marker if marker >= 0 else len(username))
    if slash < 0:
        return None
    host, _, name = username[:slash].partition("/")
    if not host or not name or name.count("/") > 1 or not all(name.split("/")):
        return None
    query = username[slash + 1 :].removeprefix("?")
    parameters = dict(part.partition("=")[::2] for part in query.split("&"))
    return UserName(host, name, parameters.get("api-version", ""))


def _unauthorized(cause: str, detail: str) -> ConnectRefused:
    return ConnectRefused(HubCode.UNAUTHORIZED_FORM, cause, "Unauthorized", detail)
