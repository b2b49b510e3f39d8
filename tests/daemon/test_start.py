"""The first steps of a run."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatewayd.clock import ManualClock
from gatewayd.daemon.config_load import DEFAULT_CONFIG_FILE
from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.daemon.start import Startup, add_arguments, start
from gatewayd.errors import Bounded, ConfigError
from tests.support.config_files import HUB, ConfigFolder, write_config
from tests.support.tls_material import Authority


@pytest.fixture
def files(tmp_path: Path) -> ConfigFolder:
    return write_config(tmp_path)


@pytest.fixture(autouse=True)
def level_of_the_root() -> Iterator[None]:
    before = logging.getLogger().level, logging.getLogger("gatewayd").level
    yield
    logging.getLogger().setLevel(before[0])
    logging.getLogger("gatewayd").setLevel(before[1])


class Run:
    """One start, and what was said."""

    def __init__(
        self,
        files: ConfigFolder,
        serve: Callable[[Startup], int],
        environ: dict[str, str] | None = None,
        clock: ManualClock | None = None,
    ) -> None:
        stderr = io.StringIO()
        self.environ = environ or {}
        self.code = start(files.toml, serve, clock or ManualClock(), environ=self.environ, stderr=stderr)
        self.said = stderr.getvalue()

    def logged(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.said.splitlines()]


def test_the_daemon_serves_with_what_was_read_and_its_exit_code_comes_back(files: ConfigFolder) -> None:
    seen: list[Startup] = []

    def serve(startup: Startup) -> int:
        seen.append(startup)
        logging.getLogger("gatewayd.test").info("serving")
        return 7

    run = Run(files, serve)
    assert run.code == 7
    assert seen[0].config.hub.hostname == HUB
    assert seen[0].devices == 3
    assert seen[0].watchdog_seconds is None
    assert [line["message"] for line in run.logged()] == ["serving"]


def test_a_bad_configuration_is_told_whole_and_nothing_serves(files: ConfigFolder) -> None:
    files.append("[tokens]\nlifetime = 60\n[nonsense]\n")
    run = Run(files, lambda startup: pytest.fail("served"))
    assert run.code == ExitCode.CONFIG
    assert [line.partition(" (")[0] for line in run.said.splitlines()] == [
        "gatewayd: tokens.lifetime",
        "gatewayd: nonsense",
    ]


def test_a_reload_reads_the_file_anew_and_judges_it_alike(files: ConfigFolder) -> None:
    def serve(startup: Startup) -> int:
        files.append('[log]\nlevel = "debug"\n')
        assert startup.load_again().log.level == "debug"
        files.devices.unlink()
        with pytest.raises(ConfigError, match="No such file"):
            startup.load_again()
        return ExitCode.OK

    assert Run(files, serve).code == ExitCode.OK


def test_warnings_are_logged(files: ConfigFolder) -> None:
    files.append('[metrics]\naddress = "0.0.0.0:0"\nanonymous = "metrics"\n')
    run = Run(files, lambda startup: ExitCode.OK)
    assert run.code == ExitCode.OK
    assert [(line["level"], "metrics.address" in str(line["message"])) for line in run.logged()] == [
        ("warning", True)
    ]


@pytest.mark.parametrize("error", [Bounded("the key table is full"), OSError(98, "Address already in use")])
def test_an_error_with_words_is_one_line_without_a_trace(files: ConfigFolder, error: Exception) -> None:
    def serve(startup: Startup) -> int:
        raise error

    run = Run(files, serve)
    assert run.code == ExitCode.FAILED
    (line,) = run.logged()
    assert str(error) in str(line["message"])
    assert "exception" not in line


def test_an_error_nobody_foresaw_has_its_trace_without_secrets(files: ConfigFolder) -> None:
    def serve(startup: Startup) -> int:
        raise ZeroDivisionError("SharedAccessKey=abcdef")

    run = Run(files, serve)
    assert run.code == ExitCode.FAILED
    (line,) = run.logged()
    assert "ZeroDivisionError" in str(line["exception"])
    assert "abcdef" not in run.said


def test_the_service_manager_is_told_and_its_variables_are_taken(files: ConfigFolder, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(5)

        def serve(startup: Startup) -> int:
            assert startup.watchdog_seconds == 60.0
            assert startup.notifier.ready()
            return ExitCode.OK

        watchdog = {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
        run = Run(files, serve, {"NOTIFY_SOCKET": address, "HOME": "/", **watchdog})
        assert run.code == ExitCode.OK
        assert manager.recv(100) == b"READY=1"
        assert run.environ == {"HOME": "/"}
        files.toml.write_text("nonsense")
        assert Run(files, serve, {"NOTIFY_SOCKET": address}).code == ExitCode.CONFIG
        assert b"STATUS=the configuration cannot be used" in manager.recv(1000)


def test_a_gateway_that_boots_in_1970_starts(files: ConfigFolder) -> None:
    assert Run(files, lambda startup: ExitCode.OK, clock=ManualClock(wall=0.0)).code == ExitCode.OK


def test_an_expired_certificate_stops_a_start_whose_clock_is_good(
    files: ConfigFolder, tmp_path: Path
) -> None:
    expired = Authority(tmp_path, "old").server("gateway.local", expired=True).chain
    expired.chmod(0o600)
    files.toml.write_text(files.toml.read_text().replace(files.certificate.name, expired.name))
    run = Run(files, lambda startup: pytest.fail("served"))
    assert run.code == ExitCode.CONFIG
    assert "expired on 2020-01-01" in run.said


def test_without_an_argument_the_file_is_where_the_unit_has_it() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args([]).config == DEFAULT_CONFIG_FILE
