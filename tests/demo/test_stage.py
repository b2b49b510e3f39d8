"""What lies ready for the processes: private, complete, and gone afterwards."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gatewayd.clock import SystemClock
from gatewayd.credentials.device_file import open_device_file
from gatewayd.demo.fleet import read_keys
from gatewayd.demo.stage import device_lines, free_ports, stage, write_private
from gatewayd.emulator.registry import load_registry


def test_only_the_owner_can_read_what_lies_there_and_it_is_removed() -> None:
    with stage(3, SystemClock().wall()) as ready:
        assert stat.S_IMODE(ready.directory.stat().st_mode) == 0o700
        for file in (ready.devices_file, ready.gateway_certificate, ready.gateway_authority):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        kept = ready.directory
    assert not kept.exists()


def test_it_is_removed_when_the_run_fails() -> None:
    def fail() -> None:
        with stage(1, SystemClock().wall()) as ready:
            raise ZeroDivisionError(ready.directory)

    with pytest.raises(ZeroDivisionError) as failure:
        fail()
    assert not Path(str(failure.value)).exists()


def test_hub_and_devices_read_the_same_keys(tmp_path: Path) -> None:
    file = write_private(tmp_path / "devices.csv", device_lines(25))
    keys = read_keys(file)
    registry = load_registry(file)
    assert len(keys) == len(registry) == 25
    assert {identity.name: identity.primary_key for identity in registry} == keys
    assert len(set(keys.values())) == 25


def test_the_daemon_reads_the_device_file(tmp_path: Path) -> None:
    file = write_private(tmp_path / "devices.csv", device_lines(25))
    with open_device_file(file) as read:
        assert len(list(read)) == 25


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"1")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "a", b"2")


def test_free_ports_differ() -> None:
    assert len(set(free_ports(8))) == 8
