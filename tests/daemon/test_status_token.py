"""The token of the status server: what a file may hold, what is kept of it."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from gatewayd.daemon.status_token import StatusToken, parse_token, read_token
from gatewayd.errors import ConfigError

TOKEN = b"f81d4fae7dec11d0"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_end_of_the_line_is_not_part_of_the_token(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(TOKEN + end)
    token = read_token(path)
    assert token.is_shown_by(TOKEN)
    assert not token.is_shown_by(TOKEN + end + b"x")


@pytest.mark.parametrize("shown", [b"", TOKEN[:-1], TOKEN + b"0", TOKEN.upper(), b"\xff" * 5000])
def test_anything_else_is_not_the_token(shown: bytes) -> None:
    assert not StatusToken(TOKEN).is_shown_by(shown)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"short",
        b"x" * 15,
        b"x" * 1025,
        b"two words of a token",
        TOKEN + b"\n" + TOKEN,
        b"\xe4" * 20,
    ],
)
def test_a_file_without_a_token_is_refused_without_its_text(tmp_path: Path, text: bytes) -> None:
    assert parse_token(bytearray(text)) is None
    path = tmp_path / "token"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match="holds no token") as error:
        read_token(path)
    assert [problem.path for problem in error.value.problems] == ["metrics.token_file"]
    assert not text.strip() or text.decode("latin-1").strip() not in str(error.value)


def test_a_file_that_is_gone_is_told_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_token(tmp_path / "nothing")


def test_the_text_is_not_kept_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "token"
    secret = b"kept-nowhere-" + bytes(range(97, 117))
    path.write_bytes(secret)
    token = read_token(path)
    assert "kept" not in repr(token)
    assert not any(
        isinstance(thing, bytearray) and bytes(thing) == secret
        for thing in gc.get_referents(token, type(token))
    )


def test_a_seal_is_of_one_token_one_secret_and_one_text() -> None:
    token = StatusToken(TOKEN)
    seal = token.seal(b"secret", b"100")
    assert seal == StatusToken(TOKEN).seal(b"secret", b"100")
    others = {
        token.seal(b"secret", b"101"),
        token.seal(b"Secret", b"100"),
        StatusToken(TOKEN + b"0").seal(b"secret", b"100"),
    }
    assert len(others | {seal}) == 4
