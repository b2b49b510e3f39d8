"""Fuzzes the MQTT core, both roles, from the conformance cases.

    python -m tests.fuzz.mqtt_core [--seed N] [--seconds S] [--runs N]

Each run takes the bytes of one to three cases, damages them, and feeds them to a connection three times: whole,
byte by byte, and cut at random. What must hold, whatever the bytes:

    no call raises, next_event ends, Closed comes exactly once and last,
    events and answers are the same for all three ways,
    all that we send is whole packets with first bytes our role may send.

A run is made by its number and the seed alone; a failure names both.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gatewayd.protocol.mqtt.client import ClientConnection, ClientSession
from gatewayd.protocol.mqtt.events import (
    ClientEvent,
    Closed,
    ConnectReceived,
    PublishReceived,
    ServerEvent,
    SubscribeReceived,
    UnsubscribeReceived,
)
from gatewayd.protocol.mqtt.faults import ConnackCode
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect
from gatewayd.protocol.mqtt.server import ServerConnection
from tests.conformance.mqtt.player import load_cases
from tests.support import mqtt_bytes as raw

Peer = ServerConnection | ClientConnection
LIMITS = Limits(
    max_packet_bytes=3_000,
    max_connect_bytes=2_000,
    max_held_bytes=50_000,
    max_unacknowledged=4,
    max_requests=3,
)
SERVER_SAYS = frozenset({0x20, 0x30, 0x32, 0x40, 0x90, 0xB0, 0xD0})
CLIENT_SAYS = frozenset({0x10, 0x30, 0x32, 0x3A, 0x40, 0x82, 0xA2, 0xC0, 0xE0})
_MAX_EVENTS = 10_000


class Finding(AssertionError):
    """Bytes for which something does not hold."""


@dataclass(frozen=True, slots=True)
class Start:
    """A connection to feed, and the packets its role may send."""

    name: str
    make: Callable[[], Peer]
    says: frozenset[int]


def fresh_server() -> ServerConnection:
    return ServerConnection(LIMITS, 0.0)


def open_server() -> ServerConnection:
    server = fresh_server()
    server.receive(raw.connect(will=("w", b"x", 1, False)), 0.0)
    server.next_event()
    server.accept(0.0, False)
    server.publish("a", b"1", 1)
    server.publish("a", b"2", 1)
    return server


def connecting_client() -> ClientConnection:
    client = ClientConnection(ClientSession(), LIMITS)
    client.connect(Connect("dev"), 0.0)
    return client


def open_client() -> ClientConnection:
    client = connecting_client()
    client.receive(raw.connack(), 0.0)
    client.next_event()
    client.publish("a", b"1", 1, 0.0)
    client.subscribe((("a", 1),), 0.0)
    client.unsubscribe(("a",), 0.0)
    return client


def leaving_client() -> ClientConnection:
    client = open_client()
    client.disconnect(0.0)
    return client


STARTS = (
    Start("fresh server", fresh_server, SERVER_SAYS),
    Start("open server", open_server, SERVER_SAYS),
    Start("connecting client", connecting_client, CLIENT_SAYS),
    Start("open client", open_client, CLIENT_SAYS),
    Start("leaving client", leaving_client, CLIENT_SAYS),
)


def corpus() -> list[bytes]:
    """What arrives in each conformance case."""
    return sorted({b"".join(case.peer_bytes) for case in load_cases() if case.peer_bytes})


def run(number: int, seed: int, seeds: list[bytes], starts: tuple[Start, ...] = STARTS) -> None:
    """One run; raises Finding."""
    chance = random.Random(f"{seed}/{number}")
    data = b"".join(chance.choice(seeds) for _ in range(chance.randint(1, 3)))
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        data = damage(data, chance, seeds)
    start = starts[number % len(starts)]
    try:
        check(start, data, sorted(chance.randrange(len(data) + 1) for _ in range(4)))
    except Finding as finding:
        raise Finding(f"seed {seed}, run {number}, {start.name}, {data.hex()}: {finding}") from finding


def damage(data: bytes, chance: random.Random, seeds: list[bytes]) -> bytes:
    """`data` with one thing wrong."""
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 1, 2, 8)))
    match chance.randrange(7):
        case 0:
            return data[:at] + data[end:]
        case 1:
            return data[:at] + chance.randbytes(chance.choice((1, 2, 5))) + data[at:]
        case 2:
            return data[:at] + bytes([byte ^ 1 << chance.randrange(8) for byte in data[at:end]]) + data[end:]
        case 3:
            return (
                data[:at]
                + chance.choice((b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\x7f"))
                + data[end:]
            )
        case 4:
            return data[:at] + data[at:end] * chance.choice((2, 40)) + data[end:]
        case 5:
            other = chance.choice(seeds)
            return data[:at] + other[chance.randrange(len(other) + 1) :]
        case _:
            return data[:at]


def check(start: Start, data: bytes, cuts: list[int]) -> None:
    """All that must hold for these bytes."""
    whole = hear(start, [data])
    if hear(start, [data[at : at + 1] for at in range(len(data))]) != whole:
        raise Finding("byte by byte it says something else")
    if hear(start, [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]) != whole:
        raise Finding(f"cut at {cuts} it says something else")


def hear(start: Start, pieces: list[bytes]) -> tuple[list[ServerEvent | ClientEvent], bytes]:
    """The events and answers of a stream that ends."""
    try:
        peer = start.make()
        events, out = [], peer.bytes_to_send()
        for piece in (*pieces, None):
            if piece is None:
                peer.receive_eof(1.0)
            else:
                peer.receive(piece, 1.0)
            events += list(answered(peer))
            out += peer.bytes_to_send()
            peer.deadline()
    except Exception as error:
        raise Finding(f"{type(error).__name__}: {error}") from error
    ends = [event for event in events if isinstance(event, Closed)]
    if len(ends) != 1 or events[-1] is not ends[0]:
        raise Finding(f"{len(ends)} ends, the last event is {type(events[-1]).__name__ if events else None}")
    try:
        packets = raw.split_packets(out)
    except ValueError as error:
        raise Finding(f"what it sends is cut: {error}") from error
    if wrong := {packet[0] for packet in packets} - start.says:
        raise Finding(f"it sends what its role may not: {wrong}")
    return events, out


def answered(peer: Peer) -> Iterator[ServerEvent | ClientEvent]:
    """The events that are ready, each answered by an owner that depends on nothing but the event."""
    for _ in range(_MAX_EVENTS):
        event = peer.next_event()
        if event is None:
            return
        yield event
        match event:
            case ConnectReceived(connect) if isinstance(peer, ServerConnection):
                if connect.keep_alive % 7 == 6:
                    peer.refuse(ConnackCode.NOT_AUTHORIZED, 1.0)
                else:
                    peer.accept(1.0, not connect.clean_session)
            case PublishReceived(publish, joins):
                if publish.qos and not joins and publish.packet_id % 3:
                    peer.acknowledge(publish.packet_id)
            case SubscribeReceived(subscribe) if (
                isinstance(peer, ServerConnection) and subscribe.packet_id % 4
            ):
                peer.grant(subscribe.packet_id, tuple(qos for _, qos in subscribe.filters))
            case UnsubscribeReceived(unsubscribe) if isinstance(peer, ServerConnection):
                peer.confirm_unsubscribe(unsubscribe.packet_id)
    raise Finding(f"over {_MAX_EVENTS} events")


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fuzz.mqtt_core", description=__doc__)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument(
        "--runs", type=int, default=sys.maxsize, help="end after so many, if they come first"
    )
    chosen = options.parse_args(arguments)
    seeds = corpus()
    end = time.monotonic() + chosen.seconds
    number = 0
    while number < chosen.runs and time.monotonic() < end:
        try:
            run(number, chosen.seed, seeds)
        except Finding as finding:
            print(f"FOUND {finding}")
            return 1
        number += 1
    print(f"{number} runs from {len(seeds)} seeds, seed {chosen.seed}: nothing found")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
