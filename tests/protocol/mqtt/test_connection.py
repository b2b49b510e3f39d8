"""What holds for both roles: any bytes, any cuts, any loss of the connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.protocol.mqtt.client import ClientConnection, ClientSession
from gatewayd.protocol.mqtt.connection import Connection, rows, unexpected
from gatewayd.protocol.mqtt.events import Closed, ConnectReceived, PublishReceived
from gatewayd.protocol.mqtt.faults import CloseCause, PeerFault
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect, Pingreq, Publish, encode
from gatewayd.protocol.mqtt.server import ServerConnection
from gatewayd.protocol.mqtt.transitions import Action, ServerState
from gatewayd.protocol.mqtt.wire import PacketType
from tests.support import mqtt_bytes as raw
from tests.support.mqtt_pair import Pair, Side
from tests.support.mqtt_strategies import packets, pieces

Peer = ServerConnection | ClientConnection
LIMITS = Limits(max_packet_bytes=5_000, max_unacknowledged=3, max_held_bytes=60_000)


def open_server() -> ServerConnection:
    server = ServerConnection(LIMITS, 0.0)
    server.receive(raw.connect(), 0.0)
    server.next_event()
    server.accept(0.0, False)
    return server


def open_client() -> ClientConnection:
    client = ClientConnection(ClientSession(), LIMITS)
    client.connect(Connect("dev"), 0.0)
    client.receive(raw.connack(), 0.0)
    client.next_event()
    client.subscribe((("a", 1),), 0.0)
    return client


MAKERS: list[Callable[[], Peer]] = [lambda: ServerConnection(LIMITS, 0.0), open_server, open_client]


def hear(peer: Peer, stream: list[bytes]) -> tuple[list[object], bytes]:
    """Everything a peer says about a stream that ends. Its owner acknowledges every second message."""
    events: list[object] = []
    out = peer.bytes_to_send()
    for piece in (*stream, None):
        if piece is None:
            peer.receive_eof(1.0)
        else:
            peer.receive(piece, 1.0)
        while (event := peer.next_event()) is not None:
            events.append(event)
            match event:
                case ConnectReceived():
                    assert isinstance(peer, ServerConnection)
                    peer.accept(1.0, False)
                case PublishReceived(publish, False) if publish.packet_id % 2:
                    peer.acknowledge(publish.packet_id)
        out += peer.bytes_to_send()
    return events, out


streams = st.lists(
    st.one_of(packets.map(encode), st.binary(max_size=12), st.just(raw.connect()), st.just(raw.PINGREQ)),
    max_size=8,
).map(b"".join)
cuts = st.lists(st.integers(0, 100_000), max_size=8)


@pytest.mark.parametrize("make", MAKERS, ids=["fresh server", "open server", "open client"])
@settings(deadline=None)
@given(stream=streams, cut=cuts)
def test_any_bytes_end_in_exactly_one_closed_however_they_are_cut(
    make: Callable[[], Peer], stream: bytes, cut: list[int]
) -> None:
    events, out = hear(make(), [stream])
    assert [isinstance(event, Closed) for event in events].count(True) == 1
    assert isinstance(events[-1], Closed)
    raw.split_packets(out)
    assert hear(make(), pieces(stream, cut)) == (events, out)
    assert hear(make(), [stream[at : at + 1] for at in range(len(stream))]) == (events, out)


step = st.one_of(
    st.tuples(st.just("move"), st.integers(0, 60), st.integers(0, 60)),
    st.tuples(st.sampled_from(["up", "down", "cut"]), st.just(0), st.just(0)),
    st.tuples(st.sampled_from(["client acknowledges", "server acknowledges"]), st.integers(0, 9), st.just(0)),
)


def run(pair: Pair, steps: list[tuple[str, int, int]]) -> None:
    for name, first, second in steps:
        match name:
            case "move":
                pair.move(first, second)
            case "up" if pair.client.state.value == "open":
                pair.client_publishes()
            case "down" if pair.server.state.value == "open":
                pair.server_publishes()
            case "cut":
                pair.cut()
            case "client acknowledges":
                pair.acknowledge(pair.client_side, first)
            case "server acknowledges":
                pair.acknowledge(pair.server_side, first)
        check(pair.client_side, pair.server_side)
        check(pair.server_side, pair.client_side)


def quiesce(pair: Pair) -> None:
    """Lets both ends finish what is under way."""
    for _ in range(500):
        pair.move(10_000, 10_000)
        pair.acknowledge(pair.client_side, 0)
        pair.acknowledge(pair.server_side, 0)
        if not (pair.client_session.in_flight or pair.server_session.in_flight):
            return
    raise AssertionError("the pair does not come to rest")


def check(sender: Side, receiver: Side) -> None:
    """No receipt without its message; messages first seen in order; what comes again says so."""
    assert sender.settled <= receiver.acknowledged
    fresh: list[int] = []
    for publish in receiver.seen:
        number = int(publish.payload)
        if number in fresh:
            assert publish.dup
        else:
            fresh.append(number)
    assert fresh == list(range(len(fresh)))


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=60))
def test_two_ends_lose_nothing_and_keep_order_whenever_the_connection_is_cut(
    steps: list[tuple[str, int, int]],
) -> None:
    pair = Pair()
    run(pair, steps)
    quiesce(pair)
    for sender, receiver in ((pair.client_side, pair.server_side), (pair.server_side, pair.client_side)):
        check(sender, receiver)
        everything = {b"%d" % number for number in range(sender.sent)}
        assert {publish.payload for publish in receiver.seen} == sender.settled == everything
    assert {closed.cause for closed in pair.closed} <= {CloseCause.EOF}


def test_a_message_cut_off_before_it_arrived_comes_on_the_next_connection_with_dup() -> None:
    pair = Pair()
    pair.move(100, 100)
    pair.move(100, 100)
    pair.client_publishes()
    pair.client_publishes()
    pair.cut()
    quiesce(pair)
    assert [(p.payload, p.packet_id, p.dup) for p in pair.server_side.seen] == [
        (b"0", 1, True),
        (b"1", 2, True),
    ]


def test_the_pair_notices_an_end_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(connection: Connection[object]) -> None:
        connection._carrier, _ = connection._session.move()

    monkeypatch.setattr(Connection, "_carry_session", forget)
    steps = [("move", 99, 99), ("move", 99, 99), ("up", 0, 0), ("cut", 0, 0)]
    pair = Pair()
    run(pair, steps)
    with pytest.raises(AssertionError, match="does not come to rest"):
        quiesce(pair)


def test_unlisted_packets_are_violations() -> None:
    table = rows(
        ServerState, {(ServerState.OPEN, PacketType.PINGREQ): Action.IGNORE}, {Action.IGNORE: lambda *_: None}
    )
    assert set(table) == set(ServerState)
    assert [kind for kind in PacketType if table[ServerState.OPEN][kind] is not unexpected] == [
        PacketType.PINGREQ
    ]
    with pytest.raises(PeerFault, match="PINGREQ may not come now") as fault:
        unexpected(None, Pingreq())
    assert fault.value.cause is CloseCause.PROTOCOL_VIOLATION


def test_an_owner_that_ends_a_flood_in_its_middle_hears_no_more_of_it() -> None:
    server = open_server()
    server.receive(raw.publish("a", b"x") * 100, 1.0)
    assert server.next_event() == PublishReceived(Publish("a", b"x"))
    server.close(CloseCause.TAKEN_OVER, "the same client id connected again")
    assert server.next_event() == Closed(CloseCause.TAKEN_OVER, "the same client id connected again")
    assert server.next_event() is None


def test_an_owner_that_acknowledges_as_it_goes_is_never_parked() -> None:
    server = open_server()
    server.receive(b"".join(raw.publish("a", b"x", 1, packet_id) for packet_id in range(1, 101)), 1.0)
    for packet_id in range(1, 101):
        event = server.next_event()
        assert isinstance(event, PublishReceived)
        assert event.publish.packet_id == packet_id
        server.acknowledge(packet_id)
    assert not server.is_parked
    assert server.unacknowledged == 0


def test_bytes_to_send_are_given_once() -> None:
    server = open_server()
    assert server.bytes_to_send() == raw.connack()
    assert server.bytes_to_send() == b""
    server.receive(raw.PINGREQ * 2, 1.0)
    assert server.next_event() is None
    assert server.bytes_to_send() == raw.PINGRESP * 2


def test_no_detail_of_an_end_repeats_what_the_peer_wrote() -> None:
    secret = b"c2VjcmV0"
    for data in (
        raw.publish("c2VjcmV0/#", secret),
        raw.packet(0x30, raw.field(secret + b"\xff")),
        raw.connect("c2VjcmV0", username="c2VjcmV0", password=secret),
        raw.subscribe(1, ("c2VjcmV0#", 0)),
    ):
        server = open_server()
        server.receive(data, 1.0)
        end = server.next_event()
        assert isinstance(end, Closed)
        assert "c2VjcmV0" not in repr(end)
