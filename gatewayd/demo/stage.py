"""What must lie ready before the processes start: a private directory, keys, certificates, ports.

Everything is made for one run and removed with it. The keys are random, and so is the authority the devices trust;
nothing here is worth stealing, and the files are still readable by their owner alone, as the daemon demands.
"""

from __future__ import annotations

import base64
import errno
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatewayd.demo.identity import device_name
from gatewayd.emulator.certificate import make_certificate

LOOPBACK = "127.0.0.1"
KEY_BYTES = 32  # what the service generates


@dataclass(frozen=True, slots=True)
class Stage:
    """The directory and the files that were put there."""

    directory: Path
    devices_file: Path
    gateway_certificate: Path
    gateway_authority: Path


@contextmanager
def stage(devices: int, wall: float) -> Iterator[Stage]:
    """A directory of our own with everything in it, removed at the end; certificates are good at `wall`."""
    # mkdtemp makes it readable by its owner alone.
    with tempfile.TemporaryDirectory(prefix="gatewayd-demo-") as name:
        directory = Path(name)
        certificate = make_certificate("gatewayd-demo", (LOOPBACK, "localhost"), wall=wall)
        yield Stage(
            directory,
            write_private(directory / "devices.csv", device_lines(devices)),
            write_private(directory / "gateway.pem", certificate.chain_pem + certificate.key_pem),
            write_private(directory / "gateway-authority.pem", certificate.authority_pem),
        )


# Linux gives outgoing connections ports from 32768 on (ip_local_port_range).
_FIRST_PORT = 20_000
_PORTS = 12_000


def device_lines(devices: int) -> bytes:
    """A device file with random keys."""
    lines = ["id,primary_key,secondary_key"]
    lines += [f"{device_name(number)},{_key()},{_key()}" for number in range(devices)]
    return ("\n".join(lines) + "\n").encode()


def write_private(path: Path, content: bytes) -> Path:
    """A new file with mode 0600 from its first moment on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody has now; they differ, because all are held until all are known."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            _bind_somewhere(one)
        return [one.getsockname()[1] for one in sockets]


def _bind_somewhere(sock: socket.socket) -> None:
    """Below the range that outgoing connections take their ports from: until a child listens, one could take it."""
    while True:
        try:
            sock.bind((LOOPBACK, _FIRST_PORT + secrets.randbelow(_PORTS)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
