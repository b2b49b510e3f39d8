"""Every state against every packet, as the standard has it, by the connections themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gatewayd.errors import LocalProtocolError
from gatewayd.protocol.mqtt.client import ClientConnection, ClientSession
from gatewayd.protocol.mqtt.events import Closed
from gatewayd.protocol.mqtt.faults import CloseCause, ConnackCode
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect
from gatewayd.protocol.mqtt.server import ServerConnection
from gatewayd.protocol.mqtt.transitions import (
    CLIENT_PACKETS,
    CLIENT_VERBS,
    SERVER_PACKETS,
    SERVER_VERBS,
    ClientState,
    ServerState,
    Verb,
)
from gatewayd.protocol.mqtt.wire import PacketType
from tests.support import mqtt_bytes as raw

SAMPLES = {
    PacketType.CONNECT: raw.connect(),
    PacketType.CONNACK: raw.connack(),
    PacketType.PUBLISH: raw.publish("a", b"x", 1, 9),
    PacketType.PUBACK: raw.puback(9),
    PacketType.PUBREC: raw.pubrec(9),
    PacketType.PUBREL: raw.pubrel(9),
    PacketType.PUBCOMP: raw.pubcomp(9),
    PacketType.SUBSCRIBE: raw.subscribe(9, ("a", 1)),
    PacketType.SUBACK: raw.suback(1, 1),
    PacketType.UNSUBSCRIBE: raw.unsubscribe(9, "a"),
    PacketType.UNSUBACK: raw.unsuback(2),
    PacketType.PINGREQ: raw.PINGREQ,
    PacketType.PINGRESP: raw.PINGRESP,
    PacketType.DISCONNECT: raw.DISCONNECT,
}

# Written from the standard and from IoT Hub's rules, not from the tables: + is taken, 2 closes for QoS 2, . closes as a
# violation. One sign a packet type, in the order of SAMPLES.
SERVER_LAW = {
    ServerState.AWAITING_CONNECT: "+.............",
    ServerState.OPEN: "..++222+.+.+.+",
}
CLIENT_LAW = {
    ClientState.IDLE: "..............",
    ClientState.CONNECTING: ".+............",
    ClientState.OPEN: "..++222.+.+.+.",
    ClientState.LEAVING: "..++....+.+.+.",
}
# HELD reads nothing, OVER keeps nothing: no packet meets their rows.
VERDICTS = {"+": None, "2": CloseCause.QOS2, ".": CloseCause.PROTOCOL_VIOLATION}


def server_in(state: ServerState) -> ServerConnection:
    server = ServerConnection(Limits(), 0.0)
    if state is not ServerState.AWAITING_CONNECT:
        server.receive(raw.connect(), 0.0)
        server.next_event()
    if state is ServerState.OPEN:
        server.accept(0.0, False)
    if state is ServerState.OVER:
        server.close()
        server.next_event()
    assert server.state is state
    return server


def client_in(state: ClientState) -> ClientConnection:
    client = ClientConnection(ClientSession(), Limits())
    if state in (ClientState.CONNECTING, ClientState.OPEN, ClientState.LEAVING):
        client.connect(Connect("dev"), 0.0)
    if state in (ClientState.OPEN, ClientState.LEAVING):
        client.receive(raw.connack(), 0.0)
        client.next_event()
        client.subscribe((("a", 1),), 0.0)
        client.unsubscribe(("a",), 0.0)
    if state is ClientState.LEAVING:
        client.disconnect(0.0)
    if state is ClientState.OVER:
        client.close()
        client.next_event()
    assert client.state is state
    return client


def verdict(connection: ServerConnection | ClientConnection, data: bytes) -> CloseCause | None:
    connection.receive(data, 1.0)
    events = []
    while (event := connection.next_event()) is not None:
        events.append(event)
    closed = [
        event for event in events if isinstance(event, Closed) and event.cause is not CloseCause.DISCONNECTED
    ]
    return closed[0].cause if closed else None


@pytest.mark.parametrize("state", SERVER_LAW)
def test_a_server_takes_in_each_state_what_the_law_says(state: ServerState) -> None:
    found = {kind: verdict(server_in(state), data) for kind, data in SAMPLES.items()}
    assert found == dict(zip(SAMPLES, (VERDICTS[sign] for sign in SERVER_LAW[state]), strict=True))


@pytest.mark.parametrize("state", CLIENT_LAW)
def test_a_client_takes_in_each_state_what_the_law_says(state: ClientState) -> None:
    found = {kind: verdict(client_in(state), data) for kind, data in SAMPLES.items()}
    assert found == dict(zip(SAMPLES, (VERDICTS[sign] for sign in CLIENT_LAW[state]), strict=True))


def test_no_packet_is_listed_where_none_is_read() -> None:
    assert {state for state, _ in SERVER_PACKETS} == set(SERVER_LAW)
    assert {state for state, _ in CLIENT_PACKETS} == set(CLIENT_LAW) - {ClientState.IDLE}


@pytest.mark.parametrize("state", ServerState)
def test_a_server_allows_the_verbs_of_its_table_and_no_others(state: ServerState) -> None:
    calls: dict[Verb, Callable[[ServerConnection], object]] = {
        Verb.ACCEPT: lambda server: server.accept(0.0, False),
        Verb.REFUSE: lambda server: server.refuse(ConnackCode.NOT_AUTHORIZED, 0.0),
        Verb.PUBLISH: lambda server: server.publish("a", b"", 0),
    }
    assert {verb for _, verb in SERVER_VERBS} == set(calls)
    for verb, call in calls.items():
        server = server_in(state)
        if (state, verb) in SERVER_VERBS:
            call(server)
            assert server.state is SERVER_VERBS[state, verb]
        else:
            with pytest.raises(
                LocalProtocolError, match=rf"{verb.value}\(\) on a connection that is {state.value}"
            ):
                call(server)


@pytest.mark.parametrize("state", ClientState)
def test_a_client_allows_the_verbs_of_its_table_and_no_others(state: ClientState) -> None:
    calls: dict[Verb, Callable[[ClientConnection], object]] = {
        Verb.CONNECT: lambda client: client.connect(Connect("dev"), 0.0),
        Verb.PUBLISH: lambda client: client.publish("a", b"", 0, 0.0),
        Verb.SUBSCRIBE: lambda client: client.subscribe((("a", 1),), 0.0),
        Verb.UNSUBSCRIBE: lambda client: client.unsubscribe(("a",), 0.0),
        Verb.DISCONNECT: lambda client: client.disconnect(0.0),
    }
    assert {verb for _, verb in CLIENT_VERBS} == set(calls)
    for verb, call in calls.items():
        client = client_in(state)
        if (state, verb) in CLIENT_VERBS:
            call(client)
            assert client.state is CLIENT_VERBS[state, verb]
        else:
            with pytest.raises(
                LocalProtocolError, match=rf"{verb.value}\(\) on a connection that is {state.value}"
            ):
                call(client)


@pytest.mark.parametrize("connection", [server_in(ServerState.OVER), client_in(ClientState.OVER)])
def test_a_connection_that_is_over_says_nothing_more(connection: ServerConnection | ClientConnection) -> None:
    connection.receive(raw.PINGREQ + b"\xff", 1.0)
    connection.receive_eof(2.0)
    connection.handle_deadline(1e9)
    connection.close()
    connection.acknowledge(1)
    assert connection.next_event() is None
    assert connection.bytes_to_send() == b""
    assert connection.deadline() is None
    assert connection.is_over
