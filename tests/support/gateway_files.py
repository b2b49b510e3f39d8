"""All files of one gateway between an emulated hub and devices, on loopback ports that were free a moment ago.

    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01"], lifetime=20)

`site` is also the desk at which a device meets the gateway (see `raw_device.Desk`).
"""

from __future__ import annotations

import base64
import json
import random
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gatewayd.clock import SystemClock
from tests.support.emulated_hub import device_key, device_key_text, sas_token
from tests.support.tls_material import Authority

LISTENER_NAME = "gateway.test"


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on now, below the range that outgoing connections take theirs from."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind((host, port))
            except OSError:
                continue
            return port


def second_key_text(identity: str) -> str:
    """The secondary key the emulated hub knows for `identity`."""
    return base64.b64encode(device_key(f"{identity}:2")).decode()


class HubRoot(Protocol):
    """The root that a hub's certificate comes from."""

    def write_authority(self, path: Path) -> None: ...


class HubPlace(Protocol):
    """What a gateway's files say of a hub, in this process or in another."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def hostname(self) -> str: ...
    @property
    def certificate(self) -> HubRoot: ...


@dataclass(frozen=True, slots=True)
class GatewaySite:
    """Paths and addresses. `hub` is the hub's name, in user names and tokens."""

    toml: Path
    devices: Path
    floor_file: Path
    authority: Path
    hub: str
    host: str
    port: int
    metrics_port: int
    text: str

    @classmethod
    def make(
        cls,
        folder: Path,
        hub: HubPlace,
        identities: Sequence[str],
        *,
        lifetime: float = 3600.0,
        host: str = "127.0.0.1",
        port: int | None = None,
        more: str = "",
        tokens: str = "",
        listener: str = "",
        outbox: str = "",
        deadlines: str = "",
        session: str = "",
        metrics: str = "",
        device_lines: str = "",
        hub_lines: str = "",
        endpoints: str = "",
    ) -> GatewaySite:
        """Write everything. The other texts are more lines of the tables they are named after."""
        authority = Authority(folder, "gateway-authority")
        chain = authority.server(LISTENER_NAME, host).chain
        chain.chmod(0o600)
        hub.certificate.write_authority(folder / "hub-authority.pem")
        devices = folder / "devices.csv"
        devices.write_text(
            "".join(f"{name},{device_key_text(name)},{second_key_text(name)}\n" for name in identities)
        )
        devices.chmod(0o600)
        port, metrics_port = port or free_port(host), free_port()
        lines = [
            "[hub]",
            f"hostname = {json.dumps(hub.hostname)}",
            'trusted_ca = "hub-authority.pem"',
            hub_lines,
            "[hub.endpoints]",
            f'mqtt = "{hub.host}:{hub.port}"',
            endpoints,
            "[hub.session]",
            session,
            "[hub.deadlines]",
            *(f'{name} = "1s"' for name in ("dial", "handshake", "connack") if name not in deadlines),
            deadlines,
            "[tokens]",
            f'lifetime = "{lifetime:g}s"',
            tokens,
            "[listener]",
            f'address = "{host}:{port}"',
            f"certificate = {json.dumps(chain.name)}",
            listener,
            "[devices]",
            'file = "devices.csv"',
            device_lines,
            "[metrics]",
            f'address = "127.0.0.1:{metrics_port}"',
            metrics,
            "[outbox]",
            'path = "outbox.db"',
            outbox,
            "[clock]",
            'floor_file = "clock-floor"',
            more,
        ]
        text = "\n".join(line for line in lines if line) + "\n"
        toml = folder / "gatewayd.toml"
        toml.write_text(text)
        return cls(
            toml=toml,
            devices=devices,
            floor_file=folder / "clock-floor",
            authority=authority.ca_file,
            hub=hub.hostname,
            host=host,
            port=port,
            metrics_port=metrics_port,
            text=text,
        )

    # The desk

    @property
    def hostname(self) -> str:
        """The name in the listener's certificate."""
        return LISTENER_NAME

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def username(self, identity: str) -> str:
        return f"{self.hub}/{identity}/?api-version=2021-04-12"

    def token(self, identity: str, lifetime: float = 3600.0, *, key: bytes | None = None) -> str:
        expiry = int(SystemClock().wall() + lifetime)
        return sas_token(self.hub, identity, key or device_key(identity), expiry)

    # What an operator does

    def rewrite(self, before: str, after: str) -> None:
        """Change one line's text in the configuration file as it is now."""
        text = self.toml.read_text()
        assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in the file"
        self.toml.write_text(text.replace(before, after))
