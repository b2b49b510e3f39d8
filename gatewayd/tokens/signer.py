"""SAS tokens from a key table: signed in C, many at a time, and checked in constant time.

The text of a token is byte for byte what azure-iot-device 2.14 makes for the same key, resource and expiry. A batch is
signed into one arena and becomes `str` only where someone asks for one: a str costs as much as the signature.

There is one engine per machine, chosen at load after known answers; `engine` names it. Nothing falls back to slower
code in silence. When to sign, and whether a clock may be trusted, is for the caller to know.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gatewayd.errors import NativeSignerError, RemoteProtocolError
from gatewayd.tokens._sas_native import ffi, lib
from gatewayd.tokens.key_table import KeyTable, error_text, native_error

if TYPE_CHECKING:
    from gatewayd.tokens._sas_native import CData

# What every SDK and the hub hold an expiry in.
EXPIRY_MAX: Final = 2**63 - 1

_GRAMMAR_FAULTS: Final = frozenset(
    (
        lib.GW_ERR_TOKEN_SCHEME,
        lib.GW_ERR_TOKEN_FIELD,
        lib.GW_ERR_TOKEN_EXPIRY,
        lib.GW_ERR_TOKEN_MAC,
        lib.GW_ERR_TOKEN_LENGTH,
    )
)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a well-formed token says. Only an `authentic` one was made with the key.

    `resource` is sr exactly as it stands in the token, encoded or not; `policy` is skn, or "". Whether the resource
    covers the device and whether `expiry` lies ahead are the caller's questions.
    """

    resource: str
    expiry: int
    policy: str
    authentic: bool


class TokenBatch:
    """The tokens of one `sign_many`, in one arena. `batch[i]` makes a str, `view(i)` a view of the arena.

    Given to another `sign_many` it is overwritten: views made before then show the new tokens.
    """

    __slots__ = ("_arena", "_count", "_offsets")

    def __init__(self) -> None:
        self._arena = bytearray()
        self._offsets = array("I", (0,))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> str:
        return str(self.view(i), "ascii")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(self._count))

    def view(self, i: int) -> memoryview:
        """Token i without a copy, read-only."""
        if not -self._count <= i < self._count:
            raise IndexError(f"token {i} of {self._count}")
        i %= self._count
        return memoryview(self._arena)[self._offsets[i] : self._offsets[i + 1] - 1].toreadonly()

    def tolist(self) -> list[str]:
        """Every token as str; cheaper than one by one."""
        if not self._count:
            return []
        with memoryview(self._arena) as arena, arena[: self._offsets[self._count] - 1] as text:
            return str(text, "ascii").split("\n")

    def wipe(self) -> None:
        """Clear the arena: tokens open doors until they expire."""
        self._count = 0
        with ffi.from_buffer("char[]", self._arena) as arena:
            lib.gw_wipe(arena, len(self._arena))

    def make_room(self, count: int, arena_bytes: int) -> tuple[CData, CData]:
        """For the signer: where tokens and offsets go. A smaller arena is replaced, since views may still hold it."""
        self._count = 0
        if len(self._arena) < arena_bytes:
            self._arena = bytearray(arena_bytes)
        if len(self._offsets) < count + 1:
            self._offsets = array("I", bytes(4 * (count + 1)))
        return (
            ffi.from_buffer("char[]", self._arena, require_writable=True),
            ffi.from_buffer("uint32_t[]", self._offsets, require_writable=True),
        )

    def filled(self, count: int) -> None:
        """For the signer: this many tokens are in the arena."""
        self._count = count


class Signer:
    """Signs and verifies with the keys of one table. Threads may share it."""

    __slots__ = ("_failed", "_handle", "_offsets", "_out", "_table")

    def __init__(self, table: KeyTable) -> None:
        self._table = table
        # What `sign_one` writes to, made once. It is used only under the table's lock.
        self._handle = ffi.new("uint32_t[1]")
        self._offsets = ffi.new("uint32_t[2]")
        self._failed = ffi.new("size_t *")
        self._out = ffi.new("char[1024]")

    @property
    def engine(self) -> str:
        """The engine that signs: "sha-ni x2", "armv8-ce x2" or "portable"."""
        return engine_name()

    def sign_one(self, index: int, expiry: int) -> bytes:
        """The token of one key until `expiry` (seconds since 1970)."""
        _check_expiry(expiry)
        with self._table.use as native:
            self._handle[0] = index
            out = self._out
            code = lib.gw_sign(native, self._handle, 1, expiry, out, len(out), self._offsets, self._failed)
            if code == lib.GW_ERR_SPACE:
                out = self._out = ffi.new("char[]", lib.gw_table_arena(native, 1))
                code = lib.gw_sign(
                    native, self._handle, 1, expiry, out, len(out), self._offsets, self._failed
                )
            if code != lib.GW_OK:
                raise _sign_error(code, index)
            return ffi.unpack(out, self._offsets[1] - 1)

    def sign_many(self, indices: Iterable[int], expiry: int, into: TokenBatch | None = None) -> TokenBatch:
        """One token per index, in that order, all until `expiry`; `into` is a batch to fill again.

        An `array("I")` is read where it lies, anything else is copied into one. An index without a signing key fails
        the call and is named; no token is handed out then.
        """
        _check_expiry(expiry)
        handles = indices if isinstance(indices, array) and indices.typecode == "I" else array("I", indices)
        count = len(handles)
        batch = TokenBatch() if into is None else into
        with self._table.use as native:
            out, offsets = batch.make_room(count, lib.gw_table_arena(native, count))
            code = lib.gw_sign(
                native,
                ffi.from_buffer("uint32_t[]", handles),
                count,
                expiry,
                out,
                len(out),
                offsets,
                self._failed,
            )
            if code != lib.GW_OK:
                raise _sign_error(code, handles[self._failed[0]] if count else 0)
        batch.filled(count)
        return batch

    def verify(self, index: int, token: bytes | bytearray | memoryview | str) -> Claims:
        """Read a token and check its MAC under one key. RemoteProtocolError when it is not a token at all."""
        text = token.encode(errors="replace") if isinstance(token, str) else bytes(token)
        claims = ffi.new("gw_claims *")
        with self._table.use as native:
            code = lib.gw_verify(native, index, text, len(text), claims)
        if code in _GRAMMAR_FAULTS:
            raise RemoteProtocolError(f"SAS token: {error_text(code)}")
        if code != lib.GW_OK:
            raise native_error(code)
        resource, policy = claims.resource_offset, claims.policy_offset
        return Claims(
            resource=text[resource : resource + claims.resource_len].decode("ascii"),
            expiry=claims.expiry,
            policy=text[policy : policy + claims.policy_len].decode("ascii"),
            authentic=claims.authentic == 1,
        )


def engine_name() -> str:
    """The signing engine of this process."""
    return ffi.string(lib.gw_engine_name()).decode()


def _check_expiry(expiry: int) -> None:
    if not 0 <= expiry <= EXPIRY_MAX:
        raise ValueError(f"expiry {expiry}: expected seconds since 1970, 0 to 2**63 - 1")


def _sign_error(code: int, index: int) -> NativeSignerError:
    if code == lib.GW_ERR_HANDLE:
        return NativeSignerError(f"{error_text(code)}: {index}")
    return native_error(code)
