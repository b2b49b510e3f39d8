"""Keys come in wiped, live in locked memory, and go without a trace."""

from __future__ import annotations

import base64
import os
import random
import re
import subprocess
import sys
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest

from gatewayd.errors import Bounded, KeyMalformed, NativeSignerError
from gatewayd.tokens._sas_native import ffi, lib
from gatewayd.tokens.key_table import KEYS_MAX, KeyTable
from gatewayd.tokens.signer import Signer
from tests.support.sas_oracle import VECTORS, key_text, raw_key, token

RAW = raw_key("d1")
HUB = "hub.azure-devices.net"
D1 = f"{HUB}/devices/d1"
SE = 1_767_225_600


def signed(table: KeyTable, index: int, expiry: int = SE) -> str:
    return Signer(table).sign_one(index, expiry).decode()


# What comes in


def test_a_key_buffer_is_full_of_zeros_after_add() -> None:
    key = key_text(RAW)
    KeyTable().add("d1", key, D1)
    assert key == bytes(44)


def test_a_writable_view_is_wiped_and_its_surroundings_are_not() -> None:
    line = bytearray(b"d1,") + key_text(RAW) + b",end"
    with memoryview(line)[3:47] as key:
        KeyTable().add("d1", key, D1)
    assert line == b"d1," + bytes(44) + b",end"


@pytest.mark.parametrize(
    ("audience", "skn"),
    [("", ""), ("x" * 3000, ""), (D1, "a&b"), (D1, "a b"), (D1, "\u00e4"), (D1, "p" * 129)],
    ids=["no audience", "long audience", "ampersand", "space", "not ascii", "long policy"],
)
def test_a_key_is_wiped_when_the_rest_of_the_call_is_wrong(audience: str, skn: str) -> None:
    key = key_text(RAW)
    with pytest.raises(ValueError, match="expected"):
        KeyTable().add("d1", key, audience, skn)
    assert key == bytes(44)


def test_a_key_is_wiped_when_it_is_malformed() -> None:
    key = bytearray(b"not base64 at all, but long enough to be a key.")
    with pytest.raises(KeyMalformed):
        KeyTable().add("d1", key, D1)
    assert not any(key)


def test_a_key_is_wiped_when_the_table_is_closed_or_full() -> None:
    table = KeyTable(1, limit=1)
    table.add("d1", key_text(RAW), D1)
    for refusal in (Bounded, NativeSignerError):
        key = key_text(RAW)
        with pytest.raises(refusal):
            table.add("d2", key, D1)
        assert key == bytes(44)
        table.close()


def test_a_key_that_replaces_another_is_wiped_even_when_refused() -> None:
    table = KeyTable()
    index = table.add("d1", key_text(RAW), D1)
    good, bad = key_text(raw_key("new")), bytearray(b"bad")
    table.replace(index, good)
    with pytest.raises(KeyMalformed):
        table.replace(index, bad)
    assert not any(good)
    assert not any(bad)
    assert signed(table, index) == token(raw_key("new"), D1, SE)


@pytest.mark.parametrize(
    "kind", [bytes, str, lambda key: memoryview(bytes(key))], ids=["bytes", "str", "view of bytes"]
)
def test_a_key_that_cannot_be_wiped_is_refused(kind: type) -> None:
    key: Any = str(key_text(RAW), "ascii") if kind is str else kind(key_text(RAW))
    with pytest.raises(TypeError, match=r"'d1'.*writable"):
        KeyTable().add("d1", key, D1)


def test_a_view_with_gaps_is_refused_and_wiped_all_the_same() -> None:
    spaced = bytearray(88)
    spaced[::2] = key_text(RAW)
    with memoryview(spaced)[::2] as key, pytest.raises(TypeError, match="contiguous"):
        KeyTable().add("d1", key, D1)
    assert spaced == bytes(88)


@pytest.mark.parametrize("length", [1, 15, 65, 66, 67, 200])
def test_a_key_of_a_wrong_length_is_an_operators_error_that_names_the_identity(length: int) -> None:
    with pytest.raises(KeyMalformed, match="'d1': not 16 to 64 bytes") as caught:
        KeyTable().add("d1", key_text(bytes(length)), D1)
    assert caught.value.identity == "d1"


@pytest.mark.parametrize("length", range(16, 65))
def test_every_allowed_key_length_signs(length: int) -> None:
    table = KeyTable()
    raw = random.Random(length).randbytes(length)
    assert signed(table, table.add("d", key_text(raw), D1)) == token(raw, D1, SE)


def test_a_key_error_says_nothing_of_the_key() -> None:
    text = key_text(RAW)[:-1] + b"!"
    with pytest.raises(KeyMalformed) as caught:
        KeyTable().add("d1", bytearray(text), D1)
    assert str(caught.value) == "key of 'd1': not padded base64"


def test_a_capacity_outside_its_bounds_is_refused() -> None:
    for capacity, limit in ((0, 5), (6, 5), (5, KEYS_MAX + 1)):
        with pytest.raises(ValueError, match="expected 1 <= capacity"):
            KeyTable(capacity, limit=limit)


# What an index is


def test_a_table_grows_and_every_index_keeps_its_key() -> None:
    table = KeyTable(2)
    indices = [table.add(f"d{i}", key_text(raw_key(f"d{i}")), f"{HUB}/devices/d{i}") for i in range(300)]
    assert [signed(table, index) for index in indices] == [
        token(raw_key(f"d{i}"), f"{HUB}/devices/d{i}", SE) for i in range(300)
    ]
    assert len(table) == 300
    assert table.capacity == 512
    assert table.identity(indices[7]) == "d7"


def test_a_full_table_at_its_limit_says_so_and_keeps_working() -> None:
    table = KeyTable(2, limit=3)
    indices = [table.add("d1", key_text(RAW), D1) for _ in range(3)]
    with pytest.raises(Bounded, match="3 keys"):
        table.add("d1", key_text(RAW), D1)
    table.remove(indices[1])
    assert signed(table, table.add("d1", key_text(RAW), D1)) == token(RAW, D1, SE)


def test_an_index_that_was_removed_signs_for_nobody() -> None:
    table = KeyTable(1)
    old = table.add("d1", key_text(RAW), D1)
    table.remove(old)
    new = table.add("d2", key_text(raw_key("d2")), D1)
    assert new != old
    for misuse in (
        lambda: signed(table, old),
        lambda: table.remove(old),
        lambda: table.replace(old, key_text(RAW)),
    ):
        with pytest.raises(NativeSignerError, match="no key"):
            misuse()
    with pytest.raises(KeyError):
        table.identity(old)
    assert signed(table, new) == token(raw_key("d2"), D1, SE)


def test_one_policy_key_signs_for_many_devices() -> None:
    table = KeyTable()
    policy = table.add_unsigning("policy", key_text(RAW))
    shared = [table.add_shared(f"d{i}", policy, f"{HUB}/devices/d{i}", "device") for i in range(3)]
    table.remove(policy)
    assert [signed(table, index) for index in shared] == [
        token(RAW, f"{HUB}/devices/d{i}", SE, "device") for i in range(3)
    ]


def test_a_key_filed_without_an_audience_signs_nothing() -> None:
    table = KeyTable()
    with pytest.raises(NativeSignerError, match="no key to sign with"):
        signed(table, table.add_unsigning("group", key_text(RAW)))


def test_a_closed_table_refuses_everything_and_closes_twice() -> None:
    table = KeyTable()
    index = table.add("d1", key_text(RAW), D1)
    table.close()
    table.close()
    for misuse in (lambda: signed(table, index), lambda: table.locked, lambda: table.remove(index)):
        with pytest.raises(NativeSignerError, match="closed"):
            misuse()
    assert len(table) == 0


# Derived keys


@pytest.mark.parametrize("row", VECTORS["derived"], ids=lambda row: row["registration_id"])
def test_group_keys_give_the_published_device_keys(row: dict[str, str]) -> None:
    table = KeyTable()
    group = table.add_unsigning("group", bytearray(row["group_key"].encode()))
    assert table.export_derived_key(group, row["registration_id"]) == row["device_key"].encode()


def test_a_derived_key_signs_like_the_same_key_given_as_text() -> None:
    table = KeyTable(1)
    row = VECTORS["derived"][0]
    group = table.add_unsigning("group", bytearray(row["group_key"].encode()))
    derived = table.add_derived("d", group, row["registration_id"], D1, "registration")
    given = table.add("d", bytearray(row["device_key"].encode()), D1, "registration")
    assert signed(table, derived) == signed(table, given)


@pytest.mark.parametrize("row", VECTORS["rfc4231"], ids=lambda row: row["section"])
def test_derivation_gives_the_answers_of_rfc_4231(row: dict[str, str]) -> None:
    table = KeyTable()
    index = table.add_unsigning("key", key_text(bytes.fromhex(row["key"])))
    data, out = bytes.fromhex(row["data"]), ffi.new("uint8_t[]", lib.GW_DERIVED_TEXT)
    with table.use as native:
        assert (
            lib.gw_table_export_derived(native, index, data, len(data), out, lib.GW_DERIVED_TEXT) == lib.GW_OK
        )
    assert base64.b64decode(ffi.buffer(out)[:]).startswith(
        bytes.fromhex(row["mac"])
    )  # 4.6 is cut to 128 bits


def test_a_registration_id_of_no_length_or_too_much_is_refused() -> None:
    table = KeyTable()
    group = table.add_unsigning("group", key_text(RAW))
    for registration_id in ("", "x" * 1025):
        with pytest.raises(ValueError, match="expected 1 to 1024"):
            table.add_derived("d", group, registration_id, D1)


# Where the keys lie


def run_child(script: str) -> str:
    """Run a script in a fresh interpreter; what it prints. Its failure is the test's."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_kernel_shows_the_block_locked_undumpable_and_wiped_on_fork() -> None:
    table = KeyTable(1000)
    table.add("d1", key_text(RAW), D1)
    smaps = Path("/proc/self/smaps").read_text()
    blocks = [
        block
        for block in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", smaps)
        if re.search(r"VmFlags:.* dd\b", block)
    ]
    flags = [set(re.search(r"VmFlags: (.*)", block)[1].split()) for block in blocks]  # type: ignore[index] # all have it
    assert any({"lo", "dd", "wf"} <= found for found in flags)
    assert any(int(match[1]) >= 64 for block in blocks if (match := re.search(r"Locked: +(\d+) kB", block)))
    assert table.storage == (True, True, True)


UNPRIVILEGED = """
import os, resource
from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.signer import Signer
resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, {limit}))
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)  # root may lock without limit
key = lambda: bytearray(b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
table = KeyTable({capacity})
first = table.locked
for i in range({count}):
    last = table.add("d", key(), "hub/devices/d")
print(first, table.locked, len(Signer(table).sign_one(last, 1767225600)))
"""


def test_over_the_lock_limit_the_table_works_and_says_that_it_is_not_locked() -> None:
    assert run_child(UNPRIVILEGED.format(limit=65536, capacity=500, count=2000)).startswith("True False 1")
    assert run_child(UNPRIVILEGED.format(limit=0, capacity=500, count=1)).startswith("False False 1")


def test_a_block_that_fits_the_limit_alone_is_locked_again_after_growing() -> None:
    # 400 and 800 keys are 26 and 52 kB: together over 64 KiB, the new one alone under it.
    assert run_child(UNPRIVILEGED.format(limit=65536, capacity=400, count=401)).startswith("True True 1")


def test_ten_thousand_keys_fit_a_lock_limit_of_eight_mebibytes() -> None:
    limit = 8 * 1024 * 1024
    assert run_child(UNPRIVILEGED.format(limit=limit, capacity=1024, count=10_000)).startswith("True True 1")


# Reads keys from a pipe the way a key file is read, loads and uses them, and waits to be looked at. With "keep" it
# leaves a copy of the last key behind: the control.
LOADED = """
import os, sys
from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.signer import Signer
table = KeyTable(64)
buffer = bytearray(88)
indices = []
for i in range(20):
    assert os.readv(0, [buffer]) == 88
    kept = bytes(buffer) if sys.argv[1] == "keep" else None
    indices.append(table.add("d", buffer, "hub/devices/d%d" % i))
group = table.add_derived("d", indices[0], "reg-01", "hub/devices/x")
signer = Signer(table)
batch = signer.sign_many([*indices, group], 1767225600)
assert signer.verify(indices[3], batch[3]).authentic
print("loaded", flush=True)
os.read(0, 1)
"""


def midstates(raw: bytes) -> list[bytes]:
    """Both midstates of a key as they may lie in memory: in order, and in the order of the x86 instructions."""
    found = []
    for pad in (0x36, 0x5C):
        state = _compress(bytes(byte ^ pad for byte in raw.ljust(64, b"\0")))
        a, b, c, d, e, f, g, h = state
        found += [array("I", words).tobytes() for words in (state[:4], state[4:], (f, e, b, a), (h, g, d, c))]
    return found


def _compress(block: bytes) -> list[int]:
    """FIPS 180-4 section 6.2.2, one block from the initial state."""
    primes = [n for n in range(2, 312) if all(n % d for d in range(2, n))]
    constants = [int(prime ** (1 / 3) % 1 * 2**32) for prime in primes]
    start = [int(prime**0.5 % 1 * 2**32) for prime in primes[:8]]

    def turn(x: int, n: int) -> int:
        return (x >> n | x << (32 - n)) & 0xFFFFFFFF

    w = [int.from_bytes(block[i : i + 4], "big") for i in range(0, 64, 4)]
    for t in range(16, 64):
        x, y = w[t - 15], w[t - 2]
        s0, s1 = turn(x, 7) ^ turn(x, 18) ^ x >> 3, turn(y, 17) ^ turn(y, 19) ^ y >> 10
        w.append((w[t - 16] + s0 + w[t - 7] + s1) & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = start
    for t in range(64):
        t1 = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + (e & f ^ ~e & g) + constants[t] + w[t]
        t2 = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (t1 + t2) & 0xFFFFFFFF, a, b, c, (d + t1) & 0xFFFFFFFF, e, f, g
    return [(x + y) & 0xFFFFFFFF for x, y in zip(start, (a, b, c, d, e, f, g, h), strict=True)]


def memory_of(pid: int) -> tuple[bytes, bytes]:
    """What a core dump of the process could hold, and what is kept out of it."""
    dumpable, excluded = bytearray(), bytearray()
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for block in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", smaps):
            header, flags = block.split("\n", 1)[0], re.search(r"VmFlags: (.*)", block)
            if not re.match(r"[0-9a-f]+-[0-9a-f]+ rw", header) or flags is None:
                continue
            start, end = (int(part, 16) for part in header.split()[0].split("-"))
            memory.seek(start)
            (excluded if "dd" in flags[1].split() else dumpable).extend(memory.read(end - start))
    return bytes(dumpable), bytes(excluded)


def test_after_loading_dumpable_memory_holds_no_key_and_no_midstate() -> None:
    keys = [random.Random(i).randbytes(64) for i in range(20)]
    for mode, leaked in (("wipe", 0), ("keep", 1)):
        with subprocess.Popen(
            [sys.executable, "-c", LOADED, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path.cwd(),
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            for key in keys:
                child.stdin.write(key_text(key))
            child.stdin.flush()
            assert child.stdout.readline() == b"loaded\n"
            dumpable, excluded = memory_of(child.pid)
            child.communicate(b"x", timeout=30)
        assert sum(bytes(key_text(key)) in dumpable for key in keys) == leaked, mode
        assert not any(key in dumpable for key in keys), mode
        assert not any(state in dumpable for key in keys for state in midstates(key)), mode
        # The search itself can find: the midstates are where they belong.
        assert all(state in excluded for state in midstates(keys[0])[:2])


def test_wiped_keys_are_gone_from_the_block_too() -> None:
    table = KeyTable(8)
    index = table.add("d1", key_text(RAW), D1)
    inner = midstates(RAW)[0]
    assert inner in memory_of(os.getpid())[1]
    table.remove(index)
    assert inner not in memory_of(os.getpid())[1]


# Sharing


def in_child(table: KeyTable, index: int) -> bytes:
    """What a forked child says when it tries to sign."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b"signed"
        try:
            Signer(table).sign_one(index, SE)
        except NativeSignerError as error:
            said = str(error).encode()
        finally:
            table.close()
            os.write(write, said)
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    said = os.read(read, 200)
    os.close(read)
    return said


def test_a_child_process_gets_an_error_and_never_a_token() -> None:
    table = KeyTable()
    index = table.add("d1", key_text(RAW), D1)
    assert in_child(table, index) == b"the keys belong to the process that loaded them, not to its child"
    assert signed(table, index) == token(RAW, D1, SE)


def test_a_child_forked_while_the_table_is_in_use_gets_its_error_and_does_not_hang() -> None:
    table = KeyTable()
    index = table.add("d1", key_text(RAW), D1)
    with table.use:
        assert b"not to its child" in in_child(table, index)


def test_the_native_side_refuses_a_child_on_its_own() -> None:
    table = KeyTable()
    table.add("d1", key_text(RAW), D1)
    out, offsets, failed = ffi.new("char[1024]"), ffi.new("uint32_t[2]"), ffi.new("size_t *")
    with table.use as native:
        pid = os.fork()
        if pid == 0:
            code = lib.gw_sign(native, ffi.new("uint32_t[1]"), 1, SE, out, 1024, offsets, failed)
            os._exit(0 if code == lib.GW_ERR_FORKED and ffi.unpack(out, 1024) == bytes(1024) else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_64_threads_sign_while_another_adds_and_removes() -> None:
    table = KeyTable(4)
    signer = Signer(table)
    stable = [table.add(f"d{i}", key_text(raw_key(f"d{i}")), f"{HUB}/devices/d{i}") for i in range(8)]
    expected = [token(raw_key(f"d{i}"), f"{HUB}/devices/d{i}", SE) for i in range(8)]
    wrong: list[object] = []
    start, finished = threading.Barrier(65), threading.Event()

    def sign() -> None:
        start.wait(30)
        try:
            for i in range(40):
                if signer.sign_many(stable, SE).tolist() != expected:
                    wrong.append("batch")
                if signer.sign_one(stable[i % 8], SE).decode() != expected[i % 8]:
                    wrong.append("one")
                if not signer.verify(stable[i % 8], expected[i % 8]).authentic:
                    wrong.append("verify")
        except NativeSignerError as error:
            wrong.append(error)

    def change() -> None:
        start.wait(30)
        while not finished.is_set():
            passing = [table.add("passing", key_text(raw_key("passing")), D1) for _ in range(50)]
            for index in passing:
                table.remove(index)

    threads = [threading.Thread(target=sign) for _ in range(64)]
    changer = threading.Thread(target=change)
    for thread in (*threads, changer):
        thread.start()
    for thread in threads:
        thread.join(60)
    finished.set()
    changer.join(60)
    assert wrong == []
    assert not any(thread.is_alive() for thread in (*threads, changer))
    assert len(table) == 8
