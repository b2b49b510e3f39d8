"""What the conformance cases cannot show of a client: the handover, exact deadlines, what it costs."""

from __future__ import annotations

import sys

import pytest

from gatewayd.errors import LocalProtocolError
from gatewayd.protocol.mqtt.client import ClientConnection, ClientSession
from gatewayd.protocol.mqtt.events import Closed, ConnackReceived, PublishAcknowledged, PublishReceived
from gatewayd.protocol.mqtt.faults import CloseCause, ConnackCode
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect, Publish
from tests.support import mqtt_bytes as raw

CONNECT = Connect("dev", 60)


def opened(session: ClientSession, limits: Limits | None = None, now: float = 0.0) -> ClientConnection:
    client = ClientConnection(session, limits or Limits())
    client.connect(CONNECT, now)
    client.receive(raw.connack(), now)
    assert client.next_event() == ConnackReceived(ConnackCode.ACCEPTED, False)
    client.bytes_to_send()
    return client


def test_a_strict_handover_loses_nothing_and_repeats_nothing() -> None:
    session = ClientSession()
    old = opened(session)
    ahead = ClientConnection(session, Limits())  # its socket is dialled, CONNECT waits
    assert ahead.deadline() is None
    old.publish("a", b"1", 1, 1.0)
    old.bytes_to_send()
    assert ahead.in_flight == old.in_flight == 1
    old.receive(raw.puback(1), 2.0)
    assert old.next_event() == PublishAcknowledged(1)
    assert ahead.in_flight == 0
    old.disconnect(2.0)
    assert old.bytes_to_send() == raw.DISCONNECT
    old.receive_eof(2.1)
    event = old.next_event()
    assert isinstance(event, Closed)
    assert event.planned
    ahead.connect(CONNECT, 2.1)
    ahead.receive(raw.connack(session_present=True), 2.2)
    ahead.next_event()
    ahead.publish("a", b"2", 1, 2.2)
    assert ahead.bytes_to_send() == raw.connect() + raw.publish("a", b"2", 1, 2)


def test_a_fast_handover_takes_late_receipts_until_the_new_connection_is_accepted() -> None:
    session = ClientSession()
    old = opened(session)
    for payload in (b"1", b"2", b"3"):
        old.publish("a", payload, 1, 1.0)
    old.disconnect(2.0)
    new = ClientConnection(session, Limits())
    new.connect(CONNECT, 2.0)
    old.receive(raw.puback(1), 2.1)
    assert old.next_event() == PublishAcknowledged(1)
    new.receive(raw.connack(session_present=True), 2.2)
    new.next_event()
    assert new.bytes_to_send() == (
        raw.connect() + raw.publish("a", b"2", 1, 2, dup=True) + raw.publish("a", b"3", 1, 3, dup=True)
    )
    # From here a receipt on the old connection would be counted twice: once now, and once for the repetition,
    # when the id may be a new message's.
    old.receive(raw.puback(2), 2.3)
    assert old.next_event() is None
    assert session.in_flight == 2
    new.receive(raw.puback(2), 2.4)
    assert new.next_event() == PublishAcknowledged(2)


def test_a_connection_whose_session_moved_on_publishes_no_more() -> None:
    session = ClientSession()
    old = opened(session)
    opened(session)
    with pytest.raises(LocalProtocolError, match="newer connection"):
        old.publish("a", b"", 0, 1.0)


def test_a_publish_that_breaks_a_rule_leaves_no_trace() -> None:
    session = ClientSession()
    client = opened(session)
    for topic, payload, qos in (("a/#", b"", 1), ("", b"", 1), ("a", b"", 2)):
        with pytest.raises(LocalProtocolError):
            client.publish(topic, payload, qos, 1.0)
    assert session.in_flight == 0
    assert client.bytes_to_send() == b""


def test_a_repetition_is_the_message_itself() -> None:
    session = ClientSession()
    client = opened(session)
    client.publish("a", b"payload", 1, 1.0, retain=True)
    assert session.unacknowledged == (Publish("a", b"payload", 1, 1, retain=True),)
    assert session.in_flight == client.in_flight == 1


def test_the_deadline_is_that_of_the_state() -> None:
    client = ClientConnection(
        ClientSession(), Limits(connect_timeout=30.0, ping_timeout=10.0, disconnect_timeout=5.0)
    )
    assert client.deadline() is None
    client.connect(CONNECT, 100.0)
    assert client.deadline() == 130.0
    client.receive(raw.connack(), 110.0)
    client.next_event()
    assert client.deadline() == 145.0  # 45 s after CONNECT, the last packet sent
    client.publish("a", b"", 0, 120.0)
    assert client.deadline() == 155.0  # 45 s after CONNACK, the last byte heard
    client.handle_deadline(155.0)
    assert client.bytes_to_send().endswith(raw.PINGREQ)
    assert client.deadline() == 165.0
    client.receive(raw.PINGRESP, 156.0)
    client.next_event()
    assert client.deadline() == 200.0
    client.disconnect(160.0)
    assert client.deadline() == 165.0


def test_a_deadline_handled_too_early_does_nothing() -> None:
    client = opened(ClientSession())
    client.handle_deadline(44.0)
    assert client.bytes_to_send() == b""
    assert client.next_event() is None


def test_a_server_that_could_not_be_heard_is_given_its_time_to_answer() -> None:
    client = opened(ClientSession(), Limits(max_unacknowledged=1, ping_timeout=10.0))
    client.receive(raw.publish("a", b"", 1, 7), 1.0)
    assert isinstance(client.next_event(), PublishReceived)
    assert client.next_event() is None
    assert client.is_parked
    client.handle_deadline(46.0)
    assert client.bytes_to_send() == raw.PINGREQ
    assert client.deadline() == 91.0
    client.acknowledge(7)
    assert client.deadline() == 56.0
    client.handle_deadline(60.0)
    assert client.next_event() is None
    assert client.deadline() == 70.0
    client.handle_deadline(70.0)
    event = client.next_event()
    assert isinstance(event, Closed)
    assert event.cause is CloseCause.KEEP_ALIVE


def test_too_many_bytes_behind_a_full_window_end_the_connection() -> None:
    client = opened(ClientSession(), Limits(max_unacknowledged=1, max_held_bytes=20))
    client.receive(raw.publish("a", b"", 1, 7), 1.0)
    client.next_event()
    client.receive(raw.publish("a", bytes(20), 1, 8), 2.0)
    event = client.next_event()
    assert isinstance(event, Closed)
    assert event.cause is CloseCause.FLOOD


def test_an_idle_connection_and_its_session_cost_less_than_a_kilobyte() -> None:
    session = ClientSession()
    client = opened(session)
    owned = [client, client._reader, client._receipts, client._out, session]
    assert not any(hasattr(part, "__dict__") for part in owned)
    assert sum(map(sys.getsizeof, owned)) < 700
