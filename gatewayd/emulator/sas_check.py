"""Checks a SAS token as the service does, with nothing but the standard library.

The signature is computed over the audience (`sr`) exactly as it stands in the token, still encoded: every SDK encodes
it in its own way and all of them are right. Only afterwards `sr` is decoded, once or twice (the C# SDK and edgeHub
encode ids twice), and compared with the identity that connects.

A token signed with an identity's own key (no `skn`) opens that identity alone. A token signed with a policy's key
opens everything below its audience, segment by segment, when the policy may DeviceConnect.

This file shares no code with gatewayd's own signer and verifier, so that one mistake cannot sit on both sides.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from gatewayd.emulator.registry import Policy, RegisteredIdentity, Registry

_SCHEME = "SharedAccessSignature "
_FIELDS = frozenset({"sr", "sig", "se", "skn"})

# A token is a few hundred bytes; what is longer than this is no token (MQTT allows a password of 65,535 bytes).
MAX_TOKEN_BYTES = 8192


class AuthCause(StrEnum):
    """The sub-causes of 401003 that a token can have."""

    NO_AUTHORIZATION = "no_authorization_header"
    UNKNOWN_DEVICE = "unknown_device"
    RULE_WITHOUT_RIGHT = "rule_without_right"
    BAD_TOKEN = "bad_token"  # noqa: S105 - a cause, not a secret
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Refused:
    """No, with the cause, the service's own sentence, and what the emulator saw beyond it."""

    cause: AuthCause
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Authorized:
    """Yes, until `expiry` (wall seconds); `policy` names the rule that signed, or is empty."""

    expiry: int
    policy: str = ""


@dataclass(frozen=True, slots=True)
class SasToken:
    """The fields of a token; `sr` and `sig` as they stand there, still encoded."""

    sr: str
    sig: str
    se: int
    skn: str = ""


class NotAToken(ValueError):
    """Text that does not have the form of a SAS token. Holds none of it."""


def check(
    password: bytes | None,
    name: str,
    registry: Registry,
    *,
    hostname: str,
    wall: float,
    skew_seconds: float,
) -> Authorized | Refused:
    """Whether `password` opens the hub for the identity `name` at wall time `wall`."""
    if not password:
        return Refused(AuthCause.NO_AUTHORIZATION, "Authorization header missing")
    identity = registry.find(name)
    if identity is None:
        hub = hostname.partition(".")[0]
        text = f"IotHub '{hub}' does not contain the specified device '{name}'"
        return Refused(AuthCause.UNKNOWN_DEVICE, text)
    try:
        token = parse(password)
    except NotAToken as error:
        return _bad(str(error))
    if not token.skn:
        return _check_own_key(token, identity, hostname, wall, skew_seconds)
    policy = registry.find_policy(token.skn)
    if policy is None:
        return _bad(f"no policy {token.skn!r}")
    return _check_policy_key(token, identity, policy, hostname, wall, skew_seconds)


def parse(password: bytes) -> SasToken:
    """Read a token. Fields in any order, each at most once, none beyond sr, sig, se, skn."""
    if len(password) > MAX_TOKEN_BYTES:
        raise NotAToken(f"{len(password)} bytes, at most {MAX_TOKEN_BYTES}")
    try:
        text = password.decode("ascii")
    except UnicodeDecodeError:
        raise NotAToken("not ASCII") from None
    if not text.startswith(_SCHEME):
        raise NotAToken("does not begin with SharedAccessSignature")
    fields: dict[str, str] = {}
    for part in text[len(_SCHEME) :].split("&"):
        name, equals, value = part.partition("=")
        if not equals or name not in _FIELDS:
            raise NotAToken("a field other than sr, sig, se, skn")
        if name in fields:
            raise NotAToken(f"{name} twice")
        fields[name] = value
    if missing := {"sr", "sig", "se"} - set(fields):
        raise NotAToken(f"without {', '.join(sorted(missing))}")
    expiry = fields["se"]
    if not expiry.isdecimal() or len(expiry) > 12:
        raise NotAToken("se is not a number of seconds")
    return SasToken(fields["sr"], fields["sig"], int(expiry), unquote(fields.get("skn", "")))


def sign(key: bytes, sr: str, se: int) -> bytes:
    """HMAC-SHA256 over the audience as it stands, a line feed, and the expiry."""
    return hmac.new(key, f"{sr}\n{se}".encode(), hashlib.sha256).digest()


def _check_own_key(
    token: SasToken, identity: RegisteredIdentity, hostname: str, wall: float, skew_seconds: float
) -> Authorized | Refused:
    if not _signed_by(token, identity.keys):
        return _bad("the signature is of neither key")
    if not any(_same(audience, hostname, identity.resource) for audience in _audiences(token.sr)):
        return _bad("the audience is of another identity or hub")
    return _check_expiry(token, wall, skew_seconds) or Authorized(token.se)


def _check_policy_key(
    token: SasToken,
    identity: RegisteredIdentity,
    policy: Policy,
    hostname: str,
    wall: float,
    skew_seconds: float,
) -> Authorized | Refused:
    if not _signed_by(token, policy.keys):
        return _bad(f"the signature is of neither key of policy {policy.name!r}")
    resource = f"{hostname}/{identity.resource}"
    if "DeviceConnect" not in policy.rights:
        text = f"Authorization rule '{policy.name}' does not allow access for '{resource}'"
        return Refused(AuthCause.RULE_WITHOUT_RIGHT, text, "the policy lacks DeviceConnect")
    if not any(_covers(audience, hostname, identity.resource) for audience in _audiences(token.sr)):
        return _bad("the audience does not cover this identity")
    return _check_expiry(token, wall, skew_seconds) or Authorized(token.se, policy.name)


def _check_expiry(token: SasToken, wall: float, skew_seconds: float) -> Refused | None:
    if token.se + skew_seconds > wall:
        return None
    return Refused(AuthCause.EXPIRED, RENEW_TEXT, f"expired {wall - token.se:.1f} s ago")


# The service's sentence for a bad signature, a foreign audience and an expired token alike.
RENEW_TEXT = "Authentication failed for this device, renew token or certificate and reconnect"


def _bad(detail: str) -> Refused:
    return Refused(AuthCause.BAD_TOKEN, RENEW_TEXT, detail)


def _signed_by(token: SasToken, keys: tuple[bytes, ...]) -> bool:
    try:
        theirs = base64.b64decode(unquote(token.sig), validate=True)
    except (binascii.Error, ValueError):
        return False
    return any(hmac.compare_digest(sign(key, token.sr, token.se), theirs) for key in keys)


def _audiences(sr: str) -> tuple[str, str]:
    once = unquote(sr)
    return once, unquote(once)


def _same(audience: str, hostname: str, resource: str) -> bool:
    host, _, path = audience.partition("/")
    return host.lower() == hostname.lower() and path == resource


def _covers(audience: str, hostname: str, resource: str) -> bool:
    """Prefix by whole segments: `hub/devices/a` covers `hub/devices/a/modules/m`, not `hub/devices/ab`."""
    host, _, path = audience.partition("/")
    return host.lower() == hostname.lower() and (
        not path or f"{resource}/".startswith(f"{path.rstrip('/')}/")
    )
