"""What the conformance cases cannot show of a server: sessions that go on, exact deadlines, what it costs."""

from __future__ import annotations

import sys

import pytest

from gatewayd.errors import LocalProtocolError
from gatewayd.protocol.mqtt.events import Closed, ConnectReceived, PublishAcknowledged, PublishReceived
from gatewayd.protocol.mqtt.faults import CloseCause, ConnackCode
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect
from gatewayd.protocol.mqtt.server import ServerConnection
from gatewayd.protocol.mqtt.session import Session
from tests.support import mqtt_bytes as raw


def held(connect: bytes = raw.connect(), now: float = 0.0) -> ServerConnection:
    server = ServerConnection(Limits(), now)
    server.receive(connect, now)
    assert isinstance(server.next_event(), ConnectReceived)
    return server


def opened(connect: bytes = raw.connect(), now: float = 0.0) -> ServerConnection:
    server = held(connect, now)
    server.accept(now, False)
    server.bytes_to_send()
    return server


def test_a_session_that_goes_on_is_sent_again_before_anything_new() -> None:
    session = Session()
    first = held()
    first.accept(0.0, False, session)
    first.publish("a", b"1", 1)
    first.publish("a", b"2", 1, retain=True)
    first.receive_eof(1.0)

    second = held()
    second.accept(2.0, True, session)
    assert second.publish("a", b"3", 1) == 3
    assert second.bytes_to_send() == (
        raw.connack(session_present=True)
        + raw.publish("a", b"1", 1, 1, dup=True)
        + raw.publish("a", b"2", 1, 2, dup=True, retain=True)
        + raw.publish("a", b"3", 1, 3)
    )


def test_a_message_may_be_sent_again_on_the_same_connection_until_it_is_acknowledged() -> None:
    server = opened()
    packet_id = server.publish("a", b"1", 1)
    server.bytes_to_send()
    server.publish_again(packet_id)
    assert server.bytes_to_send() == raw.publish("a", b"1", 1, packet_id, dup=True)
    server.receive(raw.puback(packet_id), 1.0)
    assert server.next_event() == PublishAcknowledged(packet_id)
    with pytest.raises(KeyError):
        server.publish_again(packet_id)


def test_a_connection_that_was_taken_over_settles_and_sends_nothing_of_the_session() -> None:
    session = Session()
    old = held()
    old.accept(0.0, False, session)
    old.publish("a", b"1", 1)
    new = held()
    new.accept(1.0, True, session)
    old.receive(raw.puback(1), 2.0)
    assert old.next_event() is None
    assert session.in_flight == 1
    with pytest.raises(LocalProtocolError, match="newer connection"):
        old.publish("a", b"2", 1)
    new.receive(raw.puback(1), 2.0)
    assert new.next_event() == PublishAcknowledged(1)


def test_a_clean_session_is_not_given_what_an_older_one_owes() -> None:
    session = Session()
    first = held()
    first.accept(0.0, False, session)
    first.publish("a", b"1", 1)
    second = held(raw.connect(clean=True))
    with pytest.raises(LocalProtocolError, match="clean session"):
        second.accept(1.0, False, session)
    second.accept(1.0, False, Session())


def test_the_deadline_is_that_of_the_state() -> None:
    server = ServerConnection(Limits(connect_timeout=30.0), 100.0)
    assert server.deadline() == 130.0
    server.receive(b"\x10", 120.0)
    assert server.deadline() == 130.0
    server.receive(raw.connect(keep_alive=40)[1:], 125.0)
    server.next_event()
    assert server.deadline() is None
    server.accept(500.0, False)
    assert server.deadline() == 560.0
    server.receive(raw.PINGREQ, 510.0)
    assert server.deadline() == 570.0
    server.suspend_keep_alive()
    assert server.deadline() is None
    server.resume_keep_alive(700.0)
    assert server.deadline() == 760.0


def test_a_deadline_handled_too_early_does_nothing() -> None:
    server = opened()
    server.handle_deadline(89.0)
    assert server.next_event() is None
    server.receive(raw.PINGREQ, 89.5)
    server.handle_deadline(90.0)
    assert server.next_event() is None


def test_a_client_that_could_not_be_heard_is_given_a_whole_period() -> None:
    server = ServerConnection(Limits(max_unacknowledged=1), 0.0)
    server.receive(raw.connect() + raw.publish("a", b"", 1, 1), 0.0)
    server.next_event()
    server.accept(0.0, False)
    server.next_event()
    assert server.next_event() is None
    assert server.is_parked
    assert server.deadline() is None
    server.acknowledge(1)
    assert server.deadline() == 90.0
    server.handle_deadline(5_000.0)
    assert server.next_event() is None
    assert server.deadline() == 5_090.0


def test_a_planned_end_needs_nothing_from_the_stream() -> None:
    server = opened()
    server.receive(raw.DISCONNECT, 1.0)
    event = server.next_event()
    assert isinstance(event, Closed)
    assert (event.cause, event.planned) == (CloseCause.DISCONNECTED, True)
    assert server.bytes_to_send() == b""


def test_bytes_of_the_last_answers_are_there_beside_closed() -> None:
    server = opened()
    server.receive(raw.PINGREQ + raw.DISCONNECT, 1.0)
    assert isinstance(server.next_event(), Closed)
    assert server.bytes_to_send() == raw.PINGRESP


def test_a_refusal_in_the_name_of_acceptance_is_a_bug_of_ours() -> None:
    server = held()
    with pytest.raises(LocalProtocolError, match="code 0"):
        server.refuse(ConnackCode.ACCEPTED, 1.0)


def test_the_will_is_the_one_of_connect() -> None:
    server = opened(raw.connect(will=("w", b"bye", 1, True)))
    server.close(CloseCause.TAKEN_OVER)
    event = server.next_event()
    assert isinstance(event, Closed)
    assert event.will is not None
    assert (event.will.topic, event.will.payload, event.will.qos, event.will.retain) == ("w", b"bye", 1, True)


def test_what_comes_with_connect_is_read_once_it_is_accepted() -> None:
    server = held(raw.connect() + raw.publish("a", b"x", 1, 1) + raw.publish("a", b"y", 1, 2)[:-1])
    assert server.next_event() is None
    server.accept(1.0, False)
    event = server.next_event()
    assert isinstance(event, PublishReceived)
    assert event.publish.payload == b"x"
    assert server.next_event() is None
    server.receive(b"y", 2.0)
    event = server.next_event()
    assert isinstance(event, PublishReceived)
    assert event.publish.payload == b"y"


def test_a_connection_keeps_no_password_once_it_is_over() -> None:
    server = held(raw.connect(username="u", password=b"secret"))
    assert isinstance(server._connect, Connect)
    server.refuse(ConnackCode.NOT_AUTHORIZED, 1.0)
    assert server._connect is None


def test_an_open_connection_keeps_no_password_either() -> None:
    server = opened(raw.connect(username="u", password=b"secret", will=("w", b"x", 0, False)))
    assert server._connect is None
    assert b"secret" not in bytes(server._reader._bytes)


def test_an_idle_connection_costs_less_than_a_kilobyte() -> None:
    server = opened()
    owned = [server, server._reader, server._receipts, server._session, server._out]
    assert not any(hasattr(part, "__dict__") for part in owned)
    assert sum(map(sys.getsizeof, owned)) < 700
