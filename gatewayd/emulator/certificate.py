"""A certificate authority and a server certificate for a hub on a desk. Never for production.

P-256 keys by default: a handshake costs the hub a third of what RSA-2048 costs it. `rsa=True` shows clients what the
service shows them. The TLS versions are the service's: exactly 1.2 on a classic host name, unless told otherwise.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

VALID_DAYS = 30


@dataclass(frozen=True, slots=True)
class HubCertificate:
    """PEM texts: the authority a client must trust, the server's chain, its private key."""

    authority_pem: bytes
    chain_pem: bytes
    key_pem: bytes

    def server_context(self, *, tls13: bool = False, tickets: bool = True) -> ssl.SSLContext:
        """A context for the listening side."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_3 if tls13 else ssl.TLSVersion.TLSv1_2
        if not tickets:
            context.options |= ssl.OP_NO_TICKET
        # The ssl module reads certificates from files only.
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(self.chain_pem + self.key_pem)
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts this authority and nothing else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.authority_pem.decode())
        return context

    def write_authority(self, path: Path) -> None:
        path.write_bytes(self.authority_pem)


def make_certificate(
    hostname: str, addresses: Sequence[str] = (), *, wall: float, use_rsa: bool = False
) -> HubCertificate:
    """A new authority and a server certificate for `hostname` and more names or IP addresses, good at `wall`."""
    now = datetime.datetime.fromtimestamp(wall, datetime.UTC)
    authority_key = _new_key(use_rsa=use_rsa)
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gatewayd emulator root")])
    authority = (
        _builder(authority_name, authority_name, authority_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server_key = _new_key(use_rsa=use_rsa)
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    names = [_general_name(name) for name in dict.fromkeys([hostname, *addresses])]
    server = (
        _builder(server_name, authority_name, server_key, now, authority_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return HubCertificate(
        authority.public_bytes(pem),
        server.public_bytes(pem),
        server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _new_key(*, use_rsa: bool) -> _PrivateKey:
    if use_rsa:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: _PrivateKey,
    now: datetime.datetime,
    issuer_key: _PrivateKey | None = None,
) -> x509.CertificateBuilder:
    signer = issuer_key or key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
