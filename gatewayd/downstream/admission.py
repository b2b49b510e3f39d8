"""Who may come in: a CONNECT becomes an identity, a refusal, or a hold. No socket here; time is an argument.

Promises:
- A wrong credential is refused with CONNACK 5. Nothing else ever is: a stray 5 during a reconnect silences a Python
  device for good. Trouble of ours is a `Hold`: the session waits, asks again, and only then answers 3.
- The signature is checked over the token's raw text, with both keys of the device; the client id must be the one the
  user name and the token speak of. Ids that the file does not know are refused.
- While our clock is known wrong the signature is checked and the expiry is not; `recheck` does that later.
- Only a device that proved who it is counts against its id's connect limit, so nobody can use up another's.

Not here: certificates and local passwords, which come later; MQTT's own rules, which `protocol.mqtt` keeps.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gatewayd.downstream.connect_limits import RateLimit
from gatewayd.errors import RemoteProtocolError
from gatewayd.message import Identity
from gatewayd.protocol.iothub import sas
from gatewayd.protocol.iothub.addresses import UserName, parse_username
from gatewayd.protocol.mqtt.packets import Connect


class Verdict(enum.Enum):
    """What a verifier says about a token."""

    AUTHENTIC = "authentic"
    FORGED = "forged"
    UNKNOWN_DEVICE = "unknown_device"
    NOT_READY = "not_ready"


class TokenVerifier(Protocol):
    """Checks signatures. Expiry and audience are not its business."""

    def verify(self, identity: Identity, token: bytes) -> Verdict:
        """Whether one of the keys of `identity` signed `token`, in constant time for each key.

        NOT_READY while keys are being loaded: the device waits, and is not called unknown.
        """


class RefusedBecause(enum.Enum):
    """Why a credential is wrong: the label of gatewayd_device_refusals_total."""

    CLIENT_ID = "client_id"
    USER_NAME = "user_name"
    CLIENT_ID_MISMATCH = "client_id_mismatch"
    NO_CREDENTIAL = "no_credential"
    MALFORMED_TOKEN = "malformed_token"  # noqa: S105  # a reason, not a password
    WRONG_AUDIENCE = "wrong_audience"
    UNKNOWN_DEVICE = "unknown_device"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"


class HeldBecause(enum.Enum):
    """Why a device that did nothing wrong must wait: the label of gatewayd_device_refusals_total."""

    KEYS_NOT_LOADED = "keys_not_loaded"
    DEVICE_CONNECTS = "device_connects"
    ADDRESS_CONNECTS = "address_connects"
    OVERLOAD = "overload"
    PARKED = "parked_by_hub"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who came in. `expiry_checked` is False while the clock was not trusted: `Admission.recheck` is owed."""

    identity: Identity
    expiry: int
    expiry_checked: bool
    client_type: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A wrong credential. `remedy` is for the log: what the operator should look at."""

    because: RefusedBecause
    remedy: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Trouble that may pass. `seconds`: a place is kept for then; None when nobody knows how long it takes."""

    because: HeldBecause
    seconds: float | None = None


Decision = Admitted | Refused | Hold


class Admission:
    """Decides on CONNECTs. One for a listener."""

    def __init__(
        self,
        verifier: TokenVerifier,
        hosts: frozenset[str],
        *,
        connects_per_device_per_minute: int = 30,
        unready: Callable[[Identity], HeldBecause | None] = lambda identity: None,
        skew: float = sas.MAX_CLOCK_SKEW_SECONDS,
    ) -> None:
        """`hosts`: the hub's name and the gateway's own, which a token's audience may begin with.

        `unready` says why a device cannot be served right now although its credential is good, such as PARKED.
        """
        self._verifier = verifier
        self._hosts = frozenset(host.lower() for host in hosts)
        self._unready = unready
        self._skew = skew
        self.retune(connects_per_device_per_minute)

    def retune(self, connects_per_device_per_minute: int) -> None:
        """Take a new connect limit; what was counted before is forgotten."""
        self._limit = RateLimit(connects_per_device_per_minute, 60.0)

    def decide(
        self,
        connect: Connect,
        *,
        now: float,
        wall: float,
        clock_trusted: bool,
        patience: float,
        counted: bool,
    ) -> Decision:
        """What to answer to a CONNECT. `now` is monotonic, `wall` is for the token's expiry.

        `patience` is how many seconds the connection may still be held, `counted` whether a place under the connect
        limit was kept for it when it was asked about before.
        """
        name = self._name(connect)
        if isinstance(name, Refused):
            return name
        token = self._token(connect, name.identity)
        if not isinstance(token, sas.SasToken):
            return token
        if clock_trusted and token.expired(wall, self._skew):
            return self._expired(token, wall)
        held = self._unready(name.identity)
        if held is not None:
            return Hold(held)
        if not counted:
            wait = self._limit.reserve(str(name.identity), now, patience)
            if wait != 0:
                return Hold(HeldBecause.DEVICE_CONNECTS, wait)
        return Admitted(name.identity, token.expiry, clock_trusted, name.client_type)

    def recheck(self, admitted: Admitted, *, wall: float) -> Admitted | Refused:
        """Check the expiry of one who came in while the clock was not trusted, now that it is."""
        if admitted.expiry + self._skew < wall:
            return Refused(RefusedBecause.EXPIRED, _clock_remedy(admitted.expiry, wall))
        return Admitted(admitted.identity, admitted.expiry, True, admitted.client_type)

    def _name(self, connect: Connect) -> UserName | Refused:
        try:
            identity = Identity.parse(connect.client_id)
        except ValueError:
            return Refused(RefusedBecause.CLIENT_ID, "the client id must be device or device/module")
        if connect.username is None:
            return Refused(RefusedBecause.NO_CREDENTIAL, "the device must send a user name and a SAS token")
        try:
            name = parse_username(connect.username)
        except RemoteProtocolError as error:
            return Refused(RefusedBecause.USER_NAME, error.problem)
        if name.identity != identity:
            return Refused(
                RefusedBecause.CLIENT_ID_MISMATCH,
                "client id and user name must name the same device and module",
            )
        return name

    def _token(self, connect: Connect, identity: Identity) -> sas.SasToken | Refused | Hold:
        if not connect.password:
            return Refused(RefusedBecause.NO_CREDENTIAL, "the device must send a SAS token as its password")
        try:
            token = sas.parse(connect.password.decode("ascii"))
        except UnicodeDecodeError:
            return Refused(RefusedBecause.MALFORMED_TOKEN, "a SAS token is ASCII text")
        except RemoteProtocolError as error:
            return Refused(RefusedBecause.MALFORMED_TOKEN, error.problem)
        if not sas.covers(token.audience, identity, self._hosts):
            return Refused(
                RefusedBecause.WRONG_AUDIENCE,
                "the token is for another hub or another device; see HostName in the device's connection string",
            )
        match self._verifier.verify(identity, connect.password):
            case Verdict.AUTHENTIC:
                return token
            case Verdict.NOT_READY:
                return Hold(HeldBecause.KEYS_NOT_LOADED)
            case Verdict.UNKNOWN_DEVICE:
                return Refused(RefusedBecause.UNKNOWN_DEVICE, "add the device to the device file")
            case Verdict.FORGED:
                return Refused(RefusedBecause.BAD_SIGNATURE, _signature_remedy(token))

    def _expired(self, token: sas.SasToken, wall: float) -> Refused:
        return Refused(RefusedBecause.EXPIRED, _clock_remedy(token.expiry, wall))


def _signature_remedy(token: sas.SasToken) -> str:
    if token.policy is not None:
        return "the token is signed with a policy's key, which is not known here; use the device's own key"
    return "the device's key is not the one in the device file; was it regenerated?"


def _clock_remedy(expiry: int, wall: float) -> str:
    return f"the token ran out {wall - expiry:.0f} s ago; see the device's clock and the gateway's"
