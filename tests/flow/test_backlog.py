"""The backlog of one device in memory: counts, leases, and what holds new messages back."""

from __future__ import annotations

from gatewayd.flow.backlog import Backlog, Lease
from gatewayd.message import Identity, Telemetry
from gatewayd.store.messages import StoredMessage


def stored(seq: int, priority: int = 0, qos: int = 1) -> StoredMessage:
    message = Telemetry(Identity("dev-1"), "devices/dev-1/messages/events/", b"x", qos)
    return StoredMessage(seq, message, priority, 0.0, None)


def test_an_empty_backlog_holds_nothing_back() -> None:
    backlog = Backlog()
    assert backlog.is_empty
    assert not backlog.holds_back(-100)


def test_what_is_stored_holds_back_messages_of_the_same_and_of_lower_priority() -> None:
    backlog = Backlog()
    backlog.add(3)
    backlog.add(1)
    assert [backlog.holds_back(priority) for priority in (1, 3, 4)] == [True, True, False]


def test_what_is_under_way_holds_nothing_back_and_is_not_forgotten() -> None:
    backlog = Backlog()
    backlog.add(0)
    backlog.asking = True
    backlog.leased((stored(1),))
    assert backlog.holds_back(0)
    backlog.sent(77)
    assert not backlog.waits
    assert not backlog.is_empty
    assert backlog.acknowledged(77) == Lease(1, len("devices/dev-1/messages/events/") + 1, 0)
    assert backlog.acknowledged(77) is None
    assert backlog.is_empty


def test_a_message_with_qos_0_is_gone_once_it_is_handed_over() -> None:
    backlog = Backlog()
    backlog.add(0)
    backlog.leased((stored(1, qos=0),))
    backlog.sent(0)
    assert backlog.is_empty


def test_what_is_given_back_is_stored_again_and_keeps_its_priority() -> None:
    backlog = Backlog()
    for _ in range(3):
        backlog.add(5)
    backlog.leased((stored(1, 5), stored(2, 5), stored(3, 5)))
    backlog.sent(10)
    assert {lease.seq for lease in backlog.give_back()} == {1, 2, 3}
    assert backlog.stored == 3
    assert backlog.holds_back(5)
    assert backlog.acknowledged(10) is None


def test_what_is_ready_goes_back_alone_when_the_hub_session_is_only_down() -> None:
    backlog = Backlog()
    backlog.add(0)
    backlog.add(0)
    backlog.leased((stored(1), stored(2)))
    backlog.sent(10)
    assert [lease.seq for lease in backlog.give_back_ready()] == [2]
    assert backlog.acknowledged(10) is not None


def test_the_outbox_knows_best_how_much_it_holds() -> None:
    backlog = Backlog()
    backlog.restore(5, 2)
    assert backlog.holds_back(2)
    backlog.leased(())
    assert backlog.is_empty
    backlog.add(0)
    backlog.dropped(3)
    assert backlog.stored == 0


def test_what_cannot_be_read_now_is_stored_still() -> None:
    backlog = Backlog()
    backlog.add(0)
    backlog.asking = True
    backlog.not_leased()
    assert not backlog.asking
    assert backlog.waits
