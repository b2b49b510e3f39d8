"""Reading a file with a secret. What a device file shows through this is in test_device_file.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gatewayd.credentials.secret_file import read_secret_file, wipe
from gatewayd.errors import ConfigError


def read(path: Path, *, check_permissions: bool = True) -> bytes:
    return bytes(read_secret_file(path, holds="a secret", max_bytes=16, check_permissions=check_permissions))


def secret(folder: Path, text: bytes = b"s3cret", mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(text)
    path.chmod(mode)
    return path


def problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert "s3cret" not in str(caught.value)
    return caught.value.problems[0].problem


def test_it_is_read_whole(tmp_path: Path) -> None:
    assert read(secret(tmp_path)) == b"s3cret"
    assert read(secret(tmp_path, b"")) == b""


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_what_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret(tmp_path, mode=mode)
    assert problem(path) == f"holds a secret and has mode {mode:04o}"
    assert read(path, check_permissions=False) == b"s3cret"


def test_what_is_too_long_is_refused(tmp_path: Path) -> None:
    assert read(secret(tmp_path, bytes(16))) == bytes(16)
    assert problem(secret(tmp_path, bytes(17))) == "is 17 bytes long"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert problem(tmp_path / "missing") == "No such file or directory"
    assert problem(tmp_path) == "is not a regular file"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert problem(pipe) == "is not a regular file"


def test_wiping_keeps_the_length() -> None:
    buffer = bytearray(b"s3cret")
    wipe(buffer)
    assert buffer == bytes(6)
