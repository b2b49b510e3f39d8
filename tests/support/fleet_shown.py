"""A fleet for the status page: every state, every kind of error, a clock that is known wrong, an outbox that fills.

Made up, and whole: what a person may meet on the page is here, so that the page can be looked at without a hub.
"""

from __future__ import annotations

from dataclasses import replace

from gatewayd.daemon.fleet_facts import (
    Bar,
    Cause,
    ClockState,
    Concern,
    DeviceError,
    DeviceFacts,
    DevicePage,
    Expiry,
    FleetFacts,
    Outbox,
    Reload,
    Renewals,
    Tokens,
)
from gatewayd.daemon.status_words import CLOCK_WRONG, NOBODY_AT_HUB, RELOAD_REFUSED, STATES, health_remedy
from gatewayd.protocol.iothub.refusals import TABLE

NOW = 1_800_000_000.0
EVIL = '<script>alert("x")</script>&amp;\''

_CREDENTIAL = next(row for row in TABLE if (row.code, row.cause) == (401003, "credential"))
_BUSY = next(row for row in TABLE if (row.code, row.cause) == (503001, "busy"))


def renewals(per_minute: int = 9) -> Renewals:
    """An hour that was, flat but for an outage, and an hour to come."""
    bars = []
    for place in range(121):
        wave = per_minute - (place * 7) % 3
        past, coming = place <= 60, place >= 60
        bars.append(
            Bar(
                at=NOW + 60.0 * (place - 60) - 20.0,
                done=0 if not past or 31 <= place <= 34 else wave // 2 if place == 60 else wave,
                failed=2 if place in {30, 35} else 0,
                planned=0 if not coming else wave - wave // 2 if place == 60 else wave,
            )
        )
    return Renewals(tuple(bars), 60)


GOOD = FleetFacts(
    taken_at=NOW,
    version="0.1.0",
    engine="sha-ni x2",
    hub="contoso.azure-devices.net",
    ready=True,
    concerns=(),
    devices=500,
    connected=491,
    states=(("absent", 7), ("backoff", 2), ("up", 488), ("renewing", 1), ("parked", 2)),
    renewals=renewals(),
    tokens=Tokens(489, 0, Expiry("pump-0117", NOW + 540.0)),
    causes=(
        Cause(
            "401003 credential",
            _CREDENTIAL.name,
            9,
            2,
            NOW - 190.0,
            "pump-0042",
            "inferred: CONNACK 5 with a good clock and a fresh token",
            _CREDENTIAL.remedy,
        ),
        Cause(
            "503001 busy",
            _BUSY.name,
            31,
            0,
            NOW - 1560.0,
            "meter/flow",
            "inferred: CONNACK 3: the hub throttles new connections",
            _BUSY.remedy,
        ),
    ),
    outbox=Outbox(0, 0, 512 << 20, "ok", ""),
    clock=ClockState(True, True),
    reload=Reload(NOW - 86_400.0 * 3, True),
)

BAD = replace(
    GOOD,
    ready=False,
    concerns=(
        Concern("the wall clock is known wrong, nothing is signed: set it", CLOCK_WRONG),
        Concern("none of 500 wanted identities is at the hub", NOBODY_AT_HUB),
    ),
    states=(("parked", 500),),
    tokens=Tokens(3, 1, Expiry("pump-0117", NOW - 30.0)),
    outbox=Outbox(120_433, 489 << 20, 512 << 20, "at_bound", health_remedy("at_bound")),
    clock=ClockState(False, False, CLOCK_WRONG),
    reload=Reload(NOW - 300.0, False, ("tokens.lifetime (line 12): 60 has no unit",), RELOAD_REFUSED),
)


def device(number: int) -> DeviceFacts:
    state = "parked" if number == 42 else "backoff" if number == 43 else "up"
    at_hub = state == "up"
    error = None
    if number in {42, 43, 44}:
        error = DeviceError(NOW - 190.0, "401003 credential", "CONNACK 5", _CREDENTIAL.remedy, number != 44)
    return DeviceFacts(
        f"pump-{number:04}",
        state,
        number % 50 != 1,
        NOW - 60.0 * number if at_hub else None,
        NOW + 3600.0 - 60.0 * number if at_hub else None,
        NOW + 3000.0 - 60.0 * number if at_hub else None,
        error,
    )


def page(count: int = 20, first: int = 30, total: int = 500) -> DevicePage:
    return DevicePage(NOW, total, total, 0, tuple(device(first + row) for row in range(count)))


# One of each state, so that none is without a word.
EVERY_STATE = DevicePage(
    NOW, len(STATES), len(STATES), 0, tuple(DeviceFacts(f"in-{name}", name, True) for name in STATES)
)
