"""One MQTT connection of a device, over asyncio-mqtt: a client that is not ours.

Hides what that client leaves to its caller: a publish does not end when its connection is lost, a connect does not
end when the peer closes before its answer, a failed connect keeps its socket, a packet behind another one in the same
TLS record is not read, and the import prints a notice. Promises that `connect` and `lost` end when the connection does,
and that nothing is open after `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass
from typing import Any, Protocol

# The import says on stderr that the library was renamed, and later every slow receipt would; we count instead.
_LOG = logging.getLogger("mqtt")
_LOG.disabled = True

from asyncio_mqtt import Client, MqttCodeError, MqttError  # noqa: E402  # after its logger is silenced

CONNACK_WAIT_SECONDS = 60  # azure-iot-device waits as long
CLOSE_WAIT_SECONDS = 2
# A receipt is waited for as long as the connection lives; its owner ends the wait when the connection is lost.
_LONGEST_PUBLISH_SECONDS = 86_400


class ConnectFailed(Exception):
    """No connection, and why: the CONNACK code, or what went wrong before there was one."""


class ConnectionLost(Exception):
    """The connection ended and we did not end it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Where devices connect, and how they know whom they talk to."""

    host: str
    port: int
    context: ssl.SSLContext
    keep_alive: int


class Connection(Protocol):
    """What a device needs of its connection."""

    async def publish(self, topic: str, body: str) -> None:
        """Returns with the receipt; ConnectionLost when the connection could not take the message."""

    async def lost(self) -> None:
        """Returns when the connection has ended."""

    async def close(self) -> None:
        """DISCONNECT, then close; bounded."""


class _Client(Client):
    """Ends a connect whose connection is closed before CONNACK, as a throttling hub does; reads all that has come."""

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:
        super()._on_socket_open(client, userdata, sock)

        def read() -> None:
            try:
                client.loop_read()
                # What TLS has decrypted already makes no socket readable.
                while client.socket() is sock and sock.pending():
                    client.loop_read()
            except Exception as error:  # noqa: BLE001 - whatever it is, the connection is of no use any more
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        self._loop.add_reader(sock.fileno(), read)

    def _on_disconnect(self, client: Any, userdata: Any, rc: Any, properties: Any = None) -> None:
        if self._connected.done():
            super()._on_disconnect(client, userdata, rc, properties)
        else:
            self._connected.set_exception(ConnectFailed("closed before CONNACK"))


class MqttConnection:
    """An open connection."""

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        self._client = client

    async def publish(self, topic: str, body: str) -> None:
        try:
            await self._client.publish(topic, body, qos=1, timeout=_LONGEST_PUBLISH_SECONDS)
        except (MqttError, OSError) as error:
            raise ConnectionLost(str(error)) from None

    async def lost(self) -> None:
        try:
            async with self._client.messages() as messages:
                async for _ in messages:
                    pass
        except (MqttError, OSError):
            return

    async def close(self) -> None:
        await _end(self._client)


async def connect(peer: Peer, name: str, username: str, password: str) -> MqttConnection:
    """Open a connection as the SDKs do: CleanSession 0, TLS with the server's name checked. ConnectFailed if not."""
    client = _Client(
        peer.host,
        peer.port,
        client_id=name,
        username=username,
        password=password,
        clean_session=False,
        tls_context=peer.context,
        keepalive=peer.keep_alive,
    )
    try:
        await client.connect(timeout=CONNACK_WAIT_SECONDS)
    except (MqttError, OSError, ValueError) as error:
        await _end(client)
        raise ConnectFailed(_reason(error)) from None
    except (asyncio.CancelledError, ConnectFailed):
        await _end(client)
        raise
    return MqttConnection(client)


def trusting(authority_file: str) -> ssl.SSLContext:
    """A context that trusts one authority; TLS 1.2 at least. One for all devices: a context each is slow and large."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(authority_file)
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, MqttCodeError):
        return f"CONNACK {error.rc}"
    return f"{type(error).__name__}: {error}"


async def _end(client: Client) -> None:
    """Leave as `async with client` does: DISCONNECT if there is a connection; the error of a lost one is taken up."""
    with contextlib.suppress(MqttError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_WAIT_SECONDS):
            await client.__aexit__(None, None, None)
