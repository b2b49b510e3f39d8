"""What the hub meant by ending a connection without a word, seen over all connections of one identity. Pure.

MQTT 3.1.1 has no DISCONNECT from a server, so every reason looks the same. What tells them apart is how long the
connection had lived, whether its token was at its end, and whether the last ones ended as soon too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from gatewayd.protocol.iothub.refusals import DUPLICATE_SPELL_SECONDS, Inference, classify_close
from gatewayd.protocol.mqtt.events import Closed
from gatewayd.upstream.outcome import SignedToken

# How near its expiry, as a share of its life and in seconds, a token's connection may be cut because of it. `se` has
# whole seconds.
_NEAR_EXPIRY: Final = 0.02
_LEAST_NEAR_EXPIRY: Final = 1.0


class EndedLink(Protocol):
    """What is asked about a connection that ended."""

    @property
    def accepted_at(self) -> float | None: ...
    @property
    def connect_sent(self) -> bool: ...
    @property
    def token(self) -> SignedToken | None: ...


class HubEnds:
    """The ends of one identity's connections."""

    __slots__ = ("_clock_trusted", "_short_lives")

    def __init__(self, clock_trusted: Callable[[], bool]) -> None:
        self._clock_trusted = clock_trusted
        self._short_lives = 0

    def infer(
        self, link: EndedLink, closed: Closed, now: float, *, connack: Inference | None = None
    ) -> Inference | None:
        """What the hub meant; None when the end was ours. `connack`: what its CONNACK said, if it refused."""
        connected_for = None if link.accepted_at is None else now - link.accepted_at
        if connected_for is not None and connected_for > DUPLICATE_SPELL_SECONDS:
            self._short_lives = 0
        if closed.planned or link.token is None or not link.connect_sent:
            return None
        if connected_for is None:
            if connack is not None:
                return connack
        elif connected_for <= DUPLICATE_SPELL_SECONDS:
            self._short_lives += 1
        # Our own fast handover is never the reason: the old connection has said DISCONNECT, so its end is planned.
        return classify_close(
            connected_for=connected_for,
            expired_for=self._expired_for(link.token, now),
            short_lives=self._short_lives,
        )

    def _expired_for(self, token: SignedToken, now: float) -> float | None:
        """Seconds since the token's expiry; None when a cut now has nothing to do with it.

        A cut a little before the expiry may come from a hub whose clock runs ahead. But of a token that lives for
        seconds, a few of them are a large part, and any cut would be called an expiry.
        """
        expired_for = now - token.expires
        near = max(_LEAST_NEAR_EXPIRY, _NEAR_EXPIRY * (token.expires - token.signed))
        return expired_for if self._clock_trusted() and expired_for >= -near else None
