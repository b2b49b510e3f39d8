"""What the loop asks of the store's thread. Pure, one class a verb of `Store`.

Those that come once for each message are tuples: a frozen dataclass costs several times as much to make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gatewayd.message import Identity
from gatewayd.store.messages import Health, NewMessage, StoredMessage, WhenFull

AppendDone = Callable[[tuple[int, ...] | Health], None]
LeaseDone = Callable[[tuple[StoredMessage, ...] | Health], None]
KeepDone = Callable[[bool], None]
TwinDone = Callable[[bytes | None], None]


class Append(NamedTuple):
    messages: Sequence[NewMessage]
    done: AppendDone
    size: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """An append that is answered already; it stands in the queue for the order of the answers."""

    done: AppendDone
    health: Health


class Lease(NamedTuple):
    identity: Identity
    limit: int
    max_bytes: int
    done: LeaseDone


class Settle(NamedTuple):
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Release:
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Expire:
    wall: float


@dataclass(frozen=True, slots=True)
class KeepSubscriptions:
    identity: Identity
    filters: Mapping[str, int]
    done: KeepDone


@dataclass(frozen=True, slots=True)
class KeepTwin:
    identity: Identity
    document: bytes | None


@dataclass(frozen=True, slots=True)
class AskTwin:
    identity: Identity
    done: TwinDone


@dataclass(frozen=True, slots=True)
class Retune:
    max_bytes: int
    when_full: WhenFull


@dataclass(frozen=True, slots=True)
class Probe:
    """The pause after a failure is over: try the disk again."""


Command = (
    Append
    | Refuse
    | Lease
    | Settle
    | Release
    | Expire
    | KeepSubscriptions
    | KeepTwin
    | AskTwin
    | Retune
    | Probe
)
