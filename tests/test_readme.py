"""The README's commands do what it says, and those of the operations page: each is run here, in a sandbox, or named
below with the reason why not.

Absolute paths become paths of the sandbox, the two loopback addresses become free ones, and the files that the README
shows are what the commands work on. Nothing else is changed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.daemon.config_reference import example
from gatewayd.message import Identity
from tests.support.azure_device import own_loopback_address
from tests.support.config_files import key_text
from tests.support.outbox_rig import KeeperRig, new
from tests.support.tls_material import Authority

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WITHIN_SECONDS = 30.0
# What runs until it is told to stop, and what each says when it serves.
SERVERS = {"gatewayd emulator": "identities, grace", "gatewayd run": "listening on port"}

# Why a command is not run here, by how it begins.
NOT_RUN = {
    "make ": "takes minutes; that its verb exists is asked below",
    "gatewayd demo ": "takes minutes; tests/demo runs it, and its options are asked below",
    "python3 -m venv": "installs",
    "/opt/gatewayd/bin/pip": "installs",
    "systemctl": "needs the service manager",
    "journalctl": "needs the service manager",
}

_SH = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w-]+\.(?:toml|py))`[^`]*?:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^## (.*)$", re.MULTILINE)
_PYTHON_LINES = re.compile(r"^```python\n((?: {4}.*\n)+)```$", re.MULTILINE)


def commands(text: str) -> list[str]:
    return [line for block in _SH.findall(text) for line in block.splitlines() if line]


def section(name: str) -> str:
    parts = _SECTION.split(README)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


def shown_files(text: str) -> dict[str, str]:
    return dict(_FILE.findall(text))


def is_run(command: str) -> bool:
    return not any(command.startswith(start) for start in NOT_RUN)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A machine of its own, as far as the README goes: a folder for /, one to work in, and two addresses."""

    root: Path
    work: Path
    gateway: str
    hub: str

    def moved(self, text: str) -> str:
        """The text with its places and addresses moved here."""
        text = re.sub(r"(?<![\w.])/(etc|opt|usr|var)/", rf"{self.root}/\1/", text)
        return text.replace("127.0.0.1", self.gateway).replace("127.0.0.2", self.hub)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.work / name).write_text(self.moved(text))

    def start(self, command: str) -> subprocess.Popen[str]:
        """The program of this Python, as `gatewayd` would be found on the machine."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.Popen(
            ["sh", "-ec", f"exec {command}" if command.startswith(tuple(SERVERS)) else command],
            cwd=self.work,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """Run it to its end, which must be good; what it said."""
        program = shlex.split(command)[0]
        if shutil.which(program) is None and program != "gatewayd":
            pytest.skip(f"{program} is not installed")
        with self.start(self.moved(command)) as process:
            said, _ = process.communicate(timeout=WITHIN_SECONDS)
        assert process.returncode == 0, f"{command}\n{said}"
        return said


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    root, work = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("work")
    for folder in ("etc/systemd/system", "opt/gatewayd/bin", "usr/bin", "var/lib/gatewayd"):
        (root / folder).mkdir(parents=True)
    (work / "systemd").symlink_to(ROOT / "systemd")
    (work / "docs").symlink_to(ROOT / "docs")
    return Sandbox(root, work, own_loopback_address(), own_loopback_address())


@pytest.fixture(scope="module")
def installed(sandbox: Sandbox) -> list[str]:
    """The installer's page, from top to bottom; what each command said."""
    text = section("For the installer")
    sandbox.write(shown_files(text))
    devices = sandbox.work / "devices.csv"
    devices.write_text(f"dev-1,{key_text(1)},{key_text(2)}\n")
    asked = [command for command in commands(text) if is_run(command)]
    if shutil.which("openssl") is None:
        # Its two commands are left out, which a test below says; a certificate from elsewhere lets the rest run.
        asked = [command for command in asked if not command.startswith(("openssl ", "cat "))]
        authority = Authority(sandbox.work)
        shutil.copy(authority.server(sandbox.gateway).chain, sandbox.work / "gateway.pem")
        shutil.copy(authority.ca_file, sandbox.work / "gateway.crt")
    return [sandbox.run(command) for command in asked]


@pytest.fixture(scope="module")
def desk(sandbox: Sandbox, installed: list[str]) -> Iterator[Sandbox]:
    """The hub on the desk and gatewayd before it, started as the README says."""
    assert installed
    text = section("A hub on the desk")
    sandbox.write(shown_files(text))
    (sandbox.work / "gateway.pem").chmod(0o600)
    with ExitStack() as stack:
        for command in commands(text):
            start = next((one for one in SERVERS if command.startswith(one)), None)
            if start is not None:
                process = stack.enter_context(sandbox.start(sandbox.moved(command)))
                stack.callback(_end, process)
                _wait_for(SERVERS[start], process)
        yield sandbox


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        said, _ = process.communicate(timeout=WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, said


def _wait_for(words: str, process: subprocess.Popen[str]) -> None:
    """Until the program says that it serves; over at once when it has ended."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended: {''.join(said)}")


def test_it_opens_with_three_sentences_the_two_commands_and_the_picture() -> None:
    opening = _SECTION.split(README)[0]
    first = opening.split("\n\n")[1]
    assert len(re.findall(r"\.(?=\s|$)", first)) == 3
    assert commands(opening)[:2] == ["make demo", "make test"]
    picture = re.search(r"!\[[^\]]*\]\(([^)]*)\)", opening)
    assert picture is not None
    assert (ROOT / picture[1]).read_text(encoding="utf-8").lstrip().startswith("<?xml")


@pytest.mark.parametrize("command", [one for one in commands(README) if one.startswith("make ")])
def test_every_verb_of_make_exists(command: str) -> None:
    for verb in shlex.split(command)[1:]:
        assert re.search(rf"^{verb}:", MAKEFILE, re.MULTILINE)


def test_the_verbs_of_contributing_are_those_of_the_makefile() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
    assert set(re.findall(r"^\| `make ([a-z-]+)` \|", page, re.MULTILINE)) == told


def test_the_sections_that_are_run_hold_every_command_that_is_run() -> None:
    held = [command for name in _SECTION.findall(README) for command in commands(section(name))]
    outside = [command for command in commands(README) if command not in held]
    assert [command for command in outside if is_run(command)] == []
    run = [
        command
        for name in ("For the installer", "For the operator", "For the SRE", "A hub on the desk")
        for command in commands(section(name))
    ]
    assert run == held


def test_a_command_that_does_not_work_is_seen(sandbox: Sandbox) -> None:
    with pytest.raises(AssertionError, match="gatewayd explain 999999"):
        sandbox.run("gatewayd explain 999999")


def test_the_demo_of_the_picture_takes_its_options(sandbox: Sandbox) -> None:
    command = next(one for one in commands(README) if one.startswith("gatewayd demo "))
    known = sandbox.run("gatewayd demo --help")
    options = [word for word in shlex.split(command) if word.startswith("--")]
    assert options
    assert [option for option in options if option not in known] == []


def test_the_installers_page_ends_with_a_usable_configuration(sandbox: Sandbox, installed: list[str]) -> None:
    assert "usable" in installed[-1]
    secret = sandbox.root / "etc/gatewayd/devices.csv"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (sandbox.root / "etc/systemd/system/gatewayd.service").is_file()
    assert (sandbox.root / "usr/bin/gatewayd").is_symlink()


def test_the_certificate_of_the_page_has_its_key_beside_it(sandbox: Sandbox, installed: list[str]) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    assert installed
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(sandbox.work / "gateway.pem")
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(sandbox.work / "gateway.crt")


def test_the_unit_hands_over_the_credentials_that_the_page_names() -> None:
    named = set(re.findall(r'"credential:([\w.-]+)"', section("For the installer")))
    unit = (ROOT / "systemd" / "gatewayd.service").read_text(encoding="utf-8")
    assert named == set(re.findall(r"^LoadCredential=([\w.-]+):", unit, re.MULTILINE))


def test_the_installers_files_are_good_once_systemd_hands_them_over(
    sandbox: Sandbox, installed: list[str], tmp_path: Path
) -> None:
    assert installed
    for name in ("devices.csv", "gateway.pem"):
        shutil.copy(sandbox.work / name, tmp_path)
    command = "gatewayd check --config /etc/gatewayd/gatewayd.toml --json"
    said = sandbox.run(f"env CREDENTIALS_DIRECTORY={tmp_path} {command}")
    assert json.loads(said)["usable"]
    assert json.loads(said)["devices"] == 1


@pytest.mark.parametrize(
    "command", [one for one in commands(section("For the operator")) if is_run(one)], ids=str
)
def test_what_the_operator_runs(sandbox: Sandbox, installed: list[str], command: str) -> None:
    assert installed
    assert sandbox.run(command)


def test_the_arithmetic_that_the_page_quotes_is_that_of_check(sandbox: Sandbox, installed: list[str]) -> None:
    assert installed
    shutil.copy(sandbox.work / "gateway.pem", sandbox.work / "many.pem")
    (sandbox.work / "many.pem").chmod(0o600)
    many = sandbox.work / "many.csv"
    many.write_text("".join(f"dev-{n},{key_text(n % 251)},\n" for n in range(5000)))
    many.chmod(0o600)
    text = shown_files(section("For the installer"))["gatewayd.toml"]
    text = text.replace("credential:gateway.pem", "many.pem").replace("credential:devices.csv", "many.csv")
    (sandbox.work / "many.toml").write_text(text)
    assert "2/s expected at the peak" in sandbox.run("gatewayd check --config many.toml")
    (sandbox.work / "many.toml").write_text(f'{text}\n[tokens]\nlifetime = "60s"\n')
    with sandbox.start("gatewayd check --config many.toml") as process:
        said, _ = process.communicate(timeout=WITHIN_SECONDS)
    assert process.returncode == 78
    assert "103/s expected at the peak" in said


def test_the_example_file_is_a_configuration_that_check_reads(sandbox: Sandbox) -> None:
    (sandbox.work / "example.toml").write_text(example())
    with sandbox.start("gatewayd check --json --config example.toml") as process:
        said, _ = process.communicate(timeout=WITHIN_SECONDS)
    # Its files are not on this machine; nothing else is wrong with it.
    assert {problem["path"] for problem in json.loads(said)["errors"]} <= {
        "listener.certificate",
        "devices.file",
    }


@pytest.mark.parametrize("command", [one for one in commands(section("For the SRE")) if is_run(one)], ids=str)
def test_what_the_sre_asks_a_running_daemon(desk: Sandbox, command: str) -> None:
    said = desk.run(command)
    if command.endswith("/metrics"):
        assert 'gatewayd_hub_errors_total{cause="expired",code="401003"} 0.0' in said


def _tell_device(desk: Sandbox, name: str, text: str) -> str:
    (desk.work / name).write_text(desk.moved(text))
    done = subprocess.run(
        [sys.executable, name],
        cwd=desk.work,
        capture_output=True,
        text=True,
        timeout=2 * WITHIN_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sdk_reaches_the_hub_on_the_desk_and_then_gatewayd_before_it(desk: Sandbox) -> None:
    text = section("A hub on the desk")
    device = shown_files(text)["device.py"]
    [cloud] = [command for command in commands(text) if "/cloud-messages" in command]
    desk.run(cloud)
    straight = _tell_device(desk, "device.py", device)
    assert "a cloud message: b'hi'" in straight
    [instead] = _PYTHON_LINES.findall(text)
    behind = re.sub(r"^    server_verification_cert=.*\n", instead, device, flags=re.MULTILINE)
    assert behind != device
    desk.run(cloud)
    assert _tell_device(desk, "behind.py", behind) == straight
    asked = {command: desk.run(command) for command in commands(text) if command.startswith("curl ")}
    summary = json.loads(next(said for command, said in asked.items() if command.endswith("/summary")))
    assert summary["messages_at_hub"] == 2
    assert summary["hub_errors"] == {}


def test_what_the_hub_has_waits_on_no_disk(desk: Sandbox) -> None:
    [command] = [one for one in commands(section("A hub on the desk")) if one.startswith("gatewayd outbox ")]
    assert desk.run(command) == ""


@pytest.mark.parametrize(
    "command", [one for one in commands(section("A hub on the desk")) if " check " in one]
)
def test_the_desks_configuration_is_good(desk: Sandbox, command: str) -> None:
    assert desk.run(command).rstrip().endswith("good")


def test_what_the_operations_page_runs(desk: Sandbox) -> None:
    outbox = KeeperRig(desk.root / "var/lib/gatewayd/outbox.db")
    outbox.append(new(Identity("dev-1"), received_at=0.0), new(Identity("dev-2"), received_at=0.0))
    outbox.close()
    said = {command: desk.run(command) for command in commands(OPERATIONS) if is_run(command)}
    [listed] = [text for command, text in said.items() if command.startswith("gatewayd outbox list ")]
    assert [json.loads(line)["device"] for line in listed.splitlines()] == ["dev-1", "dev-2"]
    [purged] = [text for command, text in said.items() if command.startswith("gatewayd outbox purge ")]
    assert json.loads(purged)["deleted"] == 1
    [exported] = (desk.work / "dev-1.jsonl").read_text().splitlines()
    assert json.loads(exported)["payload"]
    token = desk.root / "etc/gatewayd/status-token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(token.read_text()) >= 16
