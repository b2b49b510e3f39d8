"""A tethered program has all the files it may have, and ends with its parent."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys

from gatewayd.demo import tether

TETHER = [sys.executable, "-m", "gatewayd.demo.tether"]


def run(*program: str, parent: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [*TETHER, str(parent or os.getpid()), *program]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def test_the_program_runs_with_the_hard_limit_of_open_files() -> None:
    code = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    soft, hard = run(sys.executable, "-c", code).stdout.split()
    assert soft == hard == str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def test_the_exit_code_is_the_program_s() -> None:
    assert run(sys.executable, "-c", "raise SystemExit(7)").returncode == 7


def test_a_program_that_is_not_there_is_named() -> None:
    ended = run("/nonexistent/program")
    assert ended.returncode == 127
    assert "/nonexistent/program: No such file or directory" in ended.stderr


def test_nothing_is_started_for_a_parent_that_is_gone() -> None:
    assert tether.main(["1", "/bin/true"]) == 1 or os.getppid() == 1
    assert run(sys.executable, "-c", "print('ran')", parent=1).stdout == ""


def test_the_program_ends_when_its_parent_is_killed() -> None:
    """A middle process starts a tethered sleeper, tells us its id, and is killed without a chance to tidy up."""
    middle = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, subprocess, sys\n"
            f"child = subprocess.Popen([*{TETHER!r}, str(os.getpid()), sys.executable, '-c',\n"
            "    'import signal; print(1, flush=True); signal.pause()'], stdout=subprocess.PIPE)\n"
            "child.stdout.readline()\n"
            "print(child.pid, flush=True)\n"
            "child.wait()\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert middle.stdout is not None
    sleeper = int(middle.stdout.readline())
    descriptor = os.pidfd_open(sleeper)
    try:
        middle.kill()
        middle.wait(timeout=10)
        readable, _, _ = select.select([descriptor], [], [], 10.0)
        assert readable, "the sleeper still lives"
    except AssertionError:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        raise
    finally:
        os.close(descriptor)
        middle.stdout.close()
