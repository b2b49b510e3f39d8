"""Every exception of gatewayd, and for each one who must act.

`acts` answers the reader's first question: is this mine to mend? Messages say what, with which value, and what was
expected; they never hold a key, a token or a payload.

    GatewaydError
    ├── LocalProtocolError   WE        our own code used a protocol core wrongly
    ├── RemoteProtocolError  PEER      the other end broke the protocol
    ├── NativeSignerError    WE        the C signer could not start or failed its known answers
    ├── ConfigError          OPERATOR  every problem of a configuration at once
    ├── KeyMalformed         OPERATOR  a key that cannot be used; names the identity, never the key
    ├── DeviceFileError      OPERATOR  a device file that cannot be read whole
    ├── ClockUntrusted       OPERATOR  signing is refused while the wall clock is known wrong
    ├── HandshakeFailed      PEER      a client of ours could not finish the TLS handshake
    ├── ConnectionLost       NOBODY    an open connection broke: reset, timed out, or damaged in its TLS
    ├── DialFailed           NOBODY    the hub cannot be reached right now; the next attempt is scheduled
    ├── StoreTooNew          OPERATOR  the outbox was written by a newer gatewayd; it is left as it is
    ├── StoreInUse           OPERATOR  another process holds the outbox
    ├── StoreUnusable        OPERATOR  the outbox is not a file that we can read and write
    └── Bounded              NOBODY    a written bound was reached; the caller has an answer for it
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar


class Actor(enum.Enum):
    """Who must act for an error to go away."""

    WE = "we"
    PEER = "peer"
    OPERATOR = "operator"
    NOBODY = "nobody"


class GatewaydError(Exception):
    """The root of all exceptions raised by gatewayd itself."""

    acts: ClassVar[Actor] = Actor.WE


class LocalProtocolError(GatewaydError):
    """A protocol core was asked for something its state does not allow: a bug of ours."""


class RemoteProtocolError(GatewaydError):
    """The peer sent what the protocol forbids. `clause` names the rule, such as "MQTT-3.1.0-1"."""

    acts = Actor.PEER

    def __init__(self, problem: str, *, clause: str = "") -> None:
        super().__init__(f"{problem} [{clause}]" if clause else problem)
        self.problem = problem
        self.clause = clause


class NativeSignerError(GatewaydError):
    """The signer in C refused: its self-test failed, its memory is gone, or it was used after close or fork."""


class KeyMalformed(GatewaydError):
    """A key is not usable base64 of 16 to 64 bytes. Names the identity it was given for, never the key."""

    acts = Actor.OPERATOR

    def __init__(self, identity: str, problem: str) -> None:
        super().__init__(f"key of {identity!r}: {problem}")
        self.identity = identity
        self.problem = problem


class DeviceFileError(GatewaydError):
    """A device file cannot be used, with all of its problems. Lines and identities only, never a line's text."""

    acts = Actor.OPERATOR

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong in a configuration: where, what, and what is allowed instead."""

    path: str
    problem: str
    allowed: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path} (line {self.line})"
        hint = f" (allowed: {self.allowed})" if self.allowed else ""
        return f"{place}: {self.problem}{hint}"


class ConfigError(GatewaydError):
    """A configuration that cannot be used, with all of its problems."""

    acts = Actor.OPERATOR

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class ClockUntrusted(GatewaydError):
    """Nothing is signed with a clock that is known wrong (promise *clock*)."""

    acts = Actor.OPERATOR


class HandshakeFailed(GatewaydError):
    """A client reached a listener of ours and could not finish the TLS handshake, or not in time."""

    acts = Actor.PEER


class ConnectionLost(GatewaydError):
    """An open connection broke: reset, timed out, or its TLS was damaged. Whoever needs it makes a new one."""

    acts = Actor.NOBODY


class DialFailed(GatewaydError):
    """A connection to the hub could not be made: DNS, TCP or TLS said no, or the deadline passed."""

    acts = Actor.NOBODY

    def __init__(self, stage: str, problem: str) -> None:
        super().__init__(f"{stage}: {problem}")
        self.stage = stage
        self.problem = problem


class Bounded(GatewaydError):
    """A queue, buffer or table is at its written bound."""

    acts = Actor.NOBODY


class StoreTooNew(GatewaydError):
    """A newer gatewayd wrote this outbox. Nothing in it was touched."""

    acts = Actor.OPERATOR

    def __init__(self, path: str, *, found: int, known: int) -> None:
        super().__init__(
            f"outbox {path}: its schema has version {found}, this gatewayd knows versions up to {known}. "
            f"The file was left as it is. Run the gatewayd that wrote it, or name another file in [outbox] path"
        )
        self.found = found
        self.known = known


class StoreInUse(GatewaydError):
    """Another process holds the outbox: one file has one owner."""

    acts = Actor.OPERATOR

    def __init__(self, path: str) -> None:
        super().__init__(f"outbox {path}: another process holds it, expected it free")


class StoreUnusable(GatewaydError):
    """The outbox cannot be made or opened where the configuration names it."""

    acts = Actor.OPERATOR

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"outbox {path}: {problem}")
        self.problem = problem
