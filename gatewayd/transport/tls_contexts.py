"""The TLS contexts: built once per role and shared by every connection of that role.

A context with the system's certificate store costs about 0.8 MB and 80 ms, so one per connection is out of the
question. TLS 1.2 is the floor on both sides: IoT Hub's classic host names speak nothing newer, the Python device SDK
insists on exactly 1.2, and anything older is retired. SSLKEYLOGFILE is not obeyed (only `ssl.create_default_context`
obeys it): no session key may reach a file.

Everything that can be wrong with the files is a `ConfigError` that names the file and what is expected in it.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from gatewayd.errors import ConfigError, ConfigProblem

# Forward secrecy and authenticated encryption only. Every device SDK of IoT Hub offers at least one of these; so does
# the hub itself (Microsoft, "Transport Layer Security (TLS) support in IoT Hub", strong cipher suites). TLS 1.3 suites
# are OpenSSL's own list and all qualify.
TLS12_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"

# One ticket is enough for a client that makes one connection at a time; OpenSSL's default of two costs a second record
# in every TLS 1.3 handshake.
SESSION_TICKETS = 1


def client_context(trusted_ca: Path | None = None) -> ssl.SSLContext:
    """For connections to the hub: its certificate and host name are always checked.

    Trusts the certificates in the PEM file `trusted_ca` and nothing else, or the system's store when None.
    """
    context = _common(ssl.PROTOCOL_TLS_CLIENT)
    if trusted_ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, trusted_ca)
    return context


def server_context(
    certificate: Path, key: Path | None = None, client_ca: Path | None = None
) -> ssl.SSLContext:
    """For a listener: the PEM chain `certificate` (leaf first) with its private `key` (None: in the same file).

    With `client_ca` a client may show a certificate, which must then come from that file's authorities.
    """
    context = _common(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = SESSION_TICKETS
    # All suites offered are strong, so the device chooses: one without AES instructions is faster with ChaCha20.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    _load_chain(context, certificate, key)
    if client_ca is not None:
        _trust(context, client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _common(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_SUITES)
    # A second handshake inside a connection is a way to make us compute, and writing would have to wait for it.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _trust(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(cafile=authorities)
    except ssl.SSLError as error:
        raise _unusable(
            authorities, "no certificate can be read from it", "CA certificates in PEM"
        ) from error
    except OSError as error:
        raise _unusable(authorities, error.strerror or str(error), "a readable PEM file") from error


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    def refuse_to_ask() -> str:
        # Without this OpenSSL asks for a pass phrase on the terminal and the daemon waits for it.
        raise _unusable(
            key or certificate, "the private key is encrypted", "a private key without a pass phrase"
        )

    try:
        context.load_cert_chain(certificate, key, password=refuse_to_ask)
    except ssl.SSLError as error:
        expected = "the certificate chain in PEM, leaf first, and the leaf's own private key"
        reason = (error.reason or "unreadable").replace("_", " ").lower()
        raise _unusable(certificate, f"certificate and key cannot be used: {reason}", expected) from error
    except OSError as error:
        raise _unusable(certificate, error.strerror or str(error), "readable PEM files") from error


def _unusable(path: Path, problem: str, expected: str) -> ConfigError:
    return ConfigError((ConfigProblem(str(path), problem, expected),))
