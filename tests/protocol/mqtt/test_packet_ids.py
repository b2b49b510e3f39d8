"""Identifiers of ours that are never given twice, and receipts of theirs in the order they are owed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import Bounded, LocalProtocolError
from gatewayd.protocol.mqtt.packet_ids import ReceiptOrder, next_packet_id
from tests.support import mqtt_bytes


def test_ids_go_round_and_skip_zero() -> None:
    assert next_packet_id(0, (), ()) == 1
    assert next_packet_id(65_534, (), ()) == 65_535
    assert next_packet_id(65_535, (), ()) == 1


@settings(deadline=None)
@given(
    st.integers(0, 65_535),
    st.sets(st.integers(1, 65_535), max_size=20),
    st.sets(st.integers(1, 65_535), max_size=5),
)
def test_an_id_in_use_is_never_given(last: int, in_flight: set[int], requests: set[int]) -> None:
    given_id = next_packet_id(last, in_flight, requests)
    assert 1 <= given_id <= 65_535
    assert given_id not in in_flight | requests


def test_the_last_free_id_is_found_and_then_there_is_none() -> None:
    taken = set(range(1, 65_536)) - {77}
    assert next_packet_id(77, taken, ()) == 77
    with pytest.raises(Bounded):
        next_packet_id(77, taken, {77})


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 65_535), unique=True, max_size=12).flatmap(
        lambda ids: st.tuples(st.just(ids), st.permutations(ids))
    )
)
def test_receipts_leave_in_the_order_of_receipt_whatever_the_owner_does(
    orders: tuple[list[int], list[int]],
) -> None:
    came, done = orders
    receipts = ReceiptOrder()
    for packet_id in came:
        receipts.expect(packet_id)
    out = b""
    for count, packet_id in enumerate(done, 1):
        out += receipts.acknowledge(packet_id)
        leading = 0
        while leading < len(came) and came[leading] in done[:count]:
            leading += 1
        assert out == b"".join(map(mqtt_bytes.puback, came[:leading]))
        assert len(receipts) == len(came) - leading
    assert len(receipts) == 0


def test_each_receipt_is_owed_once() -> None:
    receipts = ReceiptOrder()
    receipts.expect(1)
    receipts.expect(2)
    assert receipts.acknowledge(2) == b""
    assert 2 in receipts
    for packet_id in (2, 3):
        with pytest.raises(LocalProtocolError, match=f"packet id {packet_id}"):
            receipts.acknowledge(packet_id)
    assert receipts.acknowledge(1) == mqtt_bytes.puback(1) + mqtt_bytes.puback(2)
    with pytest.raises(LocalProtocolError):
        receipts.acknowledge(1)


def test_idle_connections_share_what_they_do_not_use() -> None:
    first, second = ReceiptOrder(), ReceiptOrder()
    first.expect(1)
    assert 1 not in second
    first.acknowledge(1)
    assert first._waiting is second._waiting
