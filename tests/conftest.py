"""Certificates for a whole test run, and the TLS versions that devices and the hub speak."""

from __future__ import annotations

import ssl

import pytest

from tests.support.tls_material import Tls


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls1.2", "tls1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    chosen = request.param
    assert isinstance(chosen, ssl.TLSVersion)
    return chosen
