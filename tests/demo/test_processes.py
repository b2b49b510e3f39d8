"""Children are started, listened to, and always ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gatewayd.demo.processes import Child, ChildFailed, Children
from tests.demo.conftest import eventually


def program(tmp_path: Path, text: str) -> list[str]:
    """A Python module written for the test, as `python -m` takes it."""
    name = f"child_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    return [name]


@pytest.fixture(autouse=True)
def _modules_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))


def lives(pid: str) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().split()[2] not in {"Z", "X"}


async def test_lines_are_handed_on_and_the_end_is_awaited(tmp_path: Path) -> None:
    said: list[str] = []
    async with Children() as children:
        text = "import sys\nfor line in sys.stdin:\n    print('got', line.strip(), flush=True)\n    break\n"
        child = await children.start("echo", program(tmp_path, text), stdout=said.append)
        await child.tell("hello")
        await child.finished(within=20)
    assert said == ["got hello"]
    assert child.returncode == 0


async def test_a_child_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    async with Children() as children:
        child = await children.start(
            "the daemon", program(tmp_path, "raise SystemExit('port 8883 is taken')\n")
        )
        with pytest.raises(ChildFailed, match="the daemon ended with exit code 1") as failure:
            await child.finished(within=20)
        assert "port 8883 is taken" in str(failure.value)
        with pytest.raises(ChildFailed):
            children.check()


async def test_a_child_that_ends_too_early_is_a_failure_even_with_code_0(tmp_path: Path) -> None:
    async with Children() as children:
        child = await children.start("hub", program(tmp_path, "pass\n"))
        await eventually(lambda: child.returncode is not None)
        with pytest.raises(ChildFailed, match="hub ended with exit code 0"):
            children.check()


async def test_a_child_that_does_not_end_by_itself_is_reported(tmp_path: Path) -> None:
    async with Children() as children:
        child = await children.start("sleeper", program(tmp_path, "import time\ntime.sleep(60)\n"))
        with pytest.raises(ChildFailed, match=r"did not end within 0\.2 s"):
            await child.finished(within=0.2)


async def test_leaving_ends_a_child_that_lives(tmp_path: Path) -> None:
    async with Children() as children:
        child = await children.start("sleeper", program(tmp_path, "import time\ntime.sleep(60)\n"))
    assert child.returncode is not None


async def test_a_child_that_will_not_end_is_killed_with_its_own_children(tmp_path: Path) -> None:
    said: list[str] = []
    text = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(grandchild.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    async with Children() as children:
        child = await children.start("stubborn", program(tmp_path, text), stdout=said.append)
        await eventually(lambda: bool(said))
        assert await child.end(within=0.3) is False
    assert child.returncode == -9
    await eventually(lambda: not lives(said[0]))


async def test_a_line_beyond_the_bound_does_not_stop_the_reading(tmp_path: Path) -> None:
    said: list[str] = []
    async with Children() as children:
        text = "print('x' * (3 << 20))\nprint('after', flush=True)\n"
        child = await children.start("talker", program(tmp_path, text), stdout=said.append)
        await child.finished(within=20)
    assert said[-1].endswith("after")
    assert all(len(line) <= 1 << 20 for line in said)


async def test_what_is_not_understood_is_a_failure_and_not_a_silence(tmp_path: Path) -> None:
    text = "import time\nprint('no number', flush=True)\ntime.sleep(60)\n"
    said: list[int] = []
    async with Children() as children:
        child = await children.start(
            "talker", program(tmp_path, text), stdout=lambda line: said.append(int(line))
        )
        await eventually(lambda: fails(child))
        with pytest.raises(ChildFailed, match="said what is not understood: ValueError"):
            child.check()


def fails(child: Child) -> bool:
    try:
        child.check()
    except ChildFailed:
        return True
    return False
