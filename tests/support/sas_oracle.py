"""SAS tokens by the standard library alone, written as Microsoft's Python SDK does it, and the engines to try."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gatewayd.tokens._sas_native import ffi, lib

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "tokens/vectors/sas.json").read_text())


def key_text(raw: bytes) -> bytearray:
    """Base64 in a buffer that may be wiped."""
    return bytearray(base64.b64encode(raw))


def raw_key(name: str) -> bytes:
    """Thirty-two bytes that differ by name."""
    return hashlib.sha256(name.encode()).digest()


def signature(raw: bytes, message: str) -> str:
    """The percent-encoded base64 of an HMAC."""
    return quote(base64.b64encode(hmac.digest(raw, message.encode(), "sha256")), safe="")


def token(raw: bytes, audience: str, expiry: int, skn: str = "") -> str:
    """What azure-iot-device makes of the same input."""
    sr = quote(audience, safe="")
    sig = signature(raw, f"{sr}\n{expiry}")
    return f"SharedAccessSignature sr={sr}&sig={sig}&se={expiry}" + (f"&skn={skn}" if skn else "")


def engines() -> list[str]:
    """Every engine of the build, the fastest first."""
    names: list[str] = []
    while (name := lib.gw_engine_list(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


@contextmanager
def engine_forced(name: str) -> Iterator[None]:
    """Sign with one engine for a while."""
    before = ffi.string(lib.gw_engine_name())
    assert lib.gw_engine_force_for_testing(name.encode()) == lib.GW_OK
    try:
        yield
    finally:
        assert lib.gw_engine_force_for_testing(before) == lib.GW_OK
