"""Builds gatewayd.tokens._sas_native from the C files beside it: cffi API mode, limited ABI, no callbacks.

The surface Python sees is cut out of include/gw_sas.h between its two marks, so there is one list and no drift. The
build fails when the C does not compile; there is nothing slower to fall back to.
"""

from __future__ import annotations

import re
from pathlib import Path

from cffi import FFI

HERE = Path("csrc")
HEADER = HERE / "include" / "gw_sas.h"
SOURCES = (
    "base64", "block", "engine", "hmac", "sha256_armv8", "sha256_portable", "sha256_shani", "sign", "table",
    "verify", "wipe",
)  # fmt: skip

SPEED = ["-O2"]
HARDENING = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-fvisibility=hidden"]
WARNINGS = ["-Wall", "-Wextra"]
LINKING = ["-pthread", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]


def surface(header: str) -> str:
    """The declarations for cffi: what lies between the marks, without the attributes cffi does not read."""
    match = re.search(r"/\* cffi: begin \*/(.*)/\* cffi: end \*/", header, re.DOTALL)
    if match is None:
        raise ValueError(f"{HEADER}: the cffi marks are missing")
    return match.group(1)


ffi = FFI()
ffi.cdef(surface(HEADER.read_text()))
ffi.set_source(
    "gatewayd.tokens._sas_native",
    '#include "gw_sas.h"',
    sources=[str(HERE / "src" / f"{name}.c") for name in SOURCES],
    include_dirs=[str(HERE / "include")],
    depends=[str(HEADER), str(HERE / "src" / "internal.h"), str(HERE / "src" / "ct.h")],
    extra_compile_args=["-std=c11", "-pthread", *SPEED, *HARDENING, *WARNINGS],
    extra_link_args=LINKING,
    py_limited_api=True,
)
