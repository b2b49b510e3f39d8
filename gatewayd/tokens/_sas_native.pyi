"""What Python uses of the C signer. The meaning of each name is in csrc/include/gw_sas.h."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

class CData:
    """A C value. What is behind it is known to C alone."""

    authentic: int
    expiry: int
    policy_len: int
    policy_offset: int
    resource_len: int
    resource_offset: int
    def __enter__(self) -> CData: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def __getitem__(self, i: int) -> int: ...
    def __setitem__(self, i: int, value: int) -> None: ...
    def __len__(self) -> int: ...

class _FFI:
    NULL: CData
    def buffer(self, cdata: CData, size: int = ...) -> Any: ...
    def from_buffer(self, cdecl: str, python_buffer: Any, require_writable: bool = ...) -> CData: ...
    def gc(self, cdata: CData, destructor: Callable[[CData], None]) -> CData: ...
    def new(self, cdecl: str, init: Any = ...) -> CData: ...
    def release(self, cdata: CData) -> None: ...
    def string(self, cdata: CData) -> bytes: ...
    def unpack(self, cdata: CData, length: int) -> bytes: ...

class _Lib:
    GW_OK: int
    GW_ERR_ARGUMENT: int
    GW_ERR_MEMORY: int
    GW_ERR_KEY_TEXT: int
    GW_ERR_KEY_LENGTH: int
    GW_ERR_HANDLE: int
    GW_ERR_FULL: int
    GW_ERR_SPACE: int
    GW_ERR_FORKED: int
    GW_ERR_ENGINE: int
    GW_ERR_SELFTEST: int
    GW_ERR_TOKEN_SCHEME: int
    GW_ERR_TOKEN_FIELD: int
    GW_ERR_TOKEN_EXPIRY: int
    GW_ERR_TOKEN_MAC: int
    GW_ERR_TOKEN_LENGTH: int
    GW_KEY_MIN: int
    GW_KEY_MAX: int
    GW_AUDIENCE_MAX: int
    GW_POLICY_MAX: int
    GW_ID_MAX: int
    GW_TOKEN_MAX: int
    GW_SLOTS_MAX: int
    GW_DERIVED_TEXT: int
    GW_LOCKED: int
    GW_DUMP_EXCLUDED: int
    GW_WIPED_ON_FORK: int
    def gw_init(self) -> int: ...
    def gw_engine_name(self) -> CData: ...
    def gw_engine_list(self, i: int) -> CData: ...
    def gw_engine_available(self, name: bytes) -> int: ...
    def gw_engine_force_for_testing(self, name: bytes) -> int: ...
    def gw_error_text(self, code: int) -> CData: ...
    def gw_wipe(self, p: CData, size: int) -> None: ...
    def gw_table_new(self, capacity: int, rc: CData) -> CData: ...
    def gw_table_free(self, table: CData) -> None: ...
    def gw_table_reserve(self, table: CData, capacity: int) -> int: ...
    def gw_table_capacity(self, table: CData) -> int: ...
    def gw_table_flags(self, table: CData) -> int: ...
    def gw_table_arena(self, table: CData, count: int) -> int: ...
    def gw_table_add(
        self,
        table: CData,
        text: CData,
        text_len: int,
        audience: bytes,
        audience_len: int,
        policy: bytes,
        policy_len: int,
        handle: CData,
    ) -> int: ...
    def gw_table_share(
        self,
        table: CData,
        source: int,
        audience: bytes,
        audience_len: int,
        policy: bytes,
        policy_len: int,
        handle: CData,
    ) -> int: ...
    def gw_table_derive(
        self,
        table: CData,
        group: int,
        name: bytes,
        name_len: int,
        audience: bytes,
        audience_len: int,
        policy: bytes,
        policy_len: int,
        handle: CData,
    ) -> int: ...
    def gw_table_export_derived(
        self, table: CData, group: int, name: bytes, name_len: int, out: CData, out_size: int
    ) -> int: ...
    def gw_table_replace(self, table: CData, handle: int, text: CData, text_len: int) -> int: ...
    def gw_table_remove(self, table: CData, handle: int) -> int: ...
    def gw_sign(
        self,
        table: CData,
        handles: CData,
        count: int,
        expiry: int,
        out: CData,
        out_size: int,
        offsets: CData,
        failed: CData,
    ) -> int: ...
    def gw_verify(self, table: CData, handle: int, token: bytes, token_len: int, claims: CData) -> int: ...

ffi: _FFI
lib: _Lib
