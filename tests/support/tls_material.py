"""An authority of our own and certificates from it, as files, for listeners and hubs in tests (made with trustme)."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class ServerMaterial:
    """One server's chain with its key, in one PEM file."""

    chain: Path


class Authority:
    """A CA whose certificate lies in `ca_file`."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._name = name
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.ca_file = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def server(self, *names: str, rsa: bool = False, expired: bool = False) -> ServerMaterial:
        """A certificate for `names`: P-256, or RSA-2048 as IoT Hub shows it."""
        certificate = self._ca.issue_cert(
            *names,
            key_type=trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA,
            not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if expired else None,
            not_before=datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC) if expired else None,
        )
        kind = ("rsa" if rsa else "p256") + ("-expired" if expired else "")
        chain = self._directory / f"{self._name}-{names[0]}-{kind}.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(chain)
        return ServerMaterial(chain)
