"""What an attempt at the hub ends with: the token that was presented, or the reason of a failure. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from gatewayd.protocol.iothub.refusals import Ask, Inference


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A SAS token and its life. Instants are monotonic seconds; `expires` is when the wall clock will read `se`.

    The text is the hub password, so `repr` leaves it out.
    """

    text: bytes
    signed: float
    expires: float

    def __repr__(self) -> str:
        return f"SignedToken({len(self.text)} bytes, life {self.expires - self.signed:.0f} s)"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no connection: what it asks of us, in words, and the hub's refusal where one was inferred."""

    ask: Ask
    words: str
    inference: Inference | None = None

    @classmethod
    def of(cls, inference: Inference) -> Failure:
        """The failure that a refusal of the hub is."""
        return cls(inference.refusal.ask, str(inference), inference)


@dataclass(frozen=True, slots=True)
class HandoverReport:
    """How long a handover held the device's messages, in seconds. `drain` is the part spent on acknowledgements."""

    gap: float
    drain: float
    drain_cut: bool
    old_forced: bool
    old_lost: bool
