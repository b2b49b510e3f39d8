"""The notes for people: what is kept of renewals and errors, and for how long."""

from __future__ import annotations

import pytest

from gatewayd.flow.session_notes import (
    KEPT_MINUTES,
    NO_CONNECTION,
    NO_CONNECTION_REMEDY,
    Minute,
    SessionError,
    SessionNotes,
)
from gatewayd.message import Identity
from gatewayd.protocol.iothub.refusals import TABLE

ONE, TWO = Identity("dev-01"), Identity("dev-02")
CREDENTIAL = next(row for row in TABLE if (row.code, row.cause) == (401003, "credential"))
REFUSED = SessionError(1000.0, CREDENTIAL, "CONNACK 5")
UNREACHABLE = SessionError(1001.0, None, "no route to host")


def test_renewals_are_counted_in_the_minute_of_their_instant() -> None:
    notes = SessionNotes()
    for now in (0.0, 59.9, 60.0):
        notes.renewal_done(now)
    notes.renewal_failed(60.5)
    notes.renewal_done(179.0)
    assert list(notes.minutes(180.0)) == [Minute(0, 2, 0), Minute(1, 1, 1), Minute(2, 1, 0)]


def test_minutes_older_than_an_hour_are_not_told_and_not_kept() -> None:
    notes = SessionNotes()
    for minute in range(10 * KEPT_MINUTES):
        notes.renewal_done(60.0 * minute)
    now = 60.0 * (10 * KEPT_MINUTES - 1)
    assert len(list(notes.minutes(now))) == KEPT_MINUTES
    assert len(list(notes.minutes(now + 600.0))) == KEPT_MINUTES - 10
    assert list(notes.minutes(now + 7200.0)) == []


def test_an_error_stands_until_its_identity_is_well_and_is_remembered_after() -> None:
    notes = SessionNotes()
    notes.error(ONE, REFUSED)
    notes.error(TWO, REFUSED)
    tally = notes.causes["401003 credential"]
    assert (tally.count, tally.standing, tally.last_identity) == (2, 2, TWO)
    notes.well(ONE)
    notes.well(ONE)
    assert (tally.count, tally.standing) == (2, 1)
    assert dict(notes.standing) == {TWO: "401003 credential"}
    assert notes.errors[ONE] is REFUSED


def test_an_identity_stands_under_its_latest_cause_alone() -> None:
    notes = SessionNotes()
    notes.error(ONE, REFUSED)
    notes.error(ONE, UNREACHABLE)
    notes.error(ONE, UNREACHABLE)
    assert {key: (tally.count, tally.standing) for key, tally in notes.causes.items()} == {
        "401003 credential": (1, 0),
        NO_CONNECTION: (2, 1),
    }
    assert notes.errors[ONE] is UNREACHABLE


@pytest.mark.parametrize(
    ("error", "remedy"), [(REFUSED, CREDENTIAL.remedy), (UNREACHABLE, NO_CONNECTION_REMEDY)]
)
def test_every_error_says_what_to_do(error: SessionError, remedy: str) -> None:
    assert error.remedy == remedy
