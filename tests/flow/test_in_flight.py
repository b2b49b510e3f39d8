"""Custody of the messages a device still owns."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gatewayd.flow.in_flight import InFlight, Offer, Stage
from gatewayd.message import Identity, Telemetry

DEVICE = Identity("device-1")


def message(payload: bytes, qos: int = 1) -> Telemetry:
    return Telemetry(DEVICE, "devices/device-1/messages/events/", payload, qos)


def ledger(max_messages: int = 8, max_bytes: int = 100_000) -> InFlight:
    return InFlight(max_messages=max_messages, max_bytes=max_bytes)


def send_all(ledger: InFlight, first_handle: int = 1) -> list[int]:
    handles: list[int] = []
    while (held := ledger.next_to_send()) is not None:
        ledger.sent(held, first_handle + len(handles))
        handles.append(held.handle)
    return handles


def due(ledger: InFlight) -> list[int]:
    return [receipt.packet_id for receipt in ledger.receipts()]


def test_nothing_is_receipted_before_the_hub_has_it() -> None:
    held = ledger()
    held.offer(1, message(b"a"), dup=False, now=0.0)
    assert due(held) == []
    send_all(held)
    assert due(held) == []


def test_a_message_at_the_hub_is_receipted_once_with_the_time_it_came() -> None:
    held = ledger()
    held.offer(7, message(b"a"), dup=False, now=3.5)
    (handle,) = send_all(held)
    held.acknowledged(handle)
    assert [(receipt.packet_id, receipt.received_at) for receipt in held.receipts()] == [(7, 3.5)]
    assert due(held) == []
    assert (len(held), held.held_bytes) == (0, 0)


def test_receipts_wait_for_the_older_message() -> None:
    held = ledger()
    for packet_id in (1, 2, 3):
        held.offer(packet_id, message(b"%d" % packet_id), dup=False, now=0.0)
    first, second, third = send_all(held)
    held.acknowledged(third)
    held.acknowledged(second)
    assert due(held) == []
    held.acknowledged(first)
    assert due(held) == [1, 2, 3]


def test_messages_go_to_the_hub_in_the_order_they_came() -> None:
    held = ledger()
    payloads = [b"%d" % number for number in range(5)]
    for number, payload in enumerate(payloads):
        held.offer(number + 1, message(payload), dup=False, now=0.0)
    sent = []
    while (next_one := held.next_to_send()) is not None:
        sent.append(next_one.message.payload)
        held.sent(next_one, len(sent))
    assert sent == payloads


def test_a_resend_of_a_message_still_held_joins_it() -> None:
    held = ledger()
    assert held.offer(1, message(b"a"), dup=False, now=0.0) is Offer.NEW
    assert held.offer(1, message(b"a"), dup=True, now=1.0) is Offer.JOINED
    assert len(held) == 1


def test_the_same_packet_id_with_other_content_is_another_message() -> None:
    held = ledger()
    held.offer(1, message(b"a"), dup=False, now=0.0)
    assert held.offer(1, message(b"b"), dup=True, now=1.0) is Offer.NEW


def test_a_device_that_left_gets_its_receipt_by_resending_and_the_hub_no_double() -> None:
    held = ledger()
    held.offer(1, message(b"a"), dup=False, now=0.0)
    (handle,) = send_all(held)
    held.device_left(comes_back=True)
    held.acknowledged(handle)
    assert due(held) == []
    assert held.offer(1, message(b"a"), dup=True, now=9.0) is Offer.JOINED
    assert held.next_to_send() is None
    assert due(held) == [1]


def test_what_an_absent_device_left_behind_does_not_hold_up_its_new_receipts() -> None:
    held = ledger()
    held.offer(1, message(b"old"), dup=False, now=0.0)
    held.device_left(comes_back=True)
    held.offer(1, message(b"new"), dup=False, now=1.0)
    _old, new = send_all(held)
    held.acknowledged(new)
    assert due(held) == [1]


def test_a_device_that_does_not_come_back_leaves_only_what_must_still_reach_the_hub() -> None:
    held = ledger()
    held.offer(1, message(b"a"), dup=False, now=0.0)
    held.offer(2, message(b"b"), dup=False, now=0.0)
    first, _ = send_all(held)
    held.acknowledged(first)
    held.device_left(comes_back=False)
    assert not held.is_settled
    assert len(held) == 1


@pytest.mark.parametrize(("max_messages", "max_bytes"), [(3, 1_000_000), (1000, 3 * (33 + 10))])
def test_the_bound_in_messages_and_in_bytes_is_reached(max_messages: int, max_bytes: int) -> None:
    held = InFlight(max_messages=max_messages, max_bytes=max_bytes)
    count = 0
    while not held.is_full:
        held.offer(count + 1, message(b"0123456789"), dup=False, now=0.0)
        count += 1
    assert count == 3


def test_room_is_made_by_forgetting_what_the_hub_has_and_nobody_claims() -> None:
    held = ledger(max_messages=2)
    for packet_id in (1, 2):
        held.offer(packet_id, message(b"%d" % packet_id), dup=False, now=0.0)
    for handle in send_all(held):
        held.acknowledged(handle)
    held.device_left(comes_back=True)
    assert not held.is_full, "a device that is not read can never claim what is kept for it"
    held.offer(3, message(b"3"), dup=False, now=1.0)
    assert len(held) == 1


def test_a_hub_session_that_lost_its_memory_gets_everything_again_in_order() -> None:
    held = ledger()
    for packet_id in (1, 2):
        held.offer(packet_id, message(b"%d" % packet_id), dup=False, now=0.0)
    first, _ = send_all(held)
    held.acknowledged(first)
    held.unsend()
    (again,) = send_all(held, first_handle=50)
    held.acknowledged(again)
    assert due(held) == [1, 2]


def test_a_qos_0_message_keeps_its_place_and_is_done_once_it_is_sent() -> None:
    held = ledger()
    held.offer(1, message(b"first"), dup=False, now=0.0)
    assert held.hold_qos0(Telemetry(DEVICE, "t", b"second", 0), now=0.0)
    held.offer(2, message(b"third"), dup=False, now=0.0)
    handles = send_all(held)
    assert len(held) == 2
    held.acknowledged(handles[0])
    held.acknowledged(handles[2])
    assert due(held) == [1, 2]
    assert (len(held), held.held_bytes) == (0, 0)


def test_a_qos_0_message_has_no_claim_to_room_that_is_not_there() -> None:
    held = ledger(max_messages=1)
    held.offer(1, message(b"a"), dup=False, now=0.0)
    assert not held.hold_qos0(Telemetry(DEVICE, "t", b"b", 0), now=0.0)
    assert len(held) == 1


class Custody(RuleBasedStateMachine):
    """A device, a hub and a ledger between them; the hub may answer in any order, sessions may break at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger(max_messages=6)
        self.offered: list[bytes] = []
        self.unreceipted: dict[int, bytes] = {}
        self.at_hub: list[bytes] = []
        self.sent: dict[int, bytes] = {}
        self.handles = 0
        self.packet_id = 0

    @precondition(lambda self: not self.ledger.is_full)
    @rule()
    def publish(self) -> None:
        self.packet_id += 1
        payload = b"%d" % self.packet_id
        self.offered.append(payload)
        self.unreceipted[self.packet_id] = payload
        self.ledger.offer(self.packet_id, message(payload), dup=False, now=0.0)

    @rule()
    def send_one(self) -> None:
        if (held := self.ledger.next_to_send()) is not None:
            self.handles += 1
            self.sent[self.handles] = held.message.payload
            self.ledger.sent(held, self.handles)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        handle = data.draw(st.sampled_from(sorted(self.sent)))
        self.at_hub.append(self.sent.pop(handle))
        self.ledger.acknowledged(handle)

    @rule()
    def hand_out_receipts(self) -> None:
        for receipt in self.ledger.receipts():
            payload = self.unreceipted.pop(receipt.packet_id)
            assert payload in self.at_hub
            assert all(receipt.packet_id < other for other in self.unreceipted)

    @rule()
    def hub_session_forgets(self) -> None:
        self.sent.clear()
        self.ledger.unsend()

    @rule()
    def device_reconnects_and_resends(self) -> None:
        self.ledger.device_left(comes_back=True)
        for packet_id, payload in self.unreceipted.items():
            self.ledger.offer(packet_id, message(payload), dup=True, now=0.0)

    @invariant()
    def the_device_still_owns_all_that_is_neither_receipted_nor_held(self) -> None:
        assert set(self.offered) == set(self.at_hub) | set(self.unreceipted.values())


Custody.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCustody = Custody.TestCase


# The outbox


def waiting(held_by: InFlight, *packet_ids: int) -> None:
    for packet_id in packet_ids:
        held_by.offer(packet_id, message(b"%d" % packet_id), dup=False, now=float(packet_id))


def test_what_goes_to_the_outbox_is_everything_not_in_custody_oldest_first_and_once() -> None:
    held_by = ledger()
    waiting(held_by, 1, 2, 3)
    first = held_by.next_to_send()
    assert first is not None
    held_by.sent(first, 50)
    assert [held.packet_id for held in held_by.to_store(qos0=False, max_messages=100, max_bytes=1 << 20)] == [
        1,
        2,
        3,
    ]
    assert held_by.to_store(qos0=False, max_messages=100, max_bytes=1 << 20) == []
    assert held_by.waits_since() is None
    assert held_by.next_to_send() is None, "what is on its way to disk is not sent, and nothing passes it"


def test_a_message_that_came_behind_those_on_their_way_to_disk_waits_for_them() -> None:
    held_by = ledger()
    waiting(held_by, 1)
    (storing,) = held_by.to_store(qos0=False, max_messages=100, max_bytes=1 << 20)
    waiting(held_by, 2)
    assert held_by.next_to_send() is None
    held_by.stored(storing)
    following = held_by.next_to_send()
    assert following is not None
    assert following.packet_id == 2


def test_stored_messages_are_receipted_in_order_with_those_the_hub_acknowledged() -> None:
    held_by = ledger()
    waiting(held_by, 1, 2)
    batch = held_by.to_store(qos0=False, max_messages=100, max_bytes=1 << 20)
    waiting(held_by, 3)
    assert held_by.stored(batch[1]) is Stage.STORING
    assert due(held_by) == []
    held_by.stored(batch[0])
    assert due(held_by) == [1, 2]
    assert [held.packet_id for held in held_by.to_store(qos0=False, max_messages=100, max_bytes=1 << 20)] == [
        3
    ]


def test_a_message_the_outbox_refused_waits_again_and_one_that_was_sent_stays_sent() -> None:
    held_by = ledger()
    waiting(held_by, 1, 2)
    first = held_by.next_to_send()
    assert first is not None
    held_by.sent(first, 50)
    for held in held_by.to_store(qos0=False, max_messages=100, max_bytes=1 << 20):
        held_by.not_stored(held)
    again = held_by.next_to_send()
    assert again is not None
    assert again.packet_id == 2
    held_by.acknowledged(50)
    assert due(held_by) == [1]


def test_a_message_that_was_sent_and_forgotten_while_it_was_being_stored_is_not_sent_from_memory() -> None:
    held_by = ledger()
    waiting(held_by, 1)
    first = held_by.next_to_send()
    assert first is not None
    held_by.sent(first, 50)
    (held,) = held_by.to_store(qos0=False, max_messages=100, max_bytes=1 << 20)
    held_by.unsend()
    assert held_by.next_to_send() is None
    assert held_by.stored(held) is Stage.STORING
    assert held_by.next_to_send() is None


def test_what_is_said_for_a_device_gets_no_receipt_and_is_gone_once_it_is_in_custody() -> None:
    for by_hub in (True, False):
        held_by = ledger()
        held_by.entrust(message(b"will"), now=0.0)
        held = held_by.next_to_send()
        assert held is not None
        if by_hub:
            held_by.sent(held, 50)
            held_by.acknowledged(50)
        else:
            (storing,) = held_by.to_store(qos0=False, max_messages=100, max_bytes=1 << 20)
            held_by.stored(storing)
        assert due(held_by) == []
        assert (len(held_by), held_by.held_bytes) == (0, 0)


@pytest.mark.parametrize(("asked", "stored"), [(False, [1]), (True, [0, 1])])
def test_qos_0_goes_to_the_outbox_only_where_it_is_asked_for(asked: bool, stored: list[int]) -> None:
    held_by = ledger()
    held_by.hold_qos0(message(b"0", qos=0), now=0.0)
    waiting(held_by, 1)
    batch = held_by.to_store(qos0=asked, max_messages=100, max_bytes=1 << 20)
    assert [held.message.qos for held in batch] == stored
