"""What outlives a connection: subscriptions and unacknowledged messages by CleanSession, the queue always."""

from __future__ import annotations

import pytest

from gatewayd.emulator.cloud_queue import CloudMessage
from gatewayd.emulator.stored_session import StoredSession
from gatewayd.protocol.mqtt.packets import Publish


def with_a_message_in_flight() -> StoredSession:
    session = StoredSession()
    session.open(clean=False, lost=False)
    session.subscriptions["f"] = 1
    session.queue.enqueue(CloudMessage("", b"x", expires_at=100.0))
    session.mqtt.remember(Publish("a", b"x", 1, 7))
    session.queue.delivered(session.queue.enqueued()[0], 7, 60.0)
    session.closed()
    return session


def test_a_kept_session_is_present_for_the_next_connection_with_what_is_unacknowledged() -> None:
    session = with_a_message_in_flight()
    assert session.open(clean=False, lost=False)
    assert session.subscriptions == {"f": 1}
    assert session.mqtt.in_flight == 1
    assert [entry.packet_id for entry in session.queue.enqueued()] == [7]


@pytest.mark.parametrize(("clean", "lost"), [(True, False), (False, True)])
def test_a_clean_or_lost_session_leaves_only_the_queue(clean: bool, lost: bool) -> None:
    session = with_a_message_in_flight()
    assert not session.open(clean=clean, lost=lost)
    assert (session.subscriptions, session.mqtt.in_flight) == ({}, 0)
    assert [entry.packet_id for entry in session.queue.enqueued()] == [0]


def test_a_clean_connection_leaves_nothing_for_the_next_one() -> None:
    session = StoredSession()
    session.open(clean=True, lost=False)
    session.subscriptions["g"] = 1
    assert not session.open(clean=False, lost=False)
    assert session.subscriptions == {}


def test_with_fresh_ids_a_session_is_present_and_knows_no_packet_id() -> None:
    session = with_a_message_in_flight()
    assert session.open(clean=False, lost=False, fresh_ids=True)
    assert (session.subscriptions, session.mqtt.in_flight) == ({"f": 1}, 0)


def test_a_session_that_was_lost_meanwhile_is_not_present() -> None:
    session = with_a_message_in_flight()
    session.lose()
    assert session.subscriptions == {}
    assert not session.open(clean=False, lost=False)


def test_what_leaves_the_queue_leaves_the_mqtt_session_too() -> None:
    session = with_a_message_in_flight()
    session.sweep(0.0, 99.0)
    assert session.mqtt.in_flight == 1
    session.sweep(0.0, 100.0)
    assert (session.mqtt.in_flight, len(session.queue)) == (0, 0)


def test_a_purge_counts_and_forgets() -> None:
    session = with_a_message_in_flight()
    session.queue.enqueue(CloudMessage("", b"y"))
    assert session.purge() == 2
    assert session.mqtt.in_flight == 0
