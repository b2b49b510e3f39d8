"""The user and password of a proxy, as a header; the standard library's and aiohttp's are the oracle."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from gatewayd.credentials.proxy_credentials import MAX_FILE_BYTES, read_proxy_credentials
from gatewayd.errors import ConfigError


def file_of(folder: Path, text: bytes, mode: int = 0o600) -> Path:
    path = folder / "proxy"
    path.write_bytes(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("user", "password"), [("gateway", "hunter2"), ("gateway", ""), ("g", "a:b:c"), ("us er", "pass word ")]
)
def test_the_header_is_what_others_make_of_it(tmp_path: Path, user: str, password: str, end: bytes) -> None:
    path = file_of(tmp_path, f"{user}:{password}".encode() + end)
    assert read_proxy_credentials(path).decode() == aiohttp.encode_basic_auth(user, password, "utf-8")


def test_a_password_may_be_more_than_ascii(tmp_path: Path) -> None:
    path = file_of(tmp_path, "gateway:pässwort".encode())
    expected = aiohttp.encode_basic_auth("gateway", "pässwort", "utf-8")
    assert read_proxy_credentials(path).decode() == expected


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", b"hunter2", b":hunter2", b"gateway:hunter2\nmore", b"gateway:hun\x00ter2", b"gateway:\x7f"],
)
def test_what_is_not_a_user_and_a_password_is_refused_without_being_shown(
    tmp_path: Path, text: bytes
) -> None:
    with pytest.raises(ConfigError, match="does not hold a user and a password") as caught:
        read_proxy_credentials(file_of(tmp_path, text))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, b"gateway:hunter2", mode=0o644)
    with pytest.raises(ConfigError, match="holds a password and has mode 0644"):
        read_proxy_credentials(path)
    assert read_proxy_credentials(path, check_permissions=False).startswith(b"Basic ")


def test_a_long_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 1024 bytes"):
        read_proxy_credentials(file_of(tmp_path, b"u:" + b"x" * MAX_FILE_BYTES))
