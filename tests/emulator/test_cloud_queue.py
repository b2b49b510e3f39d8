"""The queue of messages for a device: locks, deliveries, ends."""

from __future__ import annotations

import pytest

from gatewayd.emulator.cloud_queue import (
    KEPT_ENDS,
    MAX_CLOUD_MESSAGE_BYTES,
    MAX_CLOUD_MESSAGES,
    MAX_DELIVERIES,
    CloudMessage,
    CloudQueue,
    Delivery,
    MessageState,
    Receipt,
)


def queue_of(*bodies: bytes, expires_at: float | None = None) -> CloudQueue:
    queue = CloudQueue()
    for body in bodies:
        queue.enqueue(CloudMessage("", body, expires_at=expires_at))
    return queue


def deliver_all(queue: CloudQueue, first_id: int = 1, until: float = 60.0) -> None:
    for packet_id, entry in enumerate(queue.enqueued(), first_id):
        queue.delivered(entry, entry.packet_id or packet_id, until)


def bodies(queue: CloudQueue) -> list[bytes]:
    return [entry.message.payload for entry in queue.enqueued()]


def test_a_message_is_enqueued_then_invisible_then_completed() -> None:
    queue = queue_of(b"a")
    assert queue.delivery(1) == Delivery(MessageState.ENQUEUED, 0)
    deliver_all(queue)
    assert (queue.delivery(1), queue.enqueued()) == (Delivery(MessageState.INVISIBLE, 1), [])
    assert queue.acknowledged(1) is Receipt.COMPLETED
    assert (queue.delivery(1), len(queue)) == (Delivery(MessageState.COMPLETED, 1), 0)
    assert queue.delivery(2) is None


def test_a_lock_that_runs_out_makes_a_message_enqueued_in_its_old_place() -> None:
    queue = queue_of(b"a", b"b")
    deliver_all(queue, until=60.0)
    queue.enqueue(CloudMessage("", b"c"))
    assert queue.next_unlock() == 60.0
    assert queue.sweep(59.9, 0.0) == []
    assert bodies(queue) == [b"c"]
    queue.sweep(60.0, 0.0)
    assert bodies(queue) == [b"a", b"b", b"c"]
    assert [entry.packet_id for entry in queue.enqueued()] == [1, 2, 0]
    assert queue.next_unlock() is None


def test_a_puback_behind_the_lock_completes_nothing() -> None:
    queue = queue_of(b"a")
    deliver_all(queue)
    queue.sweep(60.0, 0.0)
    assert queue.acknowledged(1) is Receipt.LOCK_LOST
    assert (bodies(queue), queue.in_flight()) == ([b"a"], [])


def test_pubacks_come_in_the_order_in_which_messages_went() -> None:
    queue = queue_of(b"a", b"b")
    deliver_all(queue)
    assert queue.acknowledged(2) is Receipt.OUT_OF_ORDER
    queue.sweep(60.0, 0.0)
    queue.acknowledged(1)  # too late: "a" loses its id and its place among the PUBACKs
    deliver_all(queue, first_id=7)
    assert queue.acknowledged(7) is Receipt.OUT_OF_ORDER
    assert queue.acknowledged(2) is Receipt.COMPLETED
    assert queue.acknowledged(7) is Receipt.COMPLETED


def test_after_ten_deliveries_a_message_is_dead_lettered() -> None:
    queue = queue_of(b"a")
    for number in range(MAX_DELIVERIES):
        assert queue.sweep(float(number), 0.0) == []
        deliver_all(queue, until=number + 1.0)
    (dead,) = queue.sweep(float(MAX_DELIVERIES), 0.0)
    assert (dead.packet_id, queue.in_flight(), len(queue)) == (1, [], 0)
    assert queue.delivery(1) == Delivery(MessageState.DELIVERY_COUNT_EXCEEDED, MAX_DELIVERIES)


def test_a_message_expires_while_it_is_enqueued_and_not_while_a_device_has_it() -> None:
    queue = queue_of(b"a", expires_at=100.0)
    deliver_all(queue, until=60.0)
    assert queue.sweep(59.0, 200.0) == []
    assert len(queue.sweep(60.0, 200.0)) == 1
    assert queue.delivery(1) == Delivery(MessageState.EXPIRED, 1)


def test_the_end_of_a_connection_ends_the_locks_and_the_end_of_a_session_the_packet_ids() -> None:
    queue = queue_of(b"a")
    deliver_all(queue)
    queue.unlock(forget=False)
    assert [entry.packet_id for entry in queue.enqueued()] == [1]
    queue.unlock(forget=True)
    assert [entry.packet_id for entry in queue.enqueued()] == [0]
    assert queue.in_flight() == []


def test_what_is_written_with_qos_0_is_completed() -> None:
    queue = queue_of(b"a")
    queue.written(queue.enqueued()[0])
    assert queue.delivery(1) == Delivery(MessageState.COMPLETED, 1)


def test_a_purge_takes_what_no_device_has() -> None:
    queue = queue_of(b"a")
    deliver_all(queue)
    queue.enqueue(CloudMessage("", b"b"))
    assert [entry.message.payload for entry in queue.purge()] == [b"b"]
    assert (queue.delivery(2), len(queue)) == (Delivery(MessageState.PURGED, 0), 1)


def test_the_queue_a_message_and_the_memory_of_ends_are_bounded() -> None:
    queue = CloudQueue()
    assert [queue.enqueue(CloudMessage("", b"")) for _ in range(MAX_CLOUD_MESSAGES)][-1] == MAX_CLOUD_MESSAGES
    assert queue.enqueue(CloudMessage("", b"")) == 0
    with pytest.raises(ValueError, match="bytes"):
        CloudMessage("a", bytes(MAX_CLOUD_MESSAGE_BYTES))
    with pytest.raises(ValueError, match="topic"):
        CloudMessage("a+b=1", b"")
    for _ in range(KEPT_ENDS // MAX_CLOUD_MESSAGES + 1):
        queue.purge()
        while queue.enqueue(CloudMessage("", b"")):
            pass
    assert queue.delivery(1) is None
