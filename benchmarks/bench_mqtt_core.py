"""What one QoS 1 message costs in the MQTT core, in each role, with no socket: is it a few microseconds?

    python -m benchmarks.bench_mqtt_core [--json]

Each figure is the best of many short batches, in microseconds: a shared machine can only add. `server` is a
PUBLISH received, told to the owner, acknowledged, its PUBACK taken out. `client` is a PUBLISH sent, taken
out, its PUBACK received and told. `paho` is paho-mqtt 1.6 building the same PUBLISH and nothing else: no
socket, no queue. `chunks` is a packet that comes in pieces of 16 KiB, in nanoseconds a byte, at two sizes:
equal figures mean that the work is linear.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable

from paho.mqtt import client as paho

from gatewayd.protocol.mqtt.client import ClientConnection, ClientSession
from gatewayd.protocol.mqtt.events import PublishAcknowledged, PublishReceived
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect
from gatewayd.protocol.mqtt.server import ServerConnection
from tests.support import mqtt_bytes as raw

TOPIC = "devices/device-0001/messages/events/%24.mid=0123456789&%24.ct=application%2Fjson"
BATCH = 200
SECONDS_PER_FIGURE = 1.0
IDLE_CONNECTIONS = 2_000


def best(batch: Callable[[], object], count: int = BATCH) -> float:
    """Microseconds a step, in the best batch of about a second."""
    fastest = float("inf")
    end = time.perf_counter() + SECONDS_PER_FIGURE
    while time.perf_counter() < end:
        start = time.perf_counter()
        batch()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest / count * 1e6


def open_server() -> ServerConnection:
    server = ServerConnection(Limits(max_packet_bytes=20_000_000), 0.0)
    server.receive(raw.connect(), 0.0)
    server.next_event()
    server.accept(0.0, False)
    server.bytes_to_send()
    return server


def open_client() -> ClientConnection:
    client = ClientConnection(ClientSession(), Limits())
    client.connect(Connect("dev"), 0.0)
    client.receive(raw.connack(), 0.0)
    client.next_event()
    client.bytes_to_send()
    return client


def server_step(size: int) -> float:
    server = open_server()
    messages = [raw.publish(TOPIC, bytes(size), 1, packet_id) for packet_id in range(1, BATCH + 1)]

    def batch() -> None:
        for message in messages:
            server.receive(message, 1.0)
            event = server.next_event()
            assert isinstance(event, PublishReceived)
            server.acknowledge(event.publish.packet_id)
            server.next_event()
            server.bytes_to_send()
            server.deadline()

    return best(batch)


def client_step(size: int) -> float:
    client = open_client()
    payload = bytes(size)

    def batch() -> None:
        for _ in range(BATCH):
            packet_id = client.publish(TOPIC, payload, 1, 1.0)
            client.bytes_to_send()
            client.receive(b"\x40\x02" + packet_id.to_bytes(2, "big"), 1.0)
            event = client.next_event()
            assert isinstance(event, PublishAcknowledged)
            client.next_event()
            client.deadline()

    return best(batch)


def paho_step(size: int) -> float:
    class Capture(paho.Client):  # type: ignore[misc]  # paho 1.6 ships no types
        def _packet_queue(self, *_packet: object) -> int:
            return 0

    class NoSocket:
        def close(self) -> None:
            pass

    peer = Capture("dev")
    peer._sock = NoSocket()
    payload = bytes(size)

    def batch() -> None:
        for packet_id in range(BATCH):
            peer._send_publish(packet_id + 1, TOPIC.encode(), payload, 1, False, False)

    return best(batch)


def chunk_cost(size: int) -> float:
    """Nanoseconds a byte for one packet of `size` bytes in pieces of 16 KiB."""
    message = raw.publish(TOPIC, bytes(size))
    pieces = [message[at : at + 16_384] for at in range(0, len(message), 16_384)]
    server = open_server()

    def batch() -> None:
        for piece in pieces:
            server.receive(piece, 1.0)
            server.next_event()

    return best(batch, len(message)) * 1e3


def idle_bytes(make: Callable[[], object]) -> float:
    """Bytes an idle connection keeps."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [make() for _ in range(IDLE_CONNECTIONS)]
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before - sys.getsizeof(kept)) / IDLE_CONNECTIONS


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m benchmarks.bench_mqtt_core", description=__doc__)
    options.add_argument("--json", action="store_true")
    as_json = options.parse_args().json
    figures: dict[str, float] = {}
    for size in (100, 4_096, 262_144):
        figures[f"server_{size}_us"] = server_step(size)
        figures[f"client_{size}_us"] = client_step(size)
        figures[f"paho_{size}_us"] = paho_step(size)
    for size in (1_000_000, 10_000_000):
        figures[f"chunks_{size}_ns_per_byte"] = chunk_cost(size)
    figures["server_idle_bytes"] = idle_bytes(open_server)
    figures["client_idle_bytes"] = idle_bytes(open_client)
    if as_json:
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
        return 0
    for name, value in figures.items():
        print(f"{name:32}{value:12.2f}")
    ratio = figures["client_100_us"] / figures["paho_100_us"]
    print(f"\nclient, all of it, against paho's building of the packet alone, 100 bytes: {ratio:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
