"""The ledger: what is kept, what is counted, and what it says when it can no longer tell."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.emulator.ledger import Ledger, ReceivedMessage


def add(
    ledger: Ledger, identity: str = "a", bag: str = "", payload: bytes = b"x", dup: bool = False
) -> ReceivedMessage:
    return ledger.add(identity, bag, payload, qos=1, dup=dup, connection=1, wall=1.0, monotonic=2.0)


def test_distinct_and_doubled_messages_are_told_apart_by_identity_and_message_id() -> None:
    ledger = Ledger()
    for identity, mid in [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1")]:
        add(ledger, identity, f"%24.mid={mid}")
    add(ledger)
    assert (ledger.received, ledger.distinct, ledger.duplicates, ledger.without_id) == (5, 3, 1, 1)
    assert ledger.ids("a") == {"1", "2"}
    assert sorted(ledger.identities()) == ["a", "b"]


def test_what_a_device_was_receipted_for_and_the_hub_lacks_is_named() -> None:
    ledger = Ledger()
    add(ledger, "a", "%24.mid=1")
    assert ledger.missing("a", ["1", "2"]) == ["2"]
    assert ledger.missing("nobody", ["1"]) == ["1"]


def test_a_flag_and_a_double_are_different_things() -> None:
    ledger = Ledger()
    add(ledger, bag="%24.mid=1", dup=True)
    assert (ledger.marked_dup, ledger.duplicates) == (1, 0)


def test_the_newest_messages_are_kept_whole_in_order() -> None:
    ledger = Ledger(kept_messages=2)
    for number in range(4):
        add(ledger, "ab"[number % 2], payload=bytes([number]))
    assert [message.payload for message in ledger.of()] == [b"\2", b"\3"]
    assert [message.sequence for message in ledger.of("a")] == [2]
    assert [message.sequence for message in ledger.of(since=3)] == [3]
    assert ledger.received_bytes == 4


def test_kept_messages_are_bounded_in_bytes_too() -> None:
    ledger = Ledger(kept_bytes=3000)
    for _ in range(10):
        add(ledger, payload=bytes(1000))
    assert len(ledger.of()) == 2
    add(ledger, payload=bytes(4000))
    assert ledger.of() == []
    add(ledger, payload=bytes(1000))
    assert len(ledger.of()) == 1


def test_ids_beyond_the_bound_are_counted_as_unaccounted() -> None:
    ledger = Ledger(max_message_ids=2)
    for mid in "1233":
        add(ledger, bag=f"%24.mid={mid}")
    assert (ledger.distinct, ledger.duplicates, ledger.unaccounted) == (2, 0, 2)


def test_every_message_has_its_place_in_the_order_of_its_identity() -> None:
    ledger = Ledger(kept_messages=1)
    for identity, body in (("a", b"1"), ("b", b"2"), ("a", b"3")):
        add(ledger, identity, payload=body)
    assert ledger.arrivals("a").compare([b"1", b"3"]).is_perfect
    assert len(ledger.arrivals("b")) == 1
    assert len(ledger.arrivals("nobody")) == 0


def test_arrivals_beyond_the_bound_are_counted_as_unaccounted() -> None:
    ledger = Ledger(max_arrivals=2)
    for mid in "123":
        add(ledger, bag=f"%24.mid={mid}")
    assert (len(ledger.arrivals("a")), ledger.distinct, ledger.unaccounted) == (2, 3, 1)


def test_properties_are_read_from_the_bag() -> None:
    message = add(Ledger(), bag="%24.ct=text%2Fplain&a%20b=1")
    assert (message.properties.system, message.properties.custom) == (
        {"content-type": "text/plain"},
        {"a b": "1"},
    )


async def test_one_can_wait_for_a_message_and_for_a_number_of_them() -> None:
    ledger = Ledger()
    waiting = asyncio.ensure_future(ledger.wait_for_count(2, within=5.0))
    add(ledger, payload=b"1")
    await asyncio.sleep(0)
    assert not waiting.done()
    add(ledger, payload=b"2")
    await waiting
    await ledger.wait_for_count(2, within=0.01)
    assert (await ledger.wait_for(lambda message: message.payload == b"2", within=0.01)).sequence == 1
    with pytest.raises(TimeoutError):
        await ledger.wait_for_count(3, within=0.01)
