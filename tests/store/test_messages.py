"""The values of the store."""

from __future__ import annotations

from gatewayd.store.messages import Contents, Health, NewMessage, WhenFull
from tests.support.outbox_rig import new


def test_no_payload_is_in_the_text_of_a_message() -> None:
    assert b"secret" not in repr(new(payload=b"secret")).encode()
    assert isinstance(new(), NewMessage)


def test_nothing_is_in_contents_that_say_nothing() -> None:
    empty = Contents()
    assert (empty.backlog, empty.subscriptions, empty.quarantined, empty.salvaged, empty.lost) == (
        (),
        {},
        None,
        0,
        0,
    )


def test_the_names_are_those_of_metrics_and_configuration() -> None:
    assert [one.value for one in Health] == ["ok", "at_bound", "disk_full", "failing", "closed"]
    assert [one.value for one in WhenFull] == ["stop", "drop_oldest", "drop_lowest_priority"]
