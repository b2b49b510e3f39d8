"""The tokens presented to the hub: which key of which identity, for how long, and only with a trusted clock.

A token is signed when a connection is about to present it, so its life counts from there. Promise *clock*: with a clock
that is known wrong nothing is signed, `ClockUntrusted` is raised instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gatewayd.clock import Clock
from gatewayd.errors import ClockUntrusted, LocalProtocolError
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.upstream.outcome import SignedToken


@dataclass(frozen=True, slots=True)
class KeyIndices:
    """Where an identity's keys lie in the key table."""

    primary: int
    secondary: int | None = None


class TokenSigner(Protocol):
    """`tokens.signer.Signer` is the one."""

    def sign_one(self, index: int, expiry: int) -> bytes: ...


class HubTokens:
    """Signs for the hub. `lifetime`, in seconds, may be changed while running."""

    __slots__ = ("_clock", "_clock_trusted", "_keys", "_signatures", "_signer", "lifetime")

    def __init__(
        self,
        signer: TokenSigner,
        keys: Mapping[Identity, KeyIndices],
        clock: Clock,
        clock_trusted: Callable[[], bool],
        lifetime: float,
        metrics: Metrics,
    ) -> None:
        self._signer = signer
        self._keys = keys
        self._clock = clock
        self._clock_trusted = clock_trusted
        self._signatures = metrics.token_signatures
        self.lifetime = lifetime

    def has_secondary(self, identity: Identity) -> bool:
        """Whether there is a second key to try."""
        keys = self._keys.get(identity)
        return keys is not None and keys.secondary is not None

    def sign(self, identity: Identity, *, secondary: bool) -> SignedToken:
        """A token for `identity` from now on."""
        if not self._clock_trusted():
            raise ClockUntrusted("nothing is signed while the wall clock is known wrong; set the clock")
        keys = self._keys.get(identity)
        if keys is None:
            raise LocalProtocolError(f"{identity} has no key")
        index = keys.secondary if secondary and keys.secondary is not None else keys.primary
        now, wall = self._clock.monotonic(), self._clock.wall()
        # `se` has whole seconds. Rounded down, a life would be up to 1 s short and the rate above its floor.
        expiry = math.ceil(wall + self.lifetime)
        text = self._signer.sign_one(index, expiry)
        self._signatures.inc()
        return SignedToken(text, now, now + (expiry - wall))
