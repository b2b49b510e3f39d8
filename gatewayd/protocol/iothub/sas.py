"""Shared access signature tokens as text: taken apart, and held against an identity. No HMAC here.

    SharedAccessSignature sr={audience}&sig={signature}&se={expiry}[&skn={policy}]

Fields come in any order; each comes once, and no other is known. The signature covers `sr` and `se` exactly as they
stand in the token, so both are kept raw: generators encode the same audience in five ways (percent-encoded in upper or
lower hex, not at all, by segment, or twice), and all of them are in the field. Decoding is for authorisation only.

Microsoft's article "Control access to IoT Hub with shared access signatures" defines the format; the five ways are
those of the Azure device SDKs for Python, Node, .NET, C and Java.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from gatewayd.errors import RemoteProtocolError
from gatewayd.message import Identity

# `MaxClockSkew` of the Azure device SDK for .NET and of edgeHub: a token counts as expired this long after `se`.
MAX_CLOCK_SKEW_SECONDS: Final = 300
# Far above any token in the field (about 250 characters); a bound for what is taken apart.
MAX_TOKEN_LENGTH: Final = 4096

_SCHEME: Final = "SharedAccessSignature "
_FIELDS: Final = frozenset({"sr", "sig", "se", "skn"})
# 2^63 has 19 digits.
_MAX_EXPIRY_DIGITS: Final = 19


@dataclass(frozen=True, slots=True)
class SasToken:
    """A token's fields as they stand in it, still encoded, and the expiry as a number. `repr` leaves them out."""

    audience: str
    signature: str
    expiry_text: str
    expiry: int
    policy: str | None

    def __repr__(self) -> str:
        return f"SasToken(expiry={self.expiry})"

    @property
    def signed_text(self) -> str:
        """What the signature covers."""
        return f"{self.audience}\n{self.expiry_text}"

    def expired(self, wall_now: float, skew: float = MAX_CLOCK_SKEW_SECONDS) -> bool:
        """Whether the token has run out at `wall_now`, allowing for `skew` seconds between the two clocks."""
        return self.expiry + skew < wall_now


def parse(text: str) -> SasToken:
    """Take a token apart; raises RemoteProtocolError, which never holds any of the token's text."""
    if len(text) > MAX_TOKEN_LENGTH:
        raise RemoteProtocolError(f"SAS token is longer than {MAX_TOKEN_LENGTH} characters")
    if not text.startswith(_SCHEME):
        raise RemoteProtocolError(f"SAS token does not begin with {_SCHEME.strip()!r} and one space")
    fields: dict[str, str] = {}
    for part in text[len(_SCHEME) :].split("&"):
        name, equals, value = part.partition("=")
        if not equals or name not in _FIELDS:
            raise RemoteProtocolError("SAS token has a field that is not sr, sig, se or skn")
        if name in fields:
            raise RemoteProtocolError(f"SAS token has {name} twice")
        if not value:
            raise RemoteProtocolError(f"SAS token has an empty {name}")
        fields[name] = value
    missing = [name for name in ("sr", "sig", "se") if name not in fields]
    if missing:
        raise RemoteProtocolError(f"SAS token has no {', '.join(missing)}")
    expiry = fields["se"]
    if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= _MAX_EXPIRY_DIGITS):
        raise RemoteProtocolError("SAS token's se is not a number of seconds")
    return SasToken(fields["sr"], fields["sig"], expiry, int(expiry), fields.get("skn"))


def resource(host: str, identity: Identity) -> str:
    """What a token of an identity is for, as people write it: `hub/devices/d` or `hub/devices/d/modules/m`."""
    return "/".join(_path(host, identity))


def audience(host: str, identity: Identity) -> str:
    """The `sr` we sign for an identity: percent-encoded once, in upper hex, as azure-iot-device does."""
    return quote(resource(host, identity), safe="")


def covers(raw_audience: str, identity: Identity, hosts: frozenset[str]) -> bool:
    """Whether a token's raw `sr` gives a right over `identity` at one of `hosts` (lower case).

    The audience may be a prefix, by whole path segments: `hub` and `hub/devices` cover every device. Host and ids
    compare without case, as edgeHub and the .NET SDK do; the device's own key is what proves the identity. Ids are
    tried as they stand, decoded once, and decoded twice, because .NET and edgeHub encode twice and C not at all.
    """
    target = [segment.lower() for segment in _path("", identity)[1:]]
    text = raw_audience
    for _ in range(3):
        host, *path = text.lower().split("/")
        if host in hosts and path == target[: len(path)]:
            return True
        text = unquote(text, errors="surrogateescape")
    return False


def _path(host: str, identity: Identity) -> list[str]:
    path = [host, "devices", identity.device_id]
    if identity.module_id is not None:
        path += ["modules", identity.module_id]
    return path
