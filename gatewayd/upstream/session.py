"""The life of one identity at the hub, over any transport. Pure.

One enum of states, one table of transitions. A session remembers what its next steps depend on: whether it is
wanted, when its token ends, what the hub's refusals asked for, how often it failed. `wake` is the instant at
which something must happen if nothing else does before; `now >= wake` calls for `due`.

What a refusal asks (`Ask`), and what is done here:

    WAIT            retry with the same key after a growing, jittered delay
    SIGN_AGAIN      the same: every attempt signs afresh
    TRY_SECONDARY   retry with the other key; when both were refused in a row, or there is only one: PARK
    PARK            probe after 10 min, then 20, 40, at most every hour, each with jitter
    STOP            nothing more until someone wants it anew or asks for a retry

Connections that the hub ends soon after they came up, three times in a row, look like a twin with the same
identity (400027): the session slows down, up to ten minutes between attempts, because two eager twins fight
for ever.

It keeps no queue, no timetable and no budget: `flow.renewal` joins those, and is the only caller.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from gatewayd.backoff import Backoff, BackoffPolicy
from gatewayd.errors import LocalProtocolError
from gatewayd.protocol.iothub.refusals import DUPLICATE_REPEATS, DUPLICATE_SPELL_SECONDS, Ask
from gatewayd.upstream.budget import Permit

K = TypeVar("K", bound=Hashable)
Uniform = Callable[[float, float], float]


class State(enum.IntEnum):
    """Where one identity stands at the hub. IntEnum because states index counters and are hashed at every step."""

    ABSENT = 0  # nobody wants it
    BACKOFF = 1  # down; waits for an instant
    QUEUED = 2  # down; waits for a permit
    OPENING = 3  # an attempt is running
    UP = 4  # connected; a renewal is planned
    RENEWAL_QUEUED = 5  # connected; the renewal is due and waits for a permit
    RENEWING = 6  # connected; a renewal is running
    RENEWAL_BACKOFF = 7  # connected; a renewal failed, the next one waits for an instant
    CLOSING = 8  # told to close; waits for the word that it is closed
    PARKED = 9  # refused for good; probed slowly
    STOPPED = 10  # refused for good; nothing retries by itself


class Input(enum.IntEnum):
    WANTED = 0
    UNWANTED = 1
    DUE = 2  # the planned instant is there
    EXPIRING = 3  # the token in use is about to end, or an attempt takes too long
    PERMITTED = 4
    SUCCEEDED = 5
    RENEWAL_FAILED = 6  # the old connection still works
    DOWN_RETRY = 7  # no connection any more; retry later
    DOWN_PARK = 8
    DOWN_STOP = 9
    DOWN_UNWANTED = 10  # no connection any more, and nobody wants one
    DOWN_AT_ONCE = 11  # no connection any more, and a new one may be opened at once


_S, _I = State, Input
_DOWN: Final = (
    (_I.DOWN_RETRY, _S.BACKOFF),
    (_I.DOWN_PARK, _S.PARKED),
    (_I.DOWN_STOP, _S.STOPPED),
    (_I.DOWN_UNWANTED, _S.ABSENT),
)
_ALIVE: Final = (_S.UP, _S.RENEWAL_QUEUED, _S.RENEWING, _S.RENEWAL_BACKOFF)

# The one place that says what is legal. Every pair not listed is an error of ours.
TRANSITIONS: Final[dict[tuple[State, Input], State]] = {
    (_S.ABSENT, _I.WANTED): _S.QUEUED,
    (_S.BACKOFF, _I.DUE): _S.QUEUED,
    (_S.BACKOFF, _I.UNWANTED): _S.ABSENT,
    (_S.QUEUED, _I.PERMITTED): _S.OPENING,
    (_S.QUEUED, _I.UNWANTED): _S.ABSENT,
    (_S.OPENING, _I.SUCCEEDED): _S.UP,
    (_S.OPENING, _I.EXPIRING): _S.CLOSING,
    (_S.OPENING, _I.UNWANTED): _S.CLOSING,
    (_S.UP, _I.DUE): _S.RENEWAL_QUEUED,
    (_S.RENEWAL_QUEUED, _I.PERMITTED): _S.RENEWING,
    (_S.RENEWING, _I.SUCCEEDED): _S.UP,
    (_S.RENEWING, _I.RENEWAL_FAILED): _S.RENEWAL_BACKOFF,
    (_S.RENEWAL_BACKOFF, _I.DUE): _S.RENEWAL_QUEUED,
    # Reports that crossed with our close: the close goes on, its confirmation ends it.
    (_S.CLOSING, _I.SUCCEEDED): _S.CLOSING,
    (_S.CLOSING, _I.RENEWAL_FAILED): _S.CLOSING,
    (_S.CLOSING, _I.WANTED): _S.CLOSING,
    (_S.CLOSING, _I.UNWANTED): _S.CLOSING,
    (_S.CLOSING, _I.DOWN_AT_ONCE): _S.QUEUED,
    (_S.PARKED, _I.DUE): _S.QUEUED,
    (_S.PARKED, _I.UNWANTED): _S.ABSENT,
    (_S.STOPPED, _I.DUE): _S.QUEUED,
    (_S.STOPPED, _I.UNWANTED): _S.ABSENT,
    **{(state, happened): then for state in (*_ALIVE, _S.OPENING, _S.CLOSING) for happened, then in _DOWN},
    **{(state, _I.UNWANTED): _S.CLOSING for state in _ALIVE},
    **{(state, _I.EXPIRING): _S.CLOSING for state in _ALIVE},
}

# A token is in use at the hub, or may be.
IN_USE: Final = frozenset(_ALIVE)
IN_BUDGET: Final = frozenset({_S.QUEUED, _S.RENEWAL_QUEUED})
ATTEMPTING: Final = frozenset({_S.OPENING, _S.RENEWING})


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """Delays and limits, in seconds."""

    retry: BackoffPolicy = field(default_factory=BackoffPolicy)
    park_first: float = 600.0
    park_ceiling: float = 3600.0
    # A suspected twin: attempts at most this eager.
    twin_first: float = 30.0
    twin_ceiling: float = 600.0
    # A renewal is begun this long before its place, so that CONNECT is written at the place and not a dial later: the
    # dial takes three round trips (TCP, TLS 1.2), and fleets flat to the slot stay flat only if it does not show.
    dial_ahead: float = 0.5
    # The longest an attempt may take before the session is rebuilt; above the sum of a handover's own limits.
    attempt_limit: float = 90.0
    close_limit: float = 15.0
    # A token whose renewals all failed is given up this long before its end, as a fraction of its life and in seconds.
    guard_fraction: float = 0.02
    guard_least: float = 1.0
    guard_most: float = 30.0
    # The shortest wait between two attempts at a renewal.
    renewal_retry_least: float = 1.0

    def guard(self, life: float) -> float:
        """How long before the end of a token of `life` seconds it is given up."""
        return min(self.guard_most, max(self.guard_least, self.guard_fraction * life))


class HubSession(Generic[K]):
    """One identity at the hub. Fields are read by the conductor and changed only here."""

    __slots__ = (
        "_backoff",
        "_failing",
        "_keys_refused",
        "_parked",
        "_short_lives",
        "_up_since",
        "connecting",
        "expires",
        "filed",
        "guard_at",
        "has_secondary",
        "identity",
        "last_ask",
        "permit",
        "planned",
        "secondary",
        "seen_up",
        "signed",
        "state",
        "wake",
        "wanted",
    )

    def __init__(self, identity: K, *, has_secondary: bool) -> None:
        self.identity = identity
        self.has_secondary = has_secondary
        self.secondary = False  # which key the next attempt signs with
        self.state = State.ABSENT
        self.wanted = False
        self.seen_up = False  # it was up since it was wanted, so the next open is a reconnect
        self.connecting = False  # the running attempt has written CONNECT
        self.wake: float | None = None
        self.signed = self.expires = self.planned = self.guard_at = 0.0
        self.last_ask = Ask.WAIT
        self.permit: Permit[HubSession[K]] | None = None  # kept for the conductor
        self.filed = float("inf")  # kept for the conductor: when its earliest timer fires
        self._backoff: Backoff | None = None
        self._failing = False  # something failed since the last success
        self._keys_refused = 0
        self._parked = 0
        self._short_lives = 0
        self._up_since: float | None = None

    @property
    def in_use(self) -> bool:
        """A token of this identity is in use at the hub, as far as we know."""
        return self.state in IN_USE

    @property
    def twin_suspected(self) -> bool:
        """The hub keeps ending this connection soon after it came up."""
        return self._short_lives >= DUPLICATE_REPEATS

    # -- wishes ---------------------------------------------------------------------------------------------------

    def want(self) -> None:
        self.wanted = True
        if self.state in (State.ABSENT, State.CLOSING):
            self._go(Input.WANTED, self.wake)

    def unwant(self, now: float, policy: SessionPolicy) -> None:
        self.wanted = False
        if self.state is not State.ABSENT:
            was_closing = self.state is State.CLOSING
            self._go(Input.UNWANTED, self.wake if was_closing else now + policy.close_limit)

    # -- time -----------------------------------------------------------------------------------------------------

    def due(self, now: float) -> None:
        """The instant of `wake`, or an operator's wish, is there: go on."""
        alive = self.state in (State.UP, State.RENEWAL_BACKOFF)
        self._go(Input.DUE, self.guard_at if alive else None)

    def give_up(self, now: float, policy: SessionPolicy, *, stuck: bool = False) -> None:
        """The token in use is about to end, or the attempt is stuck: close."""
        self._failing = self._failing or stuck
        self._go(Input.EXPIRING, now + policy.close_limit)

    # -- attempts -------------------------------------------------------------------------------------------------

    def permitted(self, now: float, policy: SessionPolicy) -> None:
        limit = now + policy.attempt_limit
        self.connecting = False
        self._go(Input.PERMITTED, limit if self.state is State.QUEUED else min(limit, self.guard_at))

    def connect_written(self, now: float, policy: SessionPolicy) -> None:
        """From here on the old token is not in use any more: only the attempt's own limit counts."""
        self.connecting = True
        if self.state in ATTEMPTING:
            self.wake = now + policy.attempt_limit

    def succeeded(self, signed: float, expires: float, now: float, policy: SessionPolicy) -> None:
        """Connected, or renewed, with a token signed at `signed` that ends at `expires`."""
        opened = self.state is State.OPENING
        self._go(Input.SUCCEEDED, self.wake)
        if self.state is State.CLOSING:
            return
        self.signed, self.expires = signed, expires
        self.guard_at = expires - policy.guard(expires - signed)
        self.connecting = False
        self.seen_up = True
        self.last_ask = Ask.WAIT
        self._failing = False
        self._keys_refused = self._parked = 0
        if opened:
            self._up_since = now
        if self._backoff is not None:
            self._backoff.succeeded(now)

    def plan(self, at: float, policy: SessionPolicy) -> None:
        """The renewal of the token in use is planned for `at`."""
        self.planned = at
        self.wake = min(at - policy.dial_ahead, self.guard_at)

    def renewal_failed(self, ask: Ask, now: float, policy: SessionPolicy, uniform: Uniform) -> None:
        """The attempt is over and the old connection works: the next attempt lies inside what is left of its life."""
        self._go(Input.RENEWAL_FAILED, self.wake)
        if self.state is State.CLOSING:
            return
        self._weigh(ask)
        left = self.guard_at - now
        delay = min(self._delay(now, policy, uniform), max(policy.renewal_retry_least, left / 3.0))
        self.wake = min(now + delay, self.guard_at)

    def down(self, ask: Ask | None, now: float, policy: SessionPolicy, uniform: Uniform) -> None:
        """There is no connection any more. `ask` is what the refusal asks, None when the end was our own doing."""
        was_closing = self.state is State.CLOSING
        self.connecting = False
        if not self.wanted:
            self._go(Input.DOWN_UNWANTED, None)
            return
        if ask is None and was_closing and not self._failing:
            self._go(Input.DOWN_AT_ONCE, None)
            return
        if self.in_use and ask is not None:
            lived = now - self._up_since if self._up_since is not None else 0.0
            self._short_lives = self._short_lives + 1 if lived < DUPLICATE_SPELL_SECONDS else 0
        self._up_since = None
        verdict = self._weigh(self.last_ask if ask is None else ask)
        if verdict is Ask.STOP:
            self._go(Input.DOWN_STOP, None)
        elif verdict is Ask.PARK:
            delay = min(policy.park_ceiling, policy.park_first * 2.0 ** min(self._parked, 16))
            self._parked += 1
            self._go(Input.DOWN_PARK, now + uniform(0.75 * delay, delay))
        else:
            self._go(Input.DOWN_RETRY, now + self._delay(now, policy, uniform))

    def shift_expiry(self, seconds: float, policy: SessionPolicy) -> None:
        """The token in use ends `seconds` earlier than was thought."""
        life = self.expires - self.signed
        self.signed -= seconds
        self.expires -= seconds
        self.guard_at = self.expires - policy.guard(life)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _go(self, happened: Input, wake: float | None) -> None:
        state = TRANSITIONS.get((self.state, happened))
        if state is None:
            raise LocalProtocolError(f"session of {self.identity!r}: {happened.name} while {self.state.name}")
        self.state = state
        self.wake = None if state is State.ABSENT else wake

    def _weigh(self, ask: Ask) -> Ask:
        """What is done about `ask`, given what was tried before."""
        self._failing = True
        self.last_ask = ask
        if ask is not Ask.TRY_SECONDARY:
            return ask
        self._keys_refused += 1
        if self.has_secondary:
            self.secondary = not self.secondary
            if self._keys_refused == 1:
                return ask
        self._keys_refused = 0
        return Ask.PARK

    def _delay(self, now: float, policy: SessionPolicy, uniform: Uniform) -> float:
        if self._backoff is None:
            self._backoff = Backoff(policy.retry)
        self._backoff.policy = policy.retry  # a reload may have changed it
        delay = self._backoff.failed(now, uniform)
        if self.twin_suspected:
            slow = policy.twin_first * 2.0 ** min(self._short_lives - DUPLICATE_REPEATS, 16)
            delay = max(delay, uniform(0.5, 1.0) * min(policy.twin_ceiling, slow))
        return delay
