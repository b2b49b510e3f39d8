"""`gatewayd token`: the printed token against the standard library's own HMAC."""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import time
from pathlib import Path
from urllib.parse import parse_qs, quote

import pytest

from gatewayd.clock import ManualClock
from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.operator import token
from tests.support.config_files import HUB, key_text


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    file = tmp_path / "devices.csv"
    file.write_text(
        f"id,primary_key,secondary_key\ndev-1,{key_text(1)},{key_text(2)}\ndev-1/mod,{key_text(3)},\n"
        f"a+b#c,{key_text(4)},\n"
    )
    file.chmod(0o600)
    return file


def run(devices: Path, device: str, *options: str) -> int:
    parser = argparse.ArgumentParser()
    token.add_arguments(parser)
    words = ["--device", device, "--devices", str(devices), "--hub", HUB, *options]
    return token.run(parser.parse_args(words))


def expected(resource: str, key: str, expiry: str) -> str:
    """The token by the standard library."""
    encoded = quote(resource, safe="")
    digest = hmac.digest(base64.b64decode(key), f"{encoded}\n{expiry}".encode(), hashlib.sha256)
    signature = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}"


@pytest.mark.parametrize(
    ("device", "resource", "key"),
    [
        ("dev-1", f"{HUB}/devices/dev-1", key_text(1)),
        ("dev-1/mod", f"{HUB}/devices/dev-1/modules/mod", key_text(3)),
        ("a+b#c", f"{HUB}/devices/a+b#c", key_text(4)),
    ],
)
def test_the_token_is_what_the_standard_library_signs(
    devices: Path, device: str, resource: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(devices, device) == ExitCode.OK
    said = capsys.readouterr()
    text = said.out.removesuffix("\n")
    assert said.err == ""
    assert text == expected(resource, key, parse_qs(text)["se"][0])


def test_the_secondary_key_signs_when_asked_for(devices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(devices, "dev-1", "--secondary") == ExitCode.OK
    text = capsys.readouterr().out.strip()
    assert text == expected(f"{HUB}/devices/dev-1", key_text(2), parse_qs(text)["se"][0])


def test_it_lives_as_long_as_asked(devices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(devices, "dev-1", "--lifetime", "90s") == ExitCode.OK
    expiry = int(parse_qs(capsys.readouterr().out.strip())["se"][0])
    assert 80 <= expiry - time.time() <= 90


@pytest.mark.parametrize(
    ("device", "options", "problem"),
    [
        ("dev-9", (), "does not list dev-9"),
        ("dev-1/mod", ("--secondary",), "has no secondary key"),
        ("a/b/c", (), "expected a non-empty id"),
    ],
)
def test_what_cannot_be_signed_says_why_and_prints_nothing(
    devices: Path, device: str, options: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(devices, device, *options) == ExitCode.FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert problem in said.err
    assert not any(key_text(number) in said.err for number in range(1, 5))


def test_a_device_file_that_others_can_read_is_refused(
    devices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    devices.chmod(0o644)
    assert run(devices, "dev-1") == ExitCode.FAILED
    assert "0644" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--lifetime", "60"), ("--lifetime", "48h"), ("--hub", "https://h")])
def test_a_bad_argument_says_what_is_allowed(
    devices: Path, options: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(devices, "dev-1", *options)
    assert stopped.value.code == ExitCode.USAGE
    assert "expected a" in capsys.readouterr().err


def test_there_is_no_way_to_give_a_key_on_the_command_line(devices: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(devices, "dev-1", "--key", key_text(1))
    assert stopped.value.code == ExitCode.USAGE


def test_nothing_is_signed_with_a_clock_that_is_known_wrong(
    devices: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(token, "SystemClock", lambda: ManualClock(wall=0.0))
    assert run(devices, "dev-1") == ExitCode.FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert "clock" in said.err
