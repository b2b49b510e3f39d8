"""A device on asyncio-mqtt (paho): a client we did not write, met on loopback under the name in its certificate."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import asyncio_mqtt

from tests.support.raw_device import Desk


class PahoDevice(asyncio_mqtt.Client):
    """asyncio-mqtt dials by name; while it connects, that name is looked up as the desk's address."""

    def __init__(self, desk: Desk, identity: str, context: ssl.SSLContext) -> None:
        super().__init__(
            desk.hostname,
            desk.port,
            client_id=identity,
            username=desk.username(identity),
            password=desk.token(identity),
            tls_context=context,
            clean_session=False,
        )
        self._desk = desk

    async def connect(self, *, timeout: int = 10) -> None:  # noqa: ASYNC109 - the library's own signature
        real: Callable[..., Any] = socket.getaddrinfo

        def lookup(host: str, *rest: Any, **more: Any) -> Any:
            return real(self._desk.host if host == self._desk.hostname else host, *rest, **more)

        with patch.object(socket, "getaddrinfo", lookup):
            await super().connect(timeout=timeout)


def paho_client(desk: Desk, identity: str, context: ssl.SSLContext) -> PahoDevice:
    """A client of MQTT 3.1.1 with a session that is not clean, as the device SDKs make it."""
    return PahoDevice(desk, identity, context)
