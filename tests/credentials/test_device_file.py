"""Device files as people write them. Oracle: Python's own csv module writes, we read."""

from __future__ import annotations

import base64
import contextlib
import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.credentials import device_file
from gatewayd.credentials.device_file import MAX_PROBLEMS_SHOWN, open_device_file
from gatewayd.credentials.secret_file import wipe
from gatewayd.errors import DeviceFileError
from gatewayd.message import Identity

K1 = base64.b64encode(bytes(range(32)))
K2 = base64.b64encode(bytes(range(64)))
K3 = base64.b64encode(b"P" * 16)

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_text(text: bytes) -> Path:
        path = tmp_path / "devices.csv"
        path.write_bytes(text)
        path.chmod(0o600)
        return path

    return write_text


def entries(path: Path) -> list[tuple[Identity, bytes, bytes | None]]:
    with open_device_file(path) as file:
        return [(who, bytes(one), None if two is None else bytes(two)) for who, one, two in file]


def problems(path: Path) -> list[str]:
    with pytest.raises(DeviceFileError) as caught:
        open_device_file(path)
    return [str(problem).removeprefix(str(path)) for problem in caught.value.problems]


def test_a_plain_file_is_read(write: Write) -> None:
    path = write(b"dev-01,%s,%s\ndev-02/mod,%s,\ndev-03,%s\n" % (K1, K2, K3, K1))
    assert entries(path) == [
        (Identity("dev-01"), K1, K2),
        (Identity("dev-02", "mod"), K3, None),
        (Identity("dev-03"), K1, None),
    ]


def test_what_a_spreadsheet_adds_is_passed_over(write: Write) -> None:
    path = write(
        b"\xef\xbb\xbfid,primary_key,secondary_key\r\n\r\n  # the mill\r\n dev-01 , %s , %s \r\n" % (K1, K2)
    )
    assert entries(path) == [(Identity("dev-01"), K1, K2)]


@pytest.mark.parametrize(
    "header", [b"id,primary_key\n", b"ID,Primary_Key,Secondary_Key\n", b"# c\nid,primary_key\n"]
)
def test_a_header_line_is_passed_over(write: Write, header: bytes) -> None:
    assert len(entries(write(header + b"d,%s\n" % K1))) == 1


def test_a_header_further_down_is_a_problem(write: Write) -> None:
    assert problems(write(b"d,%s\nid,primary_key\n" % K1)) == [
        ":2 (id): the primary key is not a key (allowed: base64 of 16 to 64 bytes)"
    ]


def test_quotes_allow_commas_and_a_leading_hash(write: Write) -> None:
    path = write(b'"a,b","%s",""\n"#7",%s\n' % (K1, K2))
    assert entries(path) == [(Identity("a,b"), K1, None), (Identity("#7"), K2, None)]


def test_the_last_line_needs_no_end(write: Write) -> None:
    assert len(entries(write(b"d,%s" % K1))) == 1


@pytest.mark.parametrize("text", [b"", b"\n\n", b"# nothing yet\n", b"id,primary_key\n"])
def test_a_file_without_devices_is_read(write: Write, text: bytes) -> None:
    assert entries(write(text)) == []


def test_every_problem_is_told_at_once_with_line_and_identity(write: Write) -> None:
    path = write(
        b"# a fleet\n"
        b"good,%(k)s\n"
        b"short,QUJD\n"
        b"good,%(k)s\n"
        b"nokey,\n"
        b"sp ace,%(k)s\n"
        b"many,%(k)s,%(k)s,%(k)s\n"
        b"alone\n"
        b"second,%(k)s,not*base64\n"
        b'"open,%(k)s\n'
        b'"after"x,%(k)s\n'
        b"a/b/c,%(k)s\n"
        b",%(k)s\n" % {b"k": K1}
    )
    key, name = "base64 of 16 to 64 bytes", "device or device/module"
    fields = "id,primary_key[,secondary_key]"
    bad_id = "the id is empty, too long or has a character that ids cannot have"
    bad_quote = 'a quoted field is not closed, or text follows it (allowed: fields like "id")'
    assert problems(path) == [
        f":3 (short): the primary key is not a key (allowed: {key})",
        ":4 (good): is listed twice, first on line 2 (allowed: each identity once)",
        f":5 (nokey): the primary key is empty (allowed: {key})",
        f":6: {bad_id} (allowed: {name})",
        f":7 (many): has 4 fields (allowed: {fields})",
        f":8 (alone): has 1 fields (allowed: {fields})",
        f":9 (second): the secondary key is not a key (allowed: {key})",
        f":10: {bad_quote}",
        f":11: {bad_quote}",
        f":12: {bad_id} (allowed: {name})",
        f":13: {bad_id} (allowed: {name})",
    ]


@pytest.mark.parametrize(
    ("key", "good"),
    [
        (base64.b64encode(bytes(15)), False),
        (base64.b64encode(bytes(16)), True),
        (base64.b64encode(bytes(64)), True),
        (base64.b64encode(bytes(65)), False),
        (base64.b64encode(bytes(32))[:-1], False),
        (base64.urlsafe_b64encode(b"\xff" * 32), False),
        (b"=" * 24, False),
    ],
)
def test_a_key_is_base64_of_16_to_64_bytes(write: Write, key: bytes, good: bool) -> None:
    path = write(b"d,%s\n" % key)
    if good:
        assert len(entries(path)) == 1
    else:
        assert len(problems(path)) == 1


@pytest.mark.parametrize("key", [K1, K2])
def test_a_key_in_the_ids_place_is_not_shown(write: Write, key: bytes) -> None:
    path = write(b"%s,dev-01\n" % key)
    found = problems(path)
    assert found == [":1: a key stands in the place of the id (allowed: id,primary_key[,secondary_key])"]


def test_no_error_shows_a_key(write: Write) -> None:
    secret = K2[:-4]
    path = write(b"d,%s\nd2,%s,%s\nd3,%s x\n" % (secret + b"*", K1, secret + b"!", secret))
    assert secret.decode() not in "\n".join(problems(path))


def test_a_file_of_another_format_shows_a_bounded_number_of_problems(write: Write) -> None:
    found = problems(write(b"x\n" * 5000))
    assert len(found) == MAX_PROBLEMS_SHOWN + 1
    # Each line has one field too few, and each but the first is a double.
    assert found[-1].startswith(f": {5000 + 4999 - MAX_PROBLEMS_SHOWN} more problems")


def test_a_hundred_thousand_devices_are_read_and_one_more_is_not(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"".join(b"device-%06d,%s,%s\n" % (n, K1, K2) for n in range(device_file.MAX_DEVICES))
    path = write(text)
    with open_device_file(path) as file:
        assert sum(1 for _ in file) == 100_000
    monkeypatch.setattr(device_file, "MAX_DEVICES", 1000)
    assert problems(path)[-1] == ": holds 100000 devices (allowed: at most 1000)"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o601])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(write: Write, mode: int) -> None:
    path = write(b"d,%s\n" % K1)
    path.chmod(mode)
    assert problems(path) == [
        f": holds keys and has mode {mode:04o} (allowed: mode 0600; run: chmod 600 {path})"
    ]
    with open_device_file(path, check_permissions=False) as file:
        assert len(list(file)) == 1


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_our_own_is_read(write: Write, mode: int) -> None:
    path = write(b"d,%s\n" % K1)
    path.chmod(mode)
    assert len(entries(path)) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path / "absent.csv") == [
        ": No such file or directory (allowed: a file this user can read)"
    ]


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    assert problems(path) == [": is not a regular file (allowed: a regular file)"]


def test_a_file_beyond_the_bound_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_file, "MAX_FILE_BYTES", 10)
    assert problems(write(b"d,%s\n" % K1)) == [": is 47 bytes long (allowed: at most 10 bytes)"]


def test_a_file_that_changes_under_the_reader_is_refused(tmp_path: Path) -> None:
    # Files below /proc call themselves empty and are not: to the reader they grow.
    found = [str(problem) for problem in _error_of(Path("/proc/self/status")).problems]
    assert found == [
        "/proc/self/status: changed while it was read (allowed: a file that is moved into place whole)"
    ]


def _error_of(path: Path) -> DeviceFileError:
    with pytest.raises(DeviceFileError) as caught:
        open_device_file(path, check_permissions=False)
    return caught.value


def test_closing_wipes_the_text_and_ends_the_reading(write: Write) -> None:
    file = open_device_file(write(b"a,%s\nb,%s\n" % (K1, K2)))
    reading = iter(file)
    next(reading)
    file.close()
    assert set(file._buffer) == {0}
    with pytest.raises(ValueError, match="closed"):
        next(reading)
    with pytest.raises(ValueError, match="closed"):
        next(iter(file))


def test_keys_that_were_yielded_are_copies(write: Write) -> None:
    with open_device_file(write(b"a,%s\n" % K1)) as file:
        ((_, primary, _),) = file
    assert bytes(primary) == K1


def test_a_file_with_problems_is_wiped(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    wiped: list[bytearray] = []

    def wipe_and_keep(buffer: bytearray) -> None:
        wipe(buffer)
        wiped.append(buffer)

    monkeypatch.setattr(device_file, "wipe", wipe_and_keep)
    problems(write(b"a,%s\nb,\n" % K1))
    assert [set(buffer) for buffer in wiped] == [{0}]


def test_wiping_is_done_in_place() -> None:
    buffer = bytearray(b"secret")
    with memoryview(buffer) as view:  # forbids the buffer to move
        wipe(buffer)
        assert bytes(view) == bytes(6)


ids = st.text("abcXYZ019-.%_#*?!(),:=@$'+", min_size=1, max_size=20)
keys = st.binary(min_size=16, max_size=64).map(base64.b64encode)
identities = st.builds(Identity, ids, st.none() | ids)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(identities, keys, st.none() | keys), max_size=5, unique_by=lambda entry: str(entry[0])
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_what_the_csv_module_writes_is_read(
    tmp_path: Path, rows: list[tuple[Identity, bytes, bytes | None]], end: str, mark: bool
) -> None:
    path = tmp_path / "devices.csv"
    with path.open("w", newline="", encoding="utf-8-sig" if mark else "utf-8") as file:
        writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([str(who), one.decode(), (two or b"").decode()] for who, one, two in rows)
    path.chmod(0o600)
    assert entries(path) == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "devices.csv"
    path.write_bytes(text)
    path.chmod(0o600)
    with contextlib.suppress(DeviceFileError):
        entries(path)
