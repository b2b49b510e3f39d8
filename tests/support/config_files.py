"""A complete configuration on disk: certificate, key, devices and the TOML that names them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from tests.support.tls_material import Authority

HUB = "contoso.azure-devices.net"


@dataclass(frozen=True, slots=True)
class ConfigFolder:
    """The files of one gateway. `toml` is the path of the configuration."""

    toml: Path
    certificate: Path
    devices: Path

    def append(self, text: str) -> None:
        """Add lines to the configuration."""
        self.toml.write_text(self.toml.read_text() + text)


def key_text(number: int) -> str:
    """A device key that is nobody's: 32 bytes that all are `number`."""
    return base64.b64encode(bytes([number]) * 32).decode()


def device_lines(count: int) -> str:
    """The text of a device file."""
    return "".join(f"dev-{number},{key_text(number % 251)},\n" for number in range(count))


def write_config(folder: Path, *, devices: int = 3) -> ConfigFolder:
    """A configuration that `gatewayd check` calls good."""
    certificate = Authority(folder).server("gateway.local").chain
    certificate.chmod(0o600)
    device_file = folder / "devices.csv"
    device_file.write_text(device_lines(devices))
    device_file.chmod(0o600)
    toml = folder / "gatewayd.toml"
    toml.write_text(
        f'[hub]\nhostname = "{HUB}"\n'
        f'[listener]\ncertificate = "{certificate.name}"\n'
        '[devices]\nfile = "devices.csv"\n'
        '[outbox]\npath = "outbox.db"\n'
        '[clock]\nfloor_file = "clock-floor"\n'
    )
    return ConfigFolder(toml, certificate, device_file)
