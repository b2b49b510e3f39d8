"""Names and expiry of PEM files, judged by trustme and by the ssl module."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from gatewayd.daemon.certificate_facts import certificate_facts
from tests.support.tls_material import Authority


def expiry_by_openssl(path: Path) -> float:
    """When the first certificate of a file ends, as the ssl module reads it."""
    decoded = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]  # only this reads a file's dates
    return ssl.cert_time_to_seconds(decoded["notAfter"])


def test_the_names_are_those_of_the_leaf(tmp_path: Path) -> None:
    chain = Authority(tmp_path).server("gateway.local", "127.0.0.1", "::1").chain
    assert certificate_facts(chain).names == {"gateway.local", "127.0.0.1", "::1"}


def test_the_expiry_is_wall_seconds(tmp_path: Path) -> None:
    chain = Authority(tmp_path).server("gateway.local").chain
    assert certificate_facts(chain).expires == expiry_by_openssl(chain)


def test_an_authority_has_an_expiry_and_no_names(tmp_path: Path) -> None:
    facts = certificate_facts(Authority(tmp_path).ca_file)
    assert facts.names == frozenset()
    assert facts.expires > 0


def test_of_a_chain_the_first_to_expire_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    live, dead = authority.server("a.local").chain, authority.server("b.local", expired=True).chain
    both = tmp_path / "both.pem"
    both.write_bytes(live.read_bytes() + dead.read_bytes())
    facts = certificate_facts(both)
    assert facts.expires == expiry_by_openssl(dead)
    assert facts.names == {"a.local"}


def test_a_file_without_a_certificate_is_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    with pytest.raises(ValueError, match="PEM"):
        certificate_facts(empty)
    with pytest.raises(FileNotFoundError):
        certificate_facts(tmp_path / "absent.pem")
