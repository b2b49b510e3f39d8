"""The desk certificate: trusted with its own authority, for its own names, in TLS 1.2; by nobody else."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gatewayd.clock import RELEASE_EPOCH_SECONDS, SystemClock
from gatewayd.emulator.certificate import HubCertificate, make_certificate

WALL = SystemClock().wall()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Complete a handshake in memory and give the client's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    pending = [ours, theirs]
    for _ in range(10):
        for side in list(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not pending:
            return ours
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize("use_rsa", [False, True])
@pytest.mark.parametrize("name", ["hub.test", "127.0.0.21"])
def test_a_client_that_trusts_the_authority_is_satisfied(name: str, use_rsa: bool) -> None:
    made = make_certificate("hub.test", ["127.0.0.21"], wall=WALL, use_rsa=use_rsa)
    side = handshake(made.server_context(), made.client_context(), name)
    assert side.version() == "TLSv1.2"


def test_tls_1_3_is_there_when_asked_for() -> None:
    made = make_certificate("hub.test", wall=WALL)
    assert (
        handshake(made.server_context(tls13=True), made.client_context(), "hub.test").version() == "TLSv1.3"
    )


def test_another_name_or_another_authority_is_refused() -> None:
    made, other = (make_certificate("hub.test", wall=WALL) for _ in range(2))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made.server_context(), made.client_context(), "other.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made.server_context(), other.client_context(), "hub.test")


def test_the_key_is_of_the_kind_asked_for_and_addresses_are_addresses(tmp_path: Path) -> None:
    made = make_certificate("127.0.0.21", ["hub.test"], wall=WALL)
    assert isinstance(leaf(made).public_key(), ec.EllipticCurvePublicKey)
    names = leaf(made).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.21")]
    assert names.get_values_for_type(x509.DNSName) == ["hub.test"]
    assert isinstance(leaf(make_certificate("a", wall=WALL, use_rsa=True)).public_key(), rsa.RSAPublicKey)
    made.write_authority(tmp_path / "ca.pem")
    assert x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes()).subject == leaf(made).issuer


def test_validity_follows_the_time_that_was_passed_in() -> None:
    made = leaf(make_certificate("a", wall=float(RELEASE_EPOCH_SECONDS)))
    assert (
        made.not_valid_before_utc.timestamp() < RELEASE_EPOCH_SECONDS < made.not_valid_after_utc.timestamp()
    )


def leaf(made: HubCertificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(made.chain_pem)
