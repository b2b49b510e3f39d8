"""The native key table as a verifier. Oracle: tokens made with stdlib hmac, and the vectors of five generators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.downstream.admission import Verdict
from gatewayd.downstream.token_verifier import KeyTableVerifier
from gatewayd.message import Identity
from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.signer import Signer
from tests.support.sas_keys import HUB, KeyRing, key_of, sign

VECTORS = json.loads(
    (Path(__file__).parent.parent / "protocol" / "iothub" / "vectors" / "sas.json").read_text()
)
DEVICE = Identity("dev-01")
KEYS = (key_of("primary"), key_of("secondary"))


@pytest.fixture
def table() -> Iterator[KeyTable]:
    table = KeyTable(8)
    yield table
    table.close()


def verifier(table: KeyTable, *keys: bytes) -> KeyTableVerifier:
    """A verifier that knows DEVICE alone."""
    indices = tuple(table.add(str(DEVICE), bytearray(key), f"{HUB}/devices/dev-01") for key in keys)
    return KeyTableVerifier(Signer(table), {DEVICE: indices}.get)


@pytest.mark.parametrize("text", VECTORS["tokens"][:4])
def test_tokens_of_every_generator_are_authentic(table: KeyTable, text: str) -> None:
    assert verifier(table, VECTORS["K"].encode()).verify(DEVICE, text.encode()) is Verdict.AUTHENTIC


@pytest.mark.parametrize("key", [*KEYS, key_of("other")])
def test_it_says_of_each_key_what_the_standard_library_says(table: KeyTable, key: bytes) -> None:
    token = sign(key, DEVICE, 1_800_000_000)
    assert verifier(table, *KEYS).verify(DEVICE, token) is KeyRing({DEVICE: KEYS}).verify(DEVICE, token)


def test_a_device_that_is_not_in_the_table_is_unknown(table: KeyTable) -> None:
    stranger = Identity("stranger")
    token = sign(KEYS[0], stranger, 1_800_000_000)
    assert verifier(table, *KEYS).verify(stranger, token) is Verdict.UNKNOWN_DEVICE


def test_nobody_is_unknown_while_keys_are_being_loaded(table: KeyTable) -> None:
    loading = KeyTableVerifier(Signer(table), lambda identity: None, lambda: False)
    assert loading.verify(DEVICE, sign(KEYS[0], DEVICE, 1_800_000_000)) is Verdict.NOT_READY


@pytest.mark.parametrize("token", [b"", b"hunter2", b"SharedAccessSignature sr=a&sig=b&se=1"])
def test_what_is_no_token_is_forged(table: KeyTable, token: bytes) -> None:
    assert verifier(table, *KEYS).verify(DEVICE, token) is Verdict.FORGED


def test_a_device_without_keys_has_no_authentic_token(table: KeyTable) -> None:
    assert verifier(table).verify(DEVICE, sign(KEYS[0], DEVICE, 1_800_000_000)) is Verdict.FORGED
