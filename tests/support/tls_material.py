"""An authority of our own and certificates from it, as files, for listeners and hubs in tests (made with trustme).

`Tls` gives the contexts of both sides: ours, and the standard library's with its own defaults as the other end.
"""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

from gatewayd.transport.tls_contexts import client_context, server_context

HUB = "hub.example"


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


@dataclass(frozen=True, slots=True)
class Tls:
    """One authority, certificates of the host HUB, and contexts made from them."""

    authority: Authority
    chain: Path
    rsa_chain: Path
    expired_chain: Path

    @classmethod
    def make(cls, directory: Path) -> Tls:
        authority = Authority(directory)
        return cls(
            authority,
            chain=authority.server(HUB).chain,
            rsa_chain=authority.server(HUB, rsa=True).chain,
            expired_chain=authority.server(HUB, expired=True).chain,
        )

    def our_client(self) -> ssl.SSLContext:
        return client_context(self.authority.ca_file)

    def our_server(self) -> ssl.SSLContext:
        return server_context(self.chain)

    def their_server(
        self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, chain: Path | None = None
    ) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain or self.chain)
        context.maximum_version = version
        return context

    def their_client(self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        context.maximum_version = version
        return context
