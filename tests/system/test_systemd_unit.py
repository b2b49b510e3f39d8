"""The unit as systemd itself judges it, and the daemon's modules under the unit's memory rule."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd.daemon.config import settings
from gatewayd.daemon.config_values import CREDENTIALS_OF_THE_UNIT, Duration, duration
from gatewayd.daemon.exit_codes import ExitCode

UNIT = Path(__file__).parents[2] / "systemd" / "gatewayd.service"
DROP_INS = [
    block
    for page in ("systemd/README.md", "docs/operations.md")
    for block in re.findall(
        r"^```ini\n(.*?)^```$", (UNIT.parents[1] / page).read_text(), re.MULTILINE | re.DOTALL
    )
]
# 1.5 on systemd's scale of 0 to 10: what a hardened network daemon can reach.
THRESHOLD = 15

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (package systemd)"
)


def setting(name: str, text: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


def systemd_version() -> int:
    return int(analyze("--version").stdout.split()[1])


def verified(folder: Path, text: str) -> str:
    """What `systemd-analyze verify` says; its exit code says less. The program is one that exists here."""
    unit = folder / "gatewayd.service"
    unit.write_text(text.replace("/usr/bin/gatewayd", "/bin/true"))
    return analyze("verify", "--man=no", str(unit)).stderr


@pytest.mark.system
@needs_systemd_analyze
def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    assert verified(tmp_path, UNIT.read_text()) == ""


@pytest.mark.system
@needs_systemd_analyze
@pytest.mark.parametrize(
    ("good", "bad"),
    [("Type=notify", "Type=telegraph"), ("WatchdogSec=60", "WatchdogSec=soon"), ("RemoveIPC", "RemoveIPX")],
)
def test_a_mistake_in_the_unit_would_be_seen(tmp_path: Path, good: str, bad: str) -> None:
    assert verified(tmp_path, UNIT.read_text().replace(good, bad)) != ""


@pytest.mark.system
@needs_systemd_analyze
@pytest.mark.parametrize("drop_in", DROP_INS)
def test_systemd_understands_every_drop_in_that_the_pages_show(tmp_path: Path, drop_in: str) -> None:
    if "Type=notify-reload" in drop_in and systemd_version() < 253:
        pytest.skip("this systemd is older than 253, which the page names")
    folder = tmp_path / "gatewayd.service.d"
    folder.mkdir()
    (folder / "site.conf").write_text(drop_in)
    assert verified(tmp_path, UNIT.read_text()) == ""
    (folder / "site.conf").write_text(re.sub(r"^(\w+)=", r"\1X=", drop_in, count=1, flags=re.MULTILINE))
    assert verified(tmp_path, UNIT.read_text()) != ""


@pytest.mark.system
@needs_systemd_analyze
def test_the_unit_is_hardened(tmp_path: Path) -> None:
    judged = analyze("security", "--offline=yes", f"--threshold={THRESHOLD}", "--no-pager", str(UNIT))
    assert judged.returncode == 0, judged.stdout.splitlines()[-1]
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert analyze("security", "--offline=yes", f"--threshold={THRESHOLD}", str(bare)).returncode != 0


def test_what_the_unit_says_is_what_the_daemon_does() -> None:
    text = UNIT.read_text()
    assert setting("Type", text) == ["notify"], "notify-reload is unknown before systemd 253"
    assert setting("RestartPreventExitStatus", text) == [str(ExitCode.CONFIG.value)]
    assert CREDENTIALS_OF_THE_UNIT.name == UNIT.name
    floor_file = next(one for one in settings() if one.path == "clock.floor_file")
    assert str(floor_file.default).strip('"').startswith(f"/var/lib/{setting('StateDirectory', text)[0]}/")
    deadline = next(one for one in settings() if one.path == "shutdown.deadline")
    assert isinstance(deadline.kind, Duration)
    assert int(setting("TimeoutStopSec", text)[0]) > duration(deadline.kind.at_most)


def test_the_outbox_has_a_folder_of_its_own_that_outlives_a_start() -> None:
    text = UNIT.read_text()
    [folder] = setting("StateDirectory", text)
    outbox = next(one for one in settings() if one.path == "outbox.path")
    assert Path(str(outbox.default).strip('"')).parent == Path("/var/lib") / folder
    assert setting("StateDirectoryMode", text) == ["0700"]


def test_the_folder_of_the_status_socket_is_made_and_others_may_pass_through_it() -> None:
    text = UNIT.read_text()
    [folder] = setting("RuntimeDirectory", text)
    assert setting("RuntimeDirectoryMode", text) == ["0755"]
    told = re.findall(r'"unix:(/run/[^"]*)"', (UNIT.parents[1] / "docs" / "configuration.md").read_text())
    assert told
    assert {Path(one).parent for one in told} == {Path("/run") / folder}
    assert "AF_UNIX" in setting("RestrictAddressFamilies", text)[0]


def test_no_core_is_dumped_and_no_memory_is_written_and_executed() -> None:
    text = UNIT.read_text()
    assert setting("LimitCORE", text) == ["0"]
    assert setting("MemoryDenyWriteExecute", text) == ["yes"]


# prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN) of linux/prctl.h is kept over exec: a fresh interpreter gets it.
UNDER_THE_RULE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(65, 1, 0, 0, 0):
    sys.exit(77)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
THE_DAEMONS_WORK = """
import asyncio, base64, pathlib, ssl, tempfile, time
from gatewayd.clock import kernel_clock_synchronized
from gatewayd.daemon import assembly, config_examination, logs, status_server, systemd, watchdog
from gatewayd.store.messages import Health, WhenFull
from gatewayd.store.store_thread import Store
from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.signer import Signer
kernel_clock_synchronized()
ssl.create_default_context()
table = KeyTable(1)
index = table.add("d", bytearray(base64.b64encode(bytes(32))), "h/devices/d")
assert Signer(table).sign_one(index, 2_000_000_000).startswith(b"SharedAccessSignature ")
async def keep(folder):
    loop = asyncio.get_running_loop()
    store = Store(loop, pathlib.Path(folder) / "outbox.db", max_bytes=1 << 20, when_full=WhenFull.STOP,
                  wall=time.time, on_health=lambda health: None, on_dropped=lambda *what: None)
    await store.open()
    assert store.health is Health.OK
    await store.close()
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(keep(folder))
"""
WRITES_AND_EXECUTES = (
    "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)"
)


def under_the_rule(code: str) -> int:
    ran = subprocess.run([sys.executable, "-c", UNDER_THE_RULE, code], capture_output=True, timeout=60)
    if ran.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    return ran.returncode


def test_the_daemon_works_while_no_memory_may_be_written_and_executed() -> None:
    assert under_the_rule(WRITES_AND_EXECUTES) != 0, "the rule is not in force"
    assert under_the_rule(THE_DAEMONS_WORK) == 0
