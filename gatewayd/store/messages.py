"""What goes into the store and what comes out. Pure, frozen."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gatewayd.message import Identity, Telemetry


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be kept. `received_at` and `expires_at` are wall seconds; `leased`: a hub session has it already."""

    message: Telemetry
    priority: int
    received_at: float
    expires_at: float | None
    leased: bool = False


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message that is kept. `seq` ascends in the order of storing and never names another message."""

    seq: int
    message: Telemetry
    priority: int
    received_at: float
    expires_at: float | None


class Health(enum.Enum):
    """What an append can expect."""

    OK = "ok"
    AT_BOUND = "at_bound"  # max_bytes is reached and nothing may be dropped
    DISK_FULL = "disk_full"  # the file system has no room; tried again
    FAILING = "failing"  # the disk refuses; tried again
    CLOSED = "closed"


class WhenFull(enum.Enum):
    """What happens to a message for which there is no room."""

    STOP = "stop"  # not stored, not receipted: the device keeps it
    DROP_OLDEST = "drop_oldest"
    DROP_LOWEST_PRIORITY = (
        "drop_lowest_priority"  # among these the oldest first; never one above the newcomer
    )


@dataclass(frozen=True, slots=True)
class BacklogCount:
    """What is kept for one identity."""

    identity: Identity
    messages: int
    size: int
    top_priority: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What the file holds when it is opened.

    `quarantined` names the damaged file that was put aside; `salvaged` messages came out of it; `lost` did not, None
    when nobody can count them.
    """

    backlog: tuple[BacklogCount, ...] = ()
    subscriptions: Mapping[Identity, Mapping[str, int]] = field(default_factory=dict)
    quarantined: Path | None = None
    salvaged: int = 0
    lost: int | None = 0
