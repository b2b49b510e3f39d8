"""What an operator reads. That real handshakes end here is tested in test_tls_transport.py."""

from __future__ import annotations

import ssl

import pytest

from gatewayd.transport.tls_problems import explain
from tests.support.tls_material import HUB, Tls


def openssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] (_ssl.c:1)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "does not trust the authority of our certificate"),
        ("WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("TLSV1_UNRECOGNIZED_NAME", "does not know the host name hub.example"),
    ],
)
def test_known_reasons_have_words_of_their_own(reason: str, words: str) -> None:
    assert words in explain(openssl_error(reason), HUB)


def test_an_unknown_reason_keeps_openssls_own_words() -> None:
    assert explain(openssl_error("SOME_NEW_REASON"), HUB) == "some new reason"


def test_an_unknown_verify_code_keeps_openssls_own_words(tls: Tls) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = 23
    error.verify_message = "certificate revoked"
    assert explain(error, HUB) == "the certificate of hub.example does not verify: certificate revoked"
