"""Who may read what on the status server. Nothing here knows HTTP but the words of its headers.

Probes answer everyone. With a token everything else asks for it: as `Authorization: Bearer`, or once in a form, after
which a cookie stands for it. The cookie is a sealed expiry, made with a secret of this run and the token: it tells
nothing, and ends with the run. Without a token, what names devices is told only where others cannot come, and only to
requests that were meant for this machine: a page on the web that has its own name point here learns nothing.

A wrong token costs a try. Whoever has none left is not looked at until another comes, so guessing is slow; there is no
try to lose for readers with a good cookie.
"""

from __future__ import annotations

import enum
import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gatewayd.daemon.status_token import StatusToken

_LOG: Final = logging.getLogger(__name__)

COOKIE: Final = "gatewayd_status"
# A working day; then the token is asked for again.
COOKIE_SECONDS: Final = 12 * 3600
# Tries at once, and how soon another comes: 8,640 guesses a day.
TRIES: Final = 5
TRY_SECONDS: Final = 10.0
# Addresses that are remembered; the oldest is forgotten.
MOST_PEERS: Final = 1024

_OPEN: Final = frozenset({"/livez", "/readyz"})
_STATIC: Final = "/static/"
_BEARER: Final = "bearer "


class Access(enum.Enum):
    """What is done about a request."""

    GRANTED = "granted"
    ASK = "a token is needed"
    WRONG = "this is not the token"
    PACED = "too many wrong tokens"
    CLOSED = "nothing says who may read this from outside"
    FOREIGN = "the request names another host"


@dataclass(frozen=True, slots=True)
class Asker:
    """What a request says about who sends it. `peer` is its address, empty on a socket in the file system."""

    peer: str
    host: str
    authorization: str = ""
    cookie: str = ""


class StatusAccess:
    """The rules of one run."""

    def __init__(
        self,
        token: StatusToken | None,
        *,
        wide: bool,
        metrics_for_all: bool,
        secret: bytes,
        monotonic: Callable[[], float],
    ) -> None:
        """`wide`: others than this machine's users can come. `secret`: 32 random bytes that seal cookies."""
        self._token = token
        self._wide = wide
        self._metrics_for_all = metrics_for_all
        self._secret = secret
        self._monotonic = monotonic
        self._tries = _Tries()

    @property
    def asks_for_token(self) -> bool:
        return self._token is not None

    def judge(self, path: str, asker: Asker) -> Access:
        """Whether what lies at `path` is told to `asker`."""
        if path in _OPEN or path.startswith(_STATIC):
            return Access.GRANTED
        if path == "/metrics" and (self._metrics_for_all or (self._token is None and not self._wide)):
            return Access.GRANTED
        if self._token is None:
            if self._wide:
                return Access.CLOSED
            return Access.GRANTED if not asker.peer or _is_this_machine(asker.host) else Access.FOREIGN
        if asker.cookie and self._is_sealed(self._token, asker.cookie):
            return Access.GRANTED
        if asker.authorization[: len(_BEARER)].lower() != _BEARER:
            return Access.ASK
        return self._try(self._token, asker.authorization[len(_BEARER) :].strip().encode(), asker.peer)

    def log_in(self, shown: bytes, peer: str) -> tuple[Access, str]:
        """What becomes of a token typed into the form, and the cookie when it is the right one."""
        if self._token is None:
            return Access.CLOSED, ""
        access = self._try(self._token, shown.strip(), peer)
        if access is not Access.GRANTED:
            return access, ""
        ends = str(int(self._monotonic()) + COOKIE_SECONDS)
        return access, f"{ends}.{self._token.seal(self._secret, ends.encode())}"

    def _try(self, token: StatusToken, shown: bytes, peer: str) -> Access:
        now, who = self._monotonic(), _network(peer)
        if not self._tries.left(who, now):
            return Access.PACED
        if token.is_shown_by(shown):
            return Access.GRANTED
        if self._tries.spend(who, now):
            _LOG.warning(
                "%s shows wrong tokens to the status server: it is answered slowly now",
                peer or "a local user",
            )
        return Access.WRONG

    def _is_sealed(self, token: StatusToken, cookie: str) -> bool:
        ends, _, seal = cookie.partition(".")
        if not (ends.isascii() and ends.isdigit() and len(ends) <= 12):
            return False
        expected = StatusToken(token.seal(self._secret, ends.encode()).encode())
        return expected.is_shown_by(seal.encode("utf-8", "replace")) and self._monotonic() < int(ends)


class _Tries:
    """Wrong tokens by network, as buckets that fill again. Bounded."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[float, float]] = {}  # how many, and when that was

    def left(self, who: str, now: float) -> bool:
        return self._now(who, now) <= TRIES - 1

    def spend(self, who: str, now: float) -> bool:
        """Take one; whether it was the last."""
        spent = self._now(who, now) + 1.0
        self._spent.pop(who, None)
        self._spent[who] = (spent, now)
        if len(self._spent) > MOST_PEERS:
            del self._spent[next(iter(self._spent))]
        return spent > TRIES - 1

    def _now(self, who: str, now: float) -> float:
        spent, at = self._spent.get(who, (0.0, now))
        return max(0.0, spent - (now - at) / TRY_SECONDS)


def _network(peer: str) -> str:
    """Who is counted together: an IPv4 address, or the 64 bits of an IPv6 network that one reader may have whole."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _is_this_machine(host: str) -> bool:
    """Whether a Host header names an address or localhost, not a name that anyone may point here."""
    name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in {"", "localhost"} or name.lower().endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
