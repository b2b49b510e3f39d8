"""What gatewayd's cost is held against: a relay that knows no MQTT, and a gateway made of azure-iot-device clients.

    python -m benchmarks.rival_gateways relay|azure PLAN.json

*relay*: asyncio's own TLS on both sides, one connection to the hub for each device, bytes copied. It is the floor of
what two TLS connections on asyncio cost; it checks, keeps and promises nothing.

*azure*: asyncio's own TLS and the least MQTT on the device side; behind it one unmodified `IoTHubDeviceClient` (aio)
for each device, connected before the first device may come. The receipt follows `send_message`. paho waits in
select(2), so its files must have numbers below 1,024: it holds some 330 devices and no more.

Both print {"ready": true} when devices may come.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import sys
from pathlib import Path
from typing import Any


class DeviceSide(asyncio.Protocol):
    """Relay: what a device says goes to its own hub connection, made when the device comes."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._early: list[bytes] = []
        self.transport: asyncio.Transport
        self._hub: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._relay.start(self)

    def linked(self, hub: asyncio.Transport) -> None:
        self._hub = hub
        hub.writelines(self._early)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self._hub is None:
            self._early.append(data)
        else:
            self._hub.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._hub is not None:
            self._hub.close()


class HubSide(asyncio.Protocol):
    """Relay: what the hub says goes to the device."""

    def __init__(self, device: DeviceSide) -> None:
        self._device = device

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._device.linked(transport)

    def data_received(self, data: bytes) -> None:
        self._device.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._device.transport.close()


class Relay:
    """Joins both sides."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._context = ssl.create_default_context(cafile=plan["hub_authority"])
        self._dials: set[asyncio.Task[Any]] = set()

    def start(self, device: DeviceSide) -> None:
        dial = asyncio.get_running_loop().create_connection(
            lambda: HubSide(device),
            self._plan["hub_host"],
            self._plan["hub_port"],
            ssl=self._context,
            server_hostname=self._plan["hub"],
        )
        task = asyncio.ensure_future(dial)
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def serve(self) -> None:
        await _listen(self._plan, lambda: DeviceSide(self))


class SdkSide(asyncio.Protocol):
    """SDK gateway: one device. A message is handed to the SDK, the receipt follows when the SDK says the hub has it."""

    def __init__(self, clients: dict[str, Any]) -> None:
        self._clients = clients
        self._received = b""
        self._sending: set[asyncio.Task[None]] = set()
        self._client: Any = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        from benchmarks.lean_hub import CONNECT, PUBLISH, frame  # noqa: PLC0415 - the relay must not load the SDK

        data, at = self._received + data, 0
        while (found := frame(data, at)) is not None:
            start, end = found
            kind = data[at] >> 4
            if kind == CONNECT:
                size = int.from_bytes(data[start + 10 : start + 12], "big")
                self._client = self._clients[data[start + 12 : start + 12 + size].decode()]
                self._transport.write(b"\x20\x02\x00\x00")
            elif kind == PUBLISH:
                start += 2 + int.from_bytes(data[start : start + 2], "big")
                sending = asyncio.ensure_future(self._send(data[start : start + 2], data[start + 2 : end]))
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)
            at = end
        self._received = data[at:]

    async def _send(self, packet_id: bytes, payload: bytes) -> None:
        from azure.iot.device import Message  # noqa: PLC0415 - as above

        message: Any = Message(payload)  # type: ignore[no-untyped-call]  # the SDK has no types
        message.content_type = "application/json"
        message.content_encoding = "utf-8"
        await self._client.send_message(message)
        self._transport.write(b"\x40\x02" + packet_id)


async def serve_sdk(plan: dict[str, Any], authority: str) -> None:
    """Connect every SDK client, then let devices come."""
    from azure.iot.device.aio import IoTHubDeviceClient  # noqa: PLC0415 - as above

    logging.disable(logging.CRITICAL)
    clients: dict[str, Any] = {}
    for name, key in plan["keys"].items():
        client = IoTHubDeviceClient.create_from_symmetric_key(
            symmetric_key=key, hostname=plan["hub"], device_id=name, server_verification_cert=authority
        )
        await client.connect()
        clients[name] = client
    await _listen(plan, lambda: SdkSide(clients))


async def _listen(plan: dict[str, Any], protocol: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(plan["certificate"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, plan["host"], plan["port"], ssl=context, backlog=1024)
    print(json.dumps({"ready": True}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    the_plan = json.loads(Path(sys.argv[2]).read_text(encoding="ascii"))
    the_authority = Path(the_plan["hub_authority"]).read_text(encoding="ascii")
    asyncio.run(Relay(the_plan).serve() if sys.argv[1] == "relay" else serve_sdk(the_plan, the_authority))
