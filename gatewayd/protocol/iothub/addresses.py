"""How IoT Hub names a client on MQTT: the client id and the user name, parsed and built.

A user name is `{host}/{device}[/{module}]/?api-version={version}[&DeviceClientType={type}][&…]`. Ids stand there as
they are, not percent-encoded. Older clients leave out the `?`. The host is the hub's even when the client dials a
gateway, and is not checked here: edgeHub does not check it either. `api-version` must be there, with any value; other
parameters are passed over. The same rules as edgeHub's MqttUsernameParser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gatewayd.errors import RemoteProtocolError
from gatewayd.message import Identity
from gatewayd.protocol.iothub import properties

# The newest api-version that a Microsoft device SDK sends (azure-iot-device for Node 1.18).
API_VERSION: Final = "2021-04-12"

_API_VERSION_KEY: Final = "api-version"


@dataclass(frozen=True, slots=True)
class UserName:
    """What a client says about itself."""

    host: str
    identity: Identity
    api_version: str
    client_type: str = ""
    model_id: str = ""


def parse_username(text: str) -> UserName:
    """Read a user name; raises RemoteProtocolError that says which part is missing."""
    segments = text.split("/")
    at = _parameters_at(segments)
    if at is None:
        raise RemoteProtocolError("user name is not {hub}/{device}[/{module}]/?api-version=…")
    bag = "/".join(segments[at:])
    api_version = properties.find(bag, _API_VERSION_KEY)
    if not api_version:
        raise RemoteProtocolError("user name has no api-version")
    try:
        identity = Identity(segments[1], segments[2] if at == 3 else None)
    except ValueError as error:
        raise RemoteProtocolError(f"user name: {error}") from error
    if not segments[0]:
        raise RemoteProtocolError("user name has no host name")
    return UserName(
        segments[0],
        identity,
        api_version,
        properties.find(bag, "DeviceClientType") or "",
        properties.find(bag, "model-id") or "",
    )


def build_username(host: str, identity: Identity, client_type: str, api_version: str = API_VERSION) -> str:
    """Our own user name at the hub; `client_type` such as "gatewayd/0.1.0" is percent-encoded."""
    return (
        f"{host}/{identity}/?{_API_VERSION_KEY}={quote(api_version, safe='')}"
        f"&DeviceClientType={quote(client_type, safe='')}"
    )


def client_id(identity: Identity) -> str:
    """The MQTT client id of an identity: "device" or "device/module"."""
    return str(identity)


def _parameters_at(segments: list[str]) -> int | None:
    """Which segment begins the parameters: 2 for a device, 3 for a module, None when neither does.

    Ids may begin with `?` themselves, and parameters may hold a slash, so the surest sign is looked for first.
    """
    candidates = [at for at in (2, 3) if at < len(segments)]
    for is_sign in (
        lambda segment: segment.removeprefix("?").startswith(f"{_API_VERSION_KEY}="),
        lambda segment: segment.startswith("?"),
        lambda segment: f"{_API_VERSION_KEY}=" in segment,
    ):
        for at in candidates:
            if is_sign(segments[at]):
                return at
    return None
