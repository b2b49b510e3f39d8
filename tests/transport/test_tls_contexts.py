"""The two shared contexts: what they demand, and what they say about files that cannot be used."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gatewayd.errors import ConfigError
from gatewayd.transport.tls_contexts import client_context, server_context
from tests.support.tls_material import HUB, Authority, Tls


def shaken_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends in memory after a handshake; raises what either end raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=HUB),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends


def test_both_ends_agree_on_the_newest_version(tls: Tls) -> None:
    client, _ = shaken_hands(tls.our_client(), tls.our_server())
    assert client.version() == "TLSv1.3"


def test_both_contexts_set_their_floor_themselves_and_refuse_renegotiation(tls: Tls) -> None:
    for context in (tls.our_client(), tls.our_server()):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION


def test_a_client_of_exactly_tls_1_2_is_served_with_forward_secrecy(tls: Tls) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_verify_locations(tls.authority.ca_file)
    client, _ = shaken_hands(old, tls.our_server())
    cipher = client.cipher()
    assert cipher is not None
    assert (client.version(), cipher[0][:5]) == ("TLSv1.2", "ECDHE")


@pytest.mark.parametrize("we_are", ["client", "server"])
def test_tls_1_1_is_refused_in_both_roles(tls: Tls, we_are: str) -> None:
    client = tls.our_client() if we_are == "client" else old(tls.their_client())
    server = old(tls.their_server()) if we_are == "client" else tls.our_server()
    with pytest.raises(ssl.SSLError):
        shaken_hands(client, server)


def old(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that TLS 1.1 is old is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def test_the_device_chooses_among_the_suites(tls: Tls) -> None:
    client = tls.their_client(ssl.TLSVersion.TLSv1_2)
    for wanted in ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"):
        client.set_ciphers(f"{wanted}:ECDHE+AESGCM")
        end, _ = shaken_hands(client, tls.our_server())
        cipher = end.cipher()
        assert cipher is not None
        assert cipher[0] == wanted


def test_the_client_trusts_only_the_given_authorities(tls: Tls, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken_hands(client_context(stranger.ca_file), tls.our_server())
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken_hands(client_context(), tls.our_server())


def test_a_client_certificate_is_optional_and_checked_when_shown(tls: Tls, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    server = server_context(tls.chain, client_ca=tls.authority.ca_file)
    for shown, known in ((None, None), (tls.chain, True)):
        client = tls.their_client()
        if shown is not None:
            client.load_cert_chain(shown)
        _, end = shaken_hands(client, server)
        assert bool(end.getpeercert()) is bool(known)
    client = tls.their_client()
    client.load_cert_chain(stranger.server("device").chain)
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken_hands(client, server)


def test_no_session_key_is_ever_logged(tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    shaken_hands(tls.our_client(), tls.our_server())
    assert not log.exists()
    shaken_hands(tls.their_client(), tls.our_server())
    assert log.exists(), "the standard library's own client context obeys: the check can fail"


def test_the_key_may_lie_in_a_file_of_its_own(tls: Tls, tmp_path: Path) -> None:
    key = private_key(tls.chain)
    key_file, chain_file = tmp_path / "key.pem", tmp_path / "chain.pem"
    key_file.write_bytes(pem(key, serialization.NoEncryption()))
    text = tls.chain.read_text(encoding="ascii")
    chain_file.write_text(text[text.index("-----BEGIN CERTIFICATE") :], encoding="ascii")
    shaken_hands(tls.our_client(), server_context(chain_file, key_file))


def test_files_that_cannot_be_used_are_named_with_what_is_expected(tls: Tls, tmp_path: Path) -> None:
    missing, empty, encrypted = (tmp_path / name for name in ("missing.pem", "empty.pem", "encrypted.pem"))
    empty.write_text("no certificate here\n", encoding="ascii")
    encrypted.write_bytes(pem(private_key(tls.chain), serialization.BestAvailableEncryption(b"secret")))
    other = tls.authority.server("other.example").chain
    cases: tuple[tuple[Callable[[], ssl.SSLContext], Path, str], ...] = (
        (lambda: client_context(missing), missing, "No such file"),
        (lambda: client_context(empty), empty, "no certificate"),
        (lambda: server_context(missing), missing, "No such file"),
        (lambda: server_context(empty), empty, "cannot be used"),
        (lambda: server_context(tls.chain, other), tls.chain, "key values mismatch"),
        (lambda: server_context(tls.chain, encrypted), encrypted, "encrypted"),
        (lambda: server_context(tls.chain, client_ca=empty), empty, "no certificate"),
    )
    for make, path, words in cases:
        with pytest.raises(ConfigError) as caught:
            make()
        [problem] = caught.value.problems
        assert problem.path == str(path)
        assert words in problem.problem
        assert problem.allowed


def private_key(chain: Path) -> object:
    return serialization.load_pem_private_key(chain.read_bytes(), None)


def pem(key: object, encryption: serialization.KeySerializationEncryption) -> bytes:
    made: bytes = key.private_bytes(  # type: ignore[attr-defined]  # any private key has it
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return made
