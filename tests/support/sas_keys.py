"""Keys and tokens made with the standard library alone: the independent half of every check on tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import quote, quote_plus, unquote

from gatewayd.downstream.admission import Verdict
from gatewayd.message import Identity

HUB = "myhub.azure-devices.net"


def key_of(name: str) -> bytes:
    """A key of 32 bytes, base64, that differs by name."""
    return base64.b64encode(hashlib.sha256(name.encode()).digest())


def sign(
    key: bytes,
    identity: Identity,
    expiry: float,
    *,
    host: str = HUB,
    encode: bool = True,
    policy: str | None = None,
) -> bytes:
    """A token as the Azure SDKs make it; `encode=False` leaves `sr` literal, as the C SDK does."""
    resource = f"{host}/devices/{identity.device_id}"
    if identity.module_id is not None:
        resource += f"/modules/{identity.module_id}"
    if encode:
        resource = quote(resource, safe="")
    digest = hmac.digest(base64.b64decode(key), f"{resource}\n{int(expiry)}".encode(), "sha256")
    text = f"SharedAccessSignature sr={resource}&sig={quote_plus(base64.b64encode(digest))}&se={int(expiry)}"
    return (text if policy is None else f"{text}&skn={policy}").encode()


def username(identity: Identity, host: str = HUB) -> str:
    return f"{host}/{identity}/?api-version=2021-04-12&DeviceClientType=test%2F1"


class KeyRing:
    """Checks tokens as a small hub would, with its own parser. `ready` can be switched off."""

    def __init__(self, keys: dict[Identity, tuple[bytes, ...]]) -> None:
        self.keys = keys
        self.ready = True

    def verify(self, identity: Identity, token: bytes) -> Verdict:
        if not self.ready:
            return Verdict.NOT_READY
        if identity not in self.keys:
            return Verdict.UNKNOWN_DEVICE
        fields = dict(part.split("=", 1) for part in token.decode().split(" ", 1)[1].split("&"))
        message = f"{fields['sr']}\n{fields['se']}".encode()
        for key in self.keys[identity]:
            expected = base64.b64encode(hmac.digest(base64.b64decode(key), message, "sha256")).decode()
            if hmac.compare_digest(expected, unquote(fields["sig"])):
                return Verdict.AUTHENTIC
        return Verdict.FORGED
