"""A device's connection ends its waits when the connection ends, whatever the library below does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gatewayd.clock import SystemClock
from gatewayd.demo.connection import ConnectFailed, Connection, ConnectionLost, Peer, trusting
from gatewayd.demo.connection import connect as connect_to
from gatewayd.demo.identity import device_name, telemetry_topic, token, user_name
from gatewayd.demo.settings import HUB_HOSTNAME
from gatewayd.emulator.certificate import make_certificate
from gatewayd.emulator.event_log import Operation
from gatewayd.emulator.faults import FaultKind
from tests.demo.conftest import Desk

NAME = device_name(0)
WITHIN = 10.0


async def connect(desk: Desk, *, expires_in: float = 60.0) -> Connection:
    password = token(HUB_HOSTNAME, NAME, desk.key(), int(SystemClock().wall() + expires_in))
    return await desk.connect(NAME, user_name(HUB_HOSTNAME, NAME), password)


async def test_a_publish_returns_with_the_receipt_and_the_message_is_at_the_hub(desk: Desk) -> None:
    connection = await connect(desk)
    await connection.publish(telemetry_topic(NAME, "m1"), '{"a": 1}')
    assert desk.hub.ledger.ids(NAME) == {"m1"}
    assert desk.hub.ledger.of(NAME)[0].payload == b'{"a": 1}'
    await connection.close()


async def test_closing_says_disconnect_first(desk: Desk) -> None:
    connection = await connect(desk)
    await connection.close()
    end = await desk.hub.events.wait_for(lambda event: event.operation is Operation.DISCONNECT, within=WITHIN)
    assert end.planned is True
    assert not desk.hub.events.errors


async def test_a_lost_connection_is_noticed(desk: Desk) -> None:
    connection = await connect(desk)
    lost = asyncio.ensure_future(connection.lost())
    await asyncio.sleep(0)
    assert not lost.done()
    desk.hub.drop(NAME)
    async with asyncio.timeout(WITHIN):
        await lost
    await connection.close()


async def test_a_publish_on_a_lost_connection_is_refused(desk: Desk) -> None:
    connection = await connect(desk)
    desk.hub.drop(NAME)
    async with asyncio.timeout(WITHIN):
        await connection.lost()
    with pytest.raises(ConnectionLost):
        await connection.publish(telemetry_topic(NAME, "m1"), "{}")
    await connection.close()


async def test_a_refusal_is_told_by_its_code(desk: Desk) -> None:
    with pytest.raises(ConnectFailed, match="CONNACK 5"):
        await connect(desk, expires_in=-10)


async def test_a_hub_that_drops_the_connect_is_noticed_at_once(desk: Desk) -> None:
    desk.hub.throttle.per_second = 1
    first = await connect(desk)
    with pytest.raises(ConnectFailed, match="closed before CONNACK"):
        async with asyncio.timeout(WITHIN):
            await connect(desk)
    await first.close()


async def test_a_hub_that_is_not_there_is_told(desk: Desk) -> None:
    await desk.hub.stop()
    with pytest.raises(ConnectFailed, match="MqttError"):
        await connect(desk)


async def test_a_connect_that_is_given_up_leaves_nothing_open(desk: Desk) -> None:
    desk.hub.arm(FaultKind.NO_CONNACK, identity=NAME, count=1)
    connecting = asyncio.ensure_future(connect(desk))
    await desk.hub.events.wait_for(lambda event: event.cause == "no_connack", within=WITHIN)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    second = await connect(desk)
    await second.close()


# paho-mqtt leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_stranger_s_certificate_is_not_trusted(desk: Desk) -> None:
    other = make_certificate(HUB_HOSTNAME, ("127.0.0.1",), wall=SystemClock().wall())
    await desk.hub.rotate_certificate(other)
    with pytest.raises(ConnectFailed, match="certificate verify failed"):
        await connect(desk)


async def test_a_receipt_behind_another_packet_in_the_same_record_is_read(tmp_path: Path) -> None:
    certificate = make_certificate("localhost", ("127.0.0.1",), wall=SystemClock().wall())
    authority = tmp_path / "authority.pem"
    certificate.write_authority(authority)

    async def hub(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _packet(reader)
        writer.write(b"\x20\x02\x00\x00")
        publish = await _packet(reader)
        topic_bytes = int.from_bytes(publish[:2], "big")
        writer.write(b"\xd0\x00" + b"\x40\x02" + publish[2 + topic_bytes :][:2])  # PINGRESP, PUBACK
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hub, "127.0.0.1", 0, ssl=certificate.server_context())
    async with server:
        port = server.sockets[0].getsockname()[1]
        peer = Peer("127.0.0.1", port, trusting(str(authority)), keep_alive=60)
        connection = await connect_to(peer, NAME, "user", "password")
        async with asyncio.timeout(WITHIN):
            await connection.publish("topic", "body")
        await connection.close()


async def _packet(reader: asyncio.StreamReader) -> bytes:
    """The body of the next packet, of up to 16 KiB."""
    await reader.readexactly(1)
    size = shift = 0
    while True:
        (digit,) = await reader.readexactly(1)
        size += (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            return await reader.readexactly(size)
