"""The hub's second face: the same hub, through WebSocket frames, and the same fate."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from gatewayd.emulator.faults import FaultKind
from tests.support.emulated_hub import DeskHub, emulated_hub
from tests.support.raw_device import frame as packet
from tests.support.raw_device import text

PATH = "/$iothub/websocket"
WITHIN_SECONDS = 10.0


class WebDevice:
    """A device on aiohttp's WebSocket, saying MQTT by hand."""

    def __init__(self, desk: DeskHub, http: aiohttp.ClientSession) -> None:
        self.desk = desk
        self.http = http

    async def dial(self, path: str = PATH) -> aiohttp.ClientWebSocketResponse:
        address = self.desk.hub.websocket_address
        assert address is not None
        return await self.http.ws_connect(
            f"https://{address[0]}:{address[1]}{path}",
            ssl=self.desk.client_context(),
            server_hostname=self.desk.hostname,
            protocols=("mqtt",),
            timeout=aiohttp.ClientWSTimeout(ws_close=WITHIN_SECONDS),
        )

    async def connect(self, identity: str) -> aiohttp.ClientWebSocketResponse:
        """A connection whose CONNECT is accepted."""
        ws = await self.dial()
        desk = self.desk
        body = text("MQTT") + bytes((4, 0xC0)) + bytes((0, 60)) + text(identity)
        await ws.send_bytes(packet(0x10, body + text(desk.username(identity)) + text(desk.token(identity))))
        connack = await ws.receive_bytes(timeout=WITHIN_SECONDS)
        assert (connack[:2], connack[3]) == (b"\x20\x02", 0)
        return ws


async def test_a_device_over_websocket_is_a_device_of_the_same_hub() -> None:
    async with emulated_hub("dev-01", websocket_port=0) as desk, aiohttp.ClientSession() as http:
        ws = await WebDevice(desk, http).connect("dev-01")
        assert desk.hub.open_identities == {"dev-01"}
        topic = text("devices/dev-01/messages/events/$.mid=one")
        await ws.send_bytes(packet(0x32, topic + b"\x00\x01hello"))
        assert await ws.receive_bytes(timeout=WITHIN_SECONDS) == b"\x40\x02\x00\x01"
        assert [message.payload for message in desk.hub.ledger.of("dev-01")] == [b"hello"]
        await ws.send_bytes(b"\xe0\x00")
        await ws.close()
        assert desk.hub.summary().planned_disconnects == 1


async def test_the_hub_closes_by_a_close_frame() -> None:
    async with emulated_hub("dev-01", websocket_port=0) as desk, aiohttp.ClientSession() as http:
        ws = await WebDevice(desk, http).connect("dev-01")
        desk.hub.drop("dev-01")
        closed = await ws.receive(timeout=WITHIN_SECONDS)
        assert closed.type is aiohttp.WSMsgType.CLOSE
        await ws.close()


async def test_another_path_is_not_the_hub() -> None:
    async with emulated_hub("dev-01", websocket_port=0) as desk, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            await WebDevice(desk, http).dial("/mqtt")
        assert desk.hub.summary().handshakes_failed == 1


async def test_without_a_port_there_is_no_second_face() -> None:
    async with emulated_hub("dev-01") as desk:
        assert desk.hub.websocket_address is None


async def test_what_befalls_the_hub_befalls_both_faces() -> None:
    async with emulated_hub("dev-01", websocket_port=0) as desk, aiohttp.ClientSession() as http:
        device = WebDevice(desk, http)
        ws = await device.connect("dev-01")
        assert await desk.hub.restart(0.2) == 1
        await ws.close()
        with pytest.raises(aiohttp.ClientConnectorError):
            await device.dial()
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                try:
                    ws = await device.connect("dev-01")
                    break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)
        await desk.hub.rotate_certificate(desk.certificate)
        await ws.close()
        await (await device.connect("dev-01")).close()
        await desk.hub.blackhole(600.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await device.dial()


async def test_a_hub_that_refuses_all_refuses_here_too() -> None:
    async with emulated_hub("dev-01", websocket_port=0) as desk, aiohttp.ClientSession() as http:
        desk.hub.arm(FaultKind.REFUSE_ALL, count=1)
        device = WebDevice(desk, http)
        with pytest.raises(aiohttp.ClientError):
            await device.dial()
        await (await device.connect("dev-01")).close()
