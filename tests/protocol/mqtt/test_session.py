"""What a sender remembers between connections."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gatewayd.protocol.mqtt.packets import Publish
from gatewayd.protocol.mqtt.session import Session


def test_what_is_not_settled_is_remembered_in_order() -> None:
    session = Session()
    publishes = [Publish("a", bytes([n]), 1, n) for n in (3, 1, 2)]
    for publish in publishes:
        session.remember(publish)
    assert session.unacknowledged == tuple(publishes)
    assert session.is_oldest(3)
    assert not session.is_oldest(1)
    session.settle(3)
    assert session.is_oldest(1)
    assert session.in_flight == 2


def test_settling_what_is_not_in_flight_is_a_bug_of_ours() -> None:
    with pytest.raises(KeyError):
        Session().settle(1)


def test_moving_to_a_new_connection_repeats_everything_with_dup() -> None:
    session = Session()
    publishes = [Publish("a", bytes([n]), 1, n) for n in (3, 1)]
    for publish in publishes:
        session.remember(publish)
    first, repeated = session.move()
    second, _ = session.move()
    assert repeated == [replace(publish, dup=True) for publish in publishes]
    assert (first, second, session.carrier) == (1, 2, 2)
    assert session.in_flight == 2


def test_one_publish_is_repeated_with_dup_and_stays_in_its_place() -> None:
    session = Session()
    for packet_id in (3, 1):
        session.remember(Publish("a", b"", 1, packet_id))
    assert session.repeated(1) == Publish("a", b"", 1, 1, dup=True)
    assert [publish.packet_id for publish in session.unacknowledged] == [3, 1]
    with pytest.raises(KeyError):
        session.repeated(2)


def test_thousands_of_idle_sessions_cost_little() -> None:
    session = Session()
    session.remember(Publish("a", b"", 1, 1))
    session.settle(1)
    assert session._in_flight is Session()._in_flight
    assert not hasattr(session, "__dict__")
    assert sys.getsizeof(session) <= 64


class Ids(RuleBasedStateMachine):
    """Packet ids under any mix of sending and settling are unique while in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session()
        # Close to the end of the range, so that the ids wrap at once.
        self.session._last_packet_id = 65_530
        self.in_flight: list[int] = []
        self.requests: set[int] = set()

    @rule()
    def send(self) -> None:
        packet_id = self.session.new_packet_id(self.requests)
        assert packet_id not in self.in_flight
        assert packet_id not in self.requests
        self.session.remember(Publish("a", b"", 1, packet_id))
        self.in_flight.append(packet_id)

    @rule()
    def ask(self) -> None:
        packet_id = self.session.new_packet_id(self.requests)
        assert packet_id not in self.in_flight
        assert packet_id not in self.requests
        self.requests.add(packet_id)

    @precondition(lambda self: self.in_flight)
    @rule()
    def settle_oldest(self) -> None:
        self.session.settle(self.in_flight.pop(0))

    @precondition(lambda self: self.in_flight)
    @rule()
    def settle_newest(self) -> None:
        self.session.settle(self.in_flight.pop())

    @invariant()
    def order_is_kept(self) -> None:
        assert [publish.packet_id for publish in self.session.unacknowledged] == self.in_flight


Ids.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestIds = Ids.TestCase
