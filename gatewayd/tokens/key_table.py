"""The keys of the fleet: 64 bytes of midstates each, in one locked block of C memory.

A key comes in as a writable buffer of base64 text and is decoded in C; the buffer is wiped before the call returns,
also when it raises. After that the key exists only as two hash states, which sign like the key but do not give it back.
The block is locked, left out of core dumps and empty in a child process, as far as the system grants it; `storage`
says what it granted.

An *index* names one key for as long as it is filed. It is never given to another key afterwards, so an index that is
kept too long is refused and cannot sign for a stranger.

One lock stands between change and use, because calls into C run without the GIL. What a token says, and whom a device
may speak for, is not decided here.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from gatewayd.errors import Bounded, KeyMalformed, NativeSignerError
from gatewayd.tokens._sas_native import ffi, lib

if TYPE_CHECKING:
    from gatewayd.tokens._sas_native import CData

# IoT Hub's own ceiling for one hub is 1,000,000 devices; an index of the signer counts to 2**20 keys.
KEYS_MAX: Final[int] = lib.GW_SLOTS_MAX

# Visible ASCII but '&', which would end the field. azure-iot-device puts the name into a token as it is.
_POLICY: Final = re.compile(r"[!-%'-~]*")

_KEY_FAULTS: Final = (lib.GW_ERR_KEY_TEXT, lib.GW_ERR_KEY_LENGTH)

_engine_started: Final[int] = lib.gw_init()
_forks = 0


def _note_fork() -> None:
    """In a child every table of the parent is void, and its lock may be held by a thread that is not here."""
    global _forks  # noqa: PLW0603 - a process has one history of forks
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)


class Storage(NamedTuple):
    """How the system keeps the key block."""

    locked: bool
    dump_excluded: bool
    wiped_on_fork: bool


class KeyTable:
    """Keys by index, shared by threads: one of them changes or uses it at a time.

    `capacity` is the room made at the start. A full table doubles up to `limit`, then raises `Bounded`. While it
    grows both blocks exist; the old one is wiped before it is given back.
    """

    __slots__ = ("_identities", "_limit", "use")

    def __init__(self, capacity: int = 1024, *, limit: int = KEYS_MAX) -> None:
        if not 1 <= capacity <= limit <= KEYS_MAX:
            raise ValueError(
                f"capacity {capacity}, limit {limit}: expected 1 <= capacity <= limit <= {KEYS_MAX}"
            )
        self.use: Final = NativeUse(capacity)
        self._identities: dict[int, str] = {}
        self._limit = limit

    def add(self, identity: str, key: bytearray | memoryview, audience: str, skn: str = "") -> int:
        """File the base64 `key` of `identity` to sign for `audience`, and wipe it. The index is what signs.

        `audience` is the resource as people write it, such as "hub.azure-devices.net/devices/d1". `skn` names the
        policy when the key is a policy's.
        """
        with WipedKey(identity, key) as text:
            return self._add(identity, text, _audience(audience), _policy(skn))

    def add_unsigning(self, identity: str, key: bytearray | memoryview) -> int:
        """File a key that signs nothing itself and wipe it: a group key to derive from, a policy key to share."""
        with WipedKey(identity, key) as text:
            return self._add(identity, text, b"", b"")

    def add_derived(
        self, identity: str, group_key_index: int, registration_id: str, audience: str, skn: str = ""
    ) -> int:
        """File the device key that an enrollment group's key gives for `registration_id`. Python never sees it."""
        name, resource, policy = registration_id.encode(), _audience(audience), _policy(skn)
        if not 1 <= len(name) <= lib.GW_ID_MAX:
            raise ValueError(f"registration id of {len(name)} bytes: expected 1 to {lib.GW_ID_MAX}")

        def derive(native: CData, index: CData) -> int:
            return lib.gw_table_derive(
                native, group_key_index, name, len(name), resource, len(resource), policy, len(policy), index
            )

        return self._file(identity, derive)

    def add_shared(self, identity: str, key_index: int, audience: str, skn: str = "") -> int:
        """File a copy of the key at `key_index` for another audience: one policy key, many devices."""
        resource, policy = _audience(audience), _policy(skn)

        def share(native: CData, index: CData) -> int:
            return lib.gw_table_share(native, key_index, resource, len(resource), policy, len(policy), index)

        return self._file(identity, share)

    def replace(self, index: int, key: bytearray | memoryview) -> None:
        """Put another key under `index` and wipe `key`. Copies made by `add_shared` keep the old one."""
        identity = self._identities.get(index, "")
        with WipedKey(identity, key) as text, self.use as native:
            _check(lib.gw_table_replace(native, index, text, len(text)), identity)

    def remove(self, index: int) -> None:
        """Wipe the key and forget the index for good."""
        with self.use as native:
            _check(lib.gw_table_remove(native, index), self._identities.get(index, ""))
            del self._identities[index]

    def export_derived_key(self, group_key_index: int, registration_id: str) -> bytearray:
        """For tools: the base64 of a derived device key. The caller wipes it."""
        name = registration_id.encode()
        text = bytearray(lib.GW_DERIVED_TEXT)
        with self.use as native, ffi.from_buffer("uint8_t[]", text) as out:
            _check(lib.gw_table_export_derived(native, group_key_index, name, len(name), out, len(text)))
        return text

    def identity(self, index: int) -> str:
        """Whose key it is. KeyError when nobody's."""
        return self._identities[index]

    def close(self) -> None:
        """Wipe every key and give the memory back. Signing is refused from now on."""
        self.use.close()
        self._identities.clear()

    def __len__(self) -> int:
        return len(self._identities)

    @property
    def capacity(self) -> int:
        """Keys there is room for without growing."""
        with self.use as native:
            return lib.gw_table_capacity(native)

    @property
    def locked(self) -> bool:
        """Whether the whole block is locked in memory. False means RLIMIT_MEMLOCK is smaller than the block."""
        return self.storage.locked

    @property
    def storage(self) -> Storage:
        """What the system granted for the block as it is now."""
        with self.use as native:
            flags = lib.gw_table_flags(native)
        return Storage(
            *(bool(flags & bit) for bit in (lib.GW_LOCKED, lib.GW_DUMP_EXCLUDED, lib.GW_WIPED_ON_FORK))
        )

    def _add(self, identity: str, text: CData, resource: bytes, policy: bytes) -> int:
        def add(native: CData, index: CData) -> int:
            return lib.gw_table_add(
                native, text, len(text), resource, len(resource), policy, len(policy), index
            )

        return self._file(identity, add)

    def _file(self, identity: str, make: Callable[[CData, CData], int]) -> int:
        with self.use as native:
            handle = ffi.new("uint32_t *")
            code = make(native, handle)
            if code == lib.GW_ERR_FULL:
                self._grow(native)
                code = make(native, handle)
            _check(code, identity)
            index: int = handle[0]
            self._identities[index] = identity
            return index

    def _grow(self, native: CData) -> None:
        capacity = lib.gw_table_capacity(native)
        if capacity >= self._limit:
            raise Bounded(f"the key table holds {capacity} keys, which is its limit")
        _check(lib.gw_table_reserve(native, min(2 * capacity, self._limit)))


class NativeUse:
    """`with use as native:` holds the lock and lends the C table. Refuses after close and in a child process."""

    __slots__ = ("_forks", "_lock", "_native")

    def __init__(self, capacity: int) -> None:
        _check(_engine_started)
        code = ffi.new("int *")
        native = lib.gw_table_new(capacity, code)
        _check(code[0])
        self._native: CData | None = ffi.gc(native, lib.gw_table_free)
        self._lock = threading.Lock()
        self._forks = _forks

    def __enter__(self) -> CData:
        if self._forks != _forks:
            raise native_error(lib.GW_ERR_FORKED)
        self._lock.acquire()
        native = self._native
        if native is None:
            self._lock.release()
            raise NativeSignerError("the key table is closed")
        return native

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def close(self) -> None:
        """Free the table once. A child frees its empty copy without the lock: nobody else is left to hold it."""
        if self._forks != _forks:
            self._free()
            return
        with self._lock:
            self._free()

    def _free(self) -> None:
        if self._native is not None:
            ffi.release(self._native)
            self._native = None


class WipedKey:
    """`with WipedKey(identity, key) as text:` lends the buffer to C and leaves it full of zeros, come what may."""

    __slots__ = ("_key", "_text")

    def __init__(self, identity: str, key: bytearray | memoryview) -> None:
        try:
            self._text = ffi.from_buffer("uint8_t[]", key, require_writable=True)
        except (TypeError, BufferError, ValueError) as error:
            if isinstance(key, memoryview) and not key.readonly:
                key[:] = bytes(len(key))
            raise TypeError(
                f"key of {identity!r}: expected a writable, contiguous buffer, which is wiped; got {type(key).__name__}"
            ) from error

    def __enter__(self) -> CData:
        return self._text

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lib.gw_wipe(self._text, len(self._text))
        ffi.release(self._text)


def error_text(code: int) -> str:
    """The signer's sentence for a code; it holds no secret."""
    return ffi.string(lib.gw_error_text(code)).decode()


def native_error(code: int) -> NativeSignerError:
    """The error for a code of the signer that is not the fault of a key."""
    return NativeSignerError(error_text(code))


def _check(code: int, identity: str = "") -> None:
    if code == lib.GW_OK:
        return
    if code in _KEY_FAULTS:
        raise KeyMalformed(identity, error_text(code))
    raise native_error(code)


def _audience(audience: str) -> bytes:
    """The resource percent-encoded as azure-iot-device does it (common/auth/sastoken.py)."""
    encoded = quote(audience, safe="").encode()
    if not 1 <= len(encoded) <= lib.GW_AUDIENCE_MAX:
        raise ValueError(f"audience of {len(encoded)} bytes encoded: expected 1 to {lib.GW_AUDIENCE_MAX}")
    return encoded


def _policy(skn: str) -> bytes:
    if len(skn) > lib.GW_POLICY_MAX or not _POLICY.fullmatch(skn):
        raise ValueError(
            f"policy name {skn!r}: expected at most {lib.GW_POLICY_MAX} visible ASCII characters but '&'"
        )
    return skn.encode()
