"""`gatewayd outbox`: what it prints, what it deletes, and how it ends."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.clock import SystemClock
from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.operator import outbox
from tests.support.config_files import write_config
from tests.support.outbox_rig import A, B, KeeperRig, new


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[KeeperRig]:
    now = SystemClock().wall()
    made = KeeperRig(tmp_path / "outbox.db")
    made.append(
        new(payload=b"\x00secret", priority=2, received_at=now - 7200, expires_at=now + 60),
        new(B, b"two", received_at=now, qos=0, retain=True),
        new(payload=b"three", received_at=now),
    )
    yield made
    made.close()


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    outbox.add_arguments(parser)
    return outbox.run(parser.parse_args([str(word) for word in words]))


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_list_has_a_line_for_each_device_beside_a_running_daemon(
    rig: KeeperRig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list", "--path", tmp_path / "outbox.db") == ExitCode.OK
    lines = printed(capsys)
    assert [(line["device"], line["messages"], line["top_priority"]) for line in lines] == [
        ("dev-a", 2, 2),
        ("dev-b", 1, 0),
    ]
    assert sum(line["bytes"] for line in lines if isinstance(line["bytes"], int)) == rig.keeper.size


def test_an_export_has_no_payload_unless_it_is_asked_for(
    rig: KeeperRig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "--path", tmp_path / "outbox.db") == ExitCode.OK
    lines = printed(capsys)
    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert lines[0]["payload_bytes"] == 7
    assert all("payload" not in line for line in lines)
    assert (lines[1]["device"], lines[1]["qos"], lines[1]["retain"]) == ("dev-b", 0, True)
    assert run("export", "--path", tmp_path / "outbox.db", "--payloads", "--device", "dev-a") == ExitCode.OK
    lines = printed(capsys)
    assert [base64.b64decode(str(line["payload"])) for line in lines] == [b"\x00secret", b"three"]
    assert lines[0]["topic"] == "devices/dev-a/messages/events/n=1"


def test_a_purge_wants_the_daemon_stopped(
    rig: KeeperRig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("purge", "--path", tmp_path / "outbox.db", "--yes") == ExitCode.FAILED
    assert "Stop gatewayd first" in capsys.readouterr().err
    assert len(rig.lease(A)) == 2


def test_a_purge_without_a_yes_says_what_it_would_delete(
    rig: KeeperRig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.close()
    assert run("purge", "--path", tmp_path / "outbox.db", "--device", "dev-a") == ExitCode.FAILED
    assert "2 messages" in capsys.readouterr().err
    again = KeeperRig(tmp_path / "outbox.db")
    assert again.keeper.messages == 3
    again.close()


@pytest.mark.parametrize(
    ("words", "deleted", "left"),
    [
        ((), 3, []),
        (("--device", "dev-a"), 2, [b"two"]),
        (("--older-than", "1h"), 1, [b"three", b"two"]),
        (("--older-than", "3h"), 0, [b"\x00secret", b"three", b"two"]),
        (("--older-than", "1h", "--device", "dev-b"), 0, [b"\x00secret", b"three", b"two"]),
    ],
)
def test_a_purge_deletes_what_was_named(
    rig: KeeperRig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    deleted: int,
    left: list[bytes],
) -> None:
    rig.close()
    assert run("purge", "--path", tmp_path / "outbox.db", "--yes", *words) == ExitCode.OK
    assert printed(capsys)[0]["deleted"] == deleted
    again = KeeperRig(tmp_path / "outbox.db")
    assert [one.message.payload for identity in (A, B) for one in again.lease(identity)] == left
    again.close()


def test_the_path_comes_from_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_config(tmp_path)
    where = tmp_path / "elsewhere.db"
    lines = [line for line in files.toml.read_text().splitlines() if not line.startswith("path = ")]
    text = "\n".join(line for line in lines if line != "[outbox]")
    files.toml.write_text(f'{text}\n[outbox]\npath = "{where}"\n')
    rig = KeeperRig(where)
    rig.append(new())
    assert run("list", "--config", files.toml) == ExitCode.OK
    assert printed(capsys)[0]["device"] == "dev-a"
    rig.close()


def test_what_is_wrong_is_said_with_the_right_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list", "--path", tmp_path / "absent") == ExitCode.FAILED
    assert "no such file" in capsys.readouterr().err
    assert run("list", "--config", tmp_path / "absent") == ExitCode.CONFIG
    for words in (("purge", "--older-than", "soon"), ("export", "--device", "a/b/c"), ()):
        with pytest.raises(SystemExit) as stopped:
            run(*words)
        assert stopped.value.code == ExitCode.USAGE
