"""The files a configuration names: certificates, keys, devices, and the arithmetic of the fleet."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gatewayd.daemon.config_files import Findings, inspect_files
from gatewayd.daemon.config_load import load_config
from gatewayd.errors import ConfigProblem
from tests.support.config_files import ConfigFolder, device_lines, key_text, write_config
from tests.support.tls_material import Authority

NOW = datetime.now(UTC).timestamp()
NO_CREDENTIALS = Path("/nonexistent/credentials")


@pytest.fixture
def files(tmp_path: Path) -> ConfigFolder:
    return write_config(tmp_path)


def inspect(
    files: ConfigFolder,
    *,
    wall: float | None = NOW,
    skip: frozenset[str] = frozenset(),
    credentials: Path = NO_CREDENTIALS,
) -> Findings:
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    return inspect_files(load_config(files.toml, environ), credentials=credentials, wall=wall, skip=skip)


def only_problem(findings: Findings) -> ConfigProblem:
    assert len(findings.problems) == 1, [str(problem) for problem in findings.problems]
    return findings.problems[0]


def set_key(files: ConfigFolder, old: str, new: str) -> None:
    text = files.toml.read_text()
    assert old in text
    files.toml.write_text(text.replace(old, new))


def test_a_good_configuration_has_no_findings_and_counts_its_devices(files: ConfigFolder) -> None:
    findings = inspect(files)
    assert findings.problems == []
    assert findings.warnings == []
    assert findings.devices == 3
    assert findings.timetable is not None
    assert findings.timetable.feasible


def test_a_certificate_that_is_not_there_is_one_problem(files: ConfigFolder) -> None:
    files.certificate.unlink()
    problem = only_problem(inspect(files))
    assert problem.path == "listener.certificate"
    assert "No such file" in problem.problem


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_not_a_file_is_refused_and_not_waited_for(files: ConfigFolder, make: object) -> None:
    files.certificate.unlink()
    assert callable(make)
    make(files.certificate)
    assert only_problem(inspect(files)).path == "listener.certificate"


def test_a_certificate_without_its_key_says_so(files: ConfigFolder, tmp_path: Path) -> None:
    files.certificate.write_bytes((tmp_path / "authority.pem").read_bytes())
    problem = only_problem(inspect(files))
    assert problem.path == "listener.certificate"
    assert "holds no private key" in problem.problem


def test_a_file_without_certificate_says_so(files: ConfigFolder) -> None:
    files.certificate.write_text("nothing here\n")
    assert {"holds no certificate", "holds no private key"} == {
        problem.problem.partition(" ")[2] for problem in inspect(files).problems
    }


def test_a_key_of_another_certificate_is_found_out(files: ConfigFolder, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").server("other.local").chain
    other.chmod(0o600)
    set_key(files, "[devices]", f'private_key = "{other.name}"\n[devices]')
    problem = only_problem(inspect(files))
    assert problem.path == "listener.private_key"
    assert "is not the key of the first certificate" in problem.problem


def test_a_key_in_a_file_of_its_own_is_good(files: ConfigFolder) -> None:
    set_key(files, "[devices]", f'private_key = "{files.certificate.name}"\n[devices]')
    assert inspect(files).problems == []


def test_an_expired_certificate_is_an_error_only_while_the_time_is_known(
    files: ConfigFolder, tmp_path: Path
) -> None:
    expired = Authority(tmp_path, "old").server("gateway.local", expired=True).chain
    expired.chmod(0o600)
    set_key(files, files.certificate.name, expired.name)
    assert "expired on 2020-01-01" in only_problem(inspect(files)).problem
    assert inspect(files, wall=None).problems == []


def test_a_certificate_of_the_future_asks_about_the_clock(files: ConfigFolder) -> None:
    problem = only_problem(inspect(files, wall=1.0))
    assert "is not valid before" in problem.problem
    assert "clock" in problem.allowed


def test_a_certificate_that_expires_soon_is_a_warning(files: ConfigFolder, tmp_path: Path) -> None:
    expired = Authority(tmp_path, "old").server("gateway.local", expired=True).chain
    expired.chmod(0o600)
    set_key(files, files.certificate.name, expired.name)
    findings = inspect(files, wall=datetime(2019, 12, 24, tzinfo=UTC).timestamp())
    assert [str(warning) for warning in findings.warnings] == [
        "listener.certificate: expires on 2020-01-01 (allowed: a renewed certificate)"
    ]


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_private_key_that_others_can_read_is_refused(files: ConfigFolder, mode: int, refused: bool) -> None:
    files.certificate.chmod(mode)
    problems = inspect(files).problems
    assert bool(problems) is refused
    if refused:
        assert f"mode {mode:04o}" in problems[0].problem
        assert "chmod" in problems[0].allowed


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_device_file_that_anyone_else_can_read_is_refused(files: ConfigFolder, mode: int) -> None:
    files.devices.chmod(mode)
    problem = only_problem(inspect(files))
    assert problem.path == "devices.file"
    assert f"mode {mode:04o}" in problem.problem


def test_systemd_guards_its_credentials_itself(files: ConfigFolder, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    files.devices.rename(credentials / "devices.csv")
    # With an access list on the file, its group bits show the mask.
    (credentials / "devices.csv").chmod(0o440)
    set_key(files, '"devices.csv"', '"credential:devices.csv"')
    findings = inspect(files, credentials=credentials)
    assert findings.problems == []
    assert findings.devices == 3


def test_a_credential_of_a_unit_that_is_not_running_is_a_warning(files: ConfigFolder) -> None:
    set_key(files, '"devices.csv"', '"credential:devices.csv"')
    set_key(files, f'"{files.certificate.name}"', '"credential:gateway.pem"')
    findings = inspect(files)
    assert findings.problems == []
    assert [warning.path for warning in findings.warnings] == ["listener.certificate", "devices.file"]


def test_a_mistake_in_the_device_file_names_the_line_and_not_the_key(files: ConfigFolder) -> None:
    files.devices.write_text(f"dev-1,{key_text(1)}\ndev-2,{key_text(2)[:-4]}!!!!\n")
    problem = only_problem(inspect(files))
    assert problem.path == "devices.file"
    assert ":2 (dev-2)" in problem.problem
    assert key_text(2)[:10] not in str(problem)


def test_an_empty_device_file_is_a_warning(files: ConfigFolder) -> None:
    files.devices.write_text("id,primary_key\n")
    assert [warning.path for warning in inspect(files).warnings] == ["devices.file"]


def test_a_timetable_that_cannot_work_is_refused_with_the_numbers(files: ConfigFolder) -> None:
    files.devices.write_text(device_lines(5000))
    set_key(files, "[hub]", '[tokens]\nlifetime = "2m"\n[hub]')
    files.append("[hub.budget]\nconnects_per_second = 50\n")
    problem = only_problem(inspect(files, skip=frozenset({"listener.certificate"})))
    assert problem.path == "tokens.lifetime"
    for number in ("5000 devices", "120 s", "85%", "50 connects/s", "40/s", "20%"):
        assert number in problem.problem


def test_keys_that_are_wrong_in_themselves_are_not_judged_again(files: ConfigFolder) -> None:
    files.certificate.unlink()
    files.devices.unlink()
    skip = frozenset({"listener", "devices.file"})
    assert inspect(files, skip=skip).problems == []


def test_authorities_for_the_hub_are_read(files: ConfigFolder, tmp_path: Path) -> None:
    set_key(files, "[listener]", 'trusted_ca = "authority.pem"\n[listener]')
    assert inspect(files).problems == []
    (tmp_path / "authority.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert only_problem(inspect(files)).path == "hub.trusted_ca"


def test_a_floor_file_without_a_folder_is_a_warning(files: ConfigFolder) -> None:
    set_key(files, '"clock-floor"', '"absent/clock-floor"')
    assert [warning.path for warning in inspect(files).warnings] == ["clock.floor_file"]


def test_an_outbox_without_a_folder_is_a_warning_because_the_unit_makes_one(files: ConfigFolder) -> None:
    set_key(files, '"outbox.db"', '"absent/outbox.db"')
    assert [warning.path for warning in inspect(files).warnings] == ["outbox.path"]


def test_a_status_token_is_judged_and_never_told(files: ConfigFolder, tmp_path: Path) -> None:
    token = tmp_path / "token"
    files.append('[metrics]\ntoken_file = "token"\n')
    assert only_problem(inspect(files)).path == "metrics.token_file"
    token.write_text("f81d4fae7dec11d0\n")
    token.chmod(0o640)
    assert inspect(files).problems == []
    token.chmod(0o644)
    assert "holds a token and has mode 0644" in only_problem(inspect(files)).problem
    token.chmod(0o600)
    token.write_text("too short")
    problem = only_problem(inspect(files))
    assert "holds no token" in problem.problem
    assert "too short" not in str(problem)


def test_credentials_of_a_proxy_are_read_and_guarded(files: ConfigFolder, tmp_path: Path) -> None:
    secret = tmp_path / "proxy"
    set_key(files, "[hub]\n", '[hub]\nproxy = "http://proxy:3128"\nproxy_credentials = "proxy"\n')
    secret.write_text("gateway:hunter2\n")
    secret.chmod(0o600)
    assert inspect(files).problems == []
    secret.chmod(0o640)
    (problem,) = inspect(files).problems
    assert (problem.path, "has mode 0640" in problem.problem) == ("hub.proxy_credentials", True)
    secret.chmod(0o600)
    secret.write_text("hunter2\n")
    (problem,) = inspect(files).problems
    assert "does not hold a user and a password" in problem.problem
    assert "hunter2" not in str(problem)
