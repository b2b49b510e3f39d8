"""What the status page shows and /api tells, as values, and as JSON with keys that stay. Pure.

Times are wall seconds since 1970; None where there is none. Facts are frozen when they are asked for and shown without
looking anywhere else. No fact holds a key, a token or a payload.

docs/operations.md lists the JSON keys: one may be added, none is renamed or taken away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


class OutboxFigures(Protocol):
    """What is told of the store of messages on disk."""

    @property
    def messages(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def health(self) -> str: ...
    def problems(self) -> Iterator[Concern]:
        """What keeps the daemon from being called ready."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer to a probe. `reasons` say why it is not good; they may also warn while it is."""

    good: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that is not as it should be, and what to do about it."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Bar:
    """Renewals of one minute that begins at `at`: done and failed in the past, planned for the future."""

    at: float
    done: int = 0
    failed: int = 0
    planned: int = 0

    @property
    def total(self) -> int:
        return self.done + self.failed + self.planned


@dataclass(frozen=True, slots=True)
class Renewals:
    """The hour that was and the hour to come, by the minute. `bars[now]` is the minute that runs: it has both."""

    bars: tuple[Bar, ...] = ()
    now: int = 0

    @property
    def done(self) -> int:
        return sum(bar.done for bar in self.bars)

    @property
    def failed(self) -> int:
        return sum(bar.failed for bar in self.bars)

    @property
    def planned(self) -> int:
        return sum(bar.planned for bar in self.bars)

    @property
    def peak(self) -> int:
        """The most in one minute."""
        return max((bar.total for bar in self.bars), default=0)


@dataclass(frozen=True, slots=True)
class Cause:
    """Errors of one cause since the start. `standing`: devices whose last error it is and that are not well since."""

    key: str
    name: str
    count: int
    standing: int
    last_at: float
    last_device: str
    words: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Expiry:
    """A token that ends, and whose it is."""

    device: str
    at: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens in use at the hub. `expired` must be 0."""

    in_use: int = 0
    expired: int = 0
    earliest: Expiry | None = None


@dataclass(frozen=True, slots=True)
class Outbox:
    """The store on disk now. `remedy` is empty while all is well."""

    messages: int
    size: int
    max_bytes: int
    health: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ClockState:
    """The wall clock: whether it may sign, and whether the kernel calls it synchronised (None: it cannot say)."""

    trusted: bool
    synchronized: bool | None
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Reload:
    """The last time the configuration was read: at the start, or by a reload, which may have been refused."""

    at: float
    succeeded: bool
    problems: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """The daemon at one moment."""

    taken_at: float
    version: str
    engine: str
    hub: str
    ready: bool
    concerns: tuple[Concern, ...]
    devices: int
    connected: int
    states: tuple[tuple[str, int], ...]
    renewals: Renewals
    tokens: Tokens
    causes: tuple[Cause, ...]
    outbox: Outbox | None
    clock: ClockState
    reload: Reload


@dataclass(frozen=True, slots=True)
class DeviceError:
    """The last error of a device; it `stands` until the device is at the hub again."""

    at: float
    cause: str
    words: str
    remedy: str
    stands: bool


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One identity. The token's times are None while none is in use."""

    id: str
    state: str
    connected: bool
    signed: float | None = None
    expires: float | None = None
    renews: float | None = None
    error: DeviceError | None = None


@dataclass(frozen=True, slots=True)
class DevicePage:
    """A part of a list of devices: `devices` begins at `offset` of `matched`, out of `total` that there are."""

    taken_at: float
    total: int
    matched: int
    offset: int
    devices: tuple[DeviceFacts, ...]


def fleet_json(facts: FleetFacts) -> dict[str, Any]:
    """What /api/fleet answers."""
    renewals, tokens, outbox = facts.renewals, facts.tokens, facts.outbox
    return {
        "taken_at": facts.taken_at,
        "version": facts.version,
        "engine": facts.engine,
        "hub": facts.hub,
        "ready": facts.ready,
        "concerns": [{"what": one.what, "remedy": one.remedy} for one in facts.concerns],
        "devices": {"total": facts.devices, "connected": facts.connected, "by_state": dict(facts.states)},
        "renewals": {
            "done_last_hour": renewals.done,
            "failed_last_hour": renewals.failed,
            "planned_next_hour": renewals.planned,
            "minutes": [
                {"at": bar.at, "done": bar.done, "failed": bar.failed, "planned": bar.planned}
                for bar in renewals.bars
            ],
        },
        "tokens": {
            "in_use": tokens.in_use,
            "expired": tokens.expired,
            "earliest_expiry": None if tokens.earliest is None else tokens.earliest.at,
            "earliest_expiry_device": None if tokens.earliest is None else tokens.earliest.device,
        },
        "errors": [
            {
                "cause": one.key,
                "name": one.name,
                "count": one.count,
                "standing": one.standing,
                "last_at": one.last_at,
                "last_device": one.last_device,
                "words": one.words,
                "remedy": one.remedy,
            }
            for one in facts.causes
        ],
        "outbox": None
        if outbox is None
        else {
            "messages": outbox.messages,
            "bytes": outbox.size,
            "max_bytes": outbox.max_bytes,
            "health": outbox.health,
            "remedy": outbox.remedy,
        },
        "clock": {
            "trusted": facts.clock.trusted,
            "synchronized": facts.clock.synchronized,
            "remedy": facts.clock.remedy,
        },
        "reload": {
            "at": facts.reload.at,
            "succeeded": facts.reload.succeeded,
            "problems": list(facts.reload.problems),
            "remedy": facts.reload.remedy,
        },
    }


def devices_json(page: DevicePage) -> dict[str, Any]:
    """What /api/devices answers."""
    return {
        "taken_at": page.taken_at,
        "total": page.total,
        "matched": page.matched,
        "offset": page.offset,
        "devices": [_device_json(one) for one in page.devices],
    }


def _device_json(device: DeviceFacts) -> dict[str, Any]:
    error = device.error
    return {
        "id": device.id,
        "state": device.state,
        "connected": device.connected,
        "token_signed": device.signed,
        "token_expires": device.expires,
        "renewal_planned": device.renews,
        "last_error": None
        if error is None
        else {
            "at": error.at,
            "cause": error.cause,
            "words": error.words,
            "remedy": error.remedy,
            "stands": error.stands,
        },
    }
