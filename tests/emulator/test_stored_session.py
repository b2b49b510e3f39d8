"""What outlives a connection: subscriptions by CleanSession, and the bounded queue of cloud messages."""

from __future__ import annotations

import pytest

from gatewayd.emulator.stored_session import (
    MAX_CLOUD_MESSAGE_BYTES,
    MAX_CLOUD_MESSAGES,
    CloudMessage,
    StoredSession,
)


def test_a_kept_session_is_present_for_the_next_connection() -> None:
    session = StoredSession()
    assert not session.open(clean=False, lost=False)
    session.subscriptions["f"] = 1
    assert session.open(clean=False, lost=False)
    assert session.subscriptions == {"f": 1}


def test_a_clean_connection_discards_subscriptions_and_leaves_none_behind() -> None:
    session = StoredSession()
    session.open(clean=False, lost=False)
    session.subscriptions["f"] = 1
    assert not session.open(clean=True, lost=False)
    assert session.subscriptions == {}
    session.subscriptions["g"] = 1
    assert not session.open(clean=False, lost=False)
    assert session.subscriptions == {}


def test_a_lost_session_is_not_present() -> None:
    session = StoredSession()
    session.open(clean=False, lost=False)
    session.subscriptions["f"] = 1
    assert not session.open(clean=False, lost=True)
    assert session.subscriptions == {}


def test_the_queue_of_cloud_messages_is_bounded() -> None:
    session = StoredSession()
    assert all(session.enqueue(CloudMessage("", b"")) for _ in range(MAX_CLOUD_MESSAGES))
    assert not session.enqueue(CloudMessage("", b""))


def test_a_cloud_message_is_bounded() -> None:
    with pytest.raises(ValueError, match="bytes"):
        CloudMessage("a", bytes(MAX_CLOUD_MESSAGE_BYTES))
