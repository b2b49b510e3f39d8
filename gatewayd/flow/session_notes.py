"""What the hub sessions went through lately, for people: renewals by the minute, errors by cause and by identity. Pure.

Metrics count for ever and name no device; the log names devices and counts nothing. The status page needs both for a
short while, and reads it here. Bounded: an hour of minutes, one error for each identity, one line for each cause.

An error *stands* until its identity is at the hub again with a token that works, or nobody wants it any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from gatewayd.message import Identity
from gatewayd.protocol.iothub.refusals import Refusal

MINUTE_SECONDS: Final = 60.0
# The running minute and the hour before it.
KEPT_MINUTES: Final = 61

# What stands for a failure in which the hub said nothing: name lookup, TCP, TLS, silence.
NO_CONNECTION: Final = "no_connection"
NO_CONNECTION_REMEDY: Final = (
    "The hub cannot be reached from here: look at name lookup, the route, a firewall before the hub's port, and "
    "whether something in between breaks TLS open. The words say how far it came."
)


@dataclass(frozen=True, slots=True)
class SessionError:
    """One failure. `at` is wall seconds; `refusal` is None when the hub did not say no; `words` say what was seen."""

    at: float
    refusal: Refusal | None
    words: str

    @property
    def key(self) -> str:
        """Its cause, as metrics label it: "401003 credential", or "no_connection"."""
        return NO_CONNECTION if self.refusal is None else f"{self.refusal.code} {self.refusal.cause}"

    @property
    def remedy(self) -> str:
        """What is left for the operator."""
        return NO_CONNECTION_REMEDY if self.refusal is None else self.refusal.remedy


@dataclass(frozen=True, slots=True)
class Minute:
    """Renewals of one minute. `number` counts minutes of the monotonic clock."""

    number: int
    done: int
    failed: int


@dataclass(slots=True)
class CauseTally:
    """How often one cause was met since the start, for how many identities it stands, and whom it met last."""

    last: SessionError
    last_identity: Identity
    count: int = 0
    standing: int = 0


class SessionNotes:
    """The notes. `now` is monotonic seconds."""

    __slots__ = ("_causes", "_errors", "_minutes", "_standing")

    def __init__(self) -> None:
        self._minutes: deque[list[int]] = deque(maxlen=KEPT_MINUTES)  # number, done, failed
        self._errors: dict[Identity, SessionError] = {}
        self._standing: dict[Identity, str] = {}
        self._causes: dict[str, CauseTally] = {}

    def renewal_done(self, now: float) -> None:
        """A token was renewed."""
        self._minute(now)[1] += 1

    def renewal_failed(self, now: float) -> None:
        """A renewal did not come through."""
        self._minute(now)[2] += 1

    def error(self, identity: Identity, error: SessionError) -> None:
        """Something went wrong for `identity`."""
        self.well(identity)
        self._errors[identity] = error
        self._standing[identity] = error.key
        tally = self._causes.get(error.key)
        if tally is None:
            tally = self._causes[error.key] = CauseTally(error, identity)
        tally.last, tally.last_identity = error, identity
        tally.count += 1
        tally.standing += 1

    def well(self, identity: Identity) -> None:
        """`identity` is at the hub, or nobody wants it: its last error is past."""
        key = self._standing.pop(identity, None)
        if key is not None:
            self._causes[key].standing -= 1

    def minutes(self, now: float) -> Iterator[Minute]:
        """The minutes in which anything was renewed or failed to be, oldest first, none older than an hour."""
        oldest = _number(now) - KEPT_MINUTES + 1
        return (Minute(*minute) for minute in self._minutes if minute[0] >= oldest)

    @property
    def causes(self) -> Mapping[str, CauseTally]:
        """By cause, since the start."""
        return self._causes

    @property
    def errors(self) -> Mapping[Identity, SessionError]:
        """The last error of each identity that had one."""
        return self._errors

    @property
    def standing(self) -> Mapping[Identity, str]:
        """Whose last error stands, and its cause."""
        return self._standing

    def _minute(self, now: float) -> list[int]:
        number = _number(now)
        if not self._minutes or self._minutes[-1][0] < number:
            self._minutes.append([number, 0, 0])
        return self._minutes[-1]


def _number(now: float) -> int:
    return int(now // MINUTE_SECONDS)
