"""sd_notify: what a manager that listens on a real datagram socket receives."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.daemon.systemd import STATUS_LENGTH, Notifier, watchdog_seconds


class Manager:
    """The other end: a bound datagram socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(5)

    def heard(self) -> str:
        return self.socket.recv(4096).decode()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


@pytest.fixture
def notifier(tmp_path: Path, manager: Manager) -> Iterator[Notifier]:
    notifier = Notifier(str(tmp_path / "notify"))
    yield notifier
    notifier.close()


def test_each_message_is_what_systemd_reads(notifier: Notifier, manager: Manager) -> None:
    assert notifier.ready("3 devices")
    assert manager.heard() == "READY=1\nSTATUS=3 devices"
    assert notifier.reloading(12.345678)
    assert manager.heard() == "RELOADING=1\nMONOTONIC_USEC=12345678"
    assert notifier.ready()
    assert manager.heard() == "READY=1"
    assert notifier.alive()
    assert manager.heard() == "WATCHDOG=1"
    assert notifier.status("all is well")
    assert manager.heard() == "STATUS=all is well"
    assert notifier.stopping()
    assert manager.heard() == "STOPPING=1"


def test_a_status_cannot_begin_another_assignment_and_is_cut(notifier: Notifier, manager: Manager) -> None:
    notifier.status("dev-1\nSTOPPING=1")
    assert manager.heard() == "STATUS=dev-1 STOPPING=1"
    notifier.status("x" * 10_000)
    assert len(manager.heard()) == len("STATUS=") + STATUS_LENGTH


def test_an_empty_status_is_not_sent(notifier: Notifier) -> None:
    assert not notifier.status("")


def test_the_abstract_namespace_is_reached() -> None:
    name = f"gatewayd-test-{os.getpid()}"
    manager = Manager("\0" + name)
    notifier = Notifier("@" + name)
    try:
        assert notifier.ready()
        assert manager.heard() == "READY=1"
    finally:
        notifier.close()
        manager.socket.close()


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "notify"])
def test_without_a_socket_nothing_happens(address: str | None) -> None:
    notifier = Notifier(address)
    assert not notifier.ready()
    notifier.close()


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "absent"))
    assert not notifier.alive()
    notifier.close()
    assert not notifier.alive()


def test_a_manager_that_does_not_read_holds_nothing_up_for_long(notifier: Notifier, manager: Manager) -> None:
    delivered = 0
    while notifier.alive():
        delivered += 1
        assert delivered < 10_000, "the socket never fills, so the bound was not reached"
    assert manager.heard() == "WATCHDOG=1"


def test_the_variables_are_taken_out_of_the_environment(tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "7", "HOME": "/"}
    Notifier.from_environment(environ).close()
    watchdog_seconds(environ, 7)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 60.0),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_interval_is_for_the_process_that_is_watched(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environ, 7) == seconds
