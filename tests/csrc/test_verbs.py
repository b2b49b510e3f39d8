"""The signer's own tests in C, run by the verbs of csrc/Makefile. A verb whose tool is missing is skipped by name."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent.parent / "csrc"
TOOL_MISSING = 3  # how a verb of the Makefile says that a tool is not installed; make itself then returns 2

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        shutil.which("gcc") is None or shutil.which("make") is None, reason="needs gcc and make"
    ),
]


def make(verb: str, *arguments: str, path: str | None = None) -> str:
    """Run one verb; what it printed. Skips when the verb says that a tool is not installed."""
    done = subprocess.run(
        ["make", "-j2", "-C", str(CSRC), verb, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PATH": path or os.environ["PATH"]},
    )
    missing = [line for line in done.stderr.splitlines() if "is not installed" in line]
    if missing and done.returncode != 0:
        pytest.skip(missing[0])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_every_engine_of_this_machine_passes_the_tests_in_c() -> None:
    said = make("test")
    for suite in ("oracle", "engines", "hmac", "base64", "table", "sign", "verify", "wipe"):
        assert f"\n{suite} " in "\n" + said
    assert said.count(" 0 failures") == 8


def test_nothing_is_found_by_address_and_undefined_behaviour_sanitizers() -> None:
    said = make("asan")
    assert "the control crashed, as it must" in said
    assert "asan: clean" in said


def test_nothing_undefined_is_done_with_the_real_mapping() -> None:
    assert "ubsan: clean" in make("ubsan")


@pytest.mark.system
def test_no_branch_and_no_address_depends_on_a_secret() -> None:
    said = make("ct")
    assert said.count("some expected") == 6  # two controls at each of three levels of optimisation


@pytest.mark.system
def test_the_fuzz_targets_find_nothing_and_the_control_crashes() -> None:
    said = make("fuzz", "FUZZ_SECONDS=1")
    assert "the control crashed, as it must" in said
    assert "fuzz: clean" in said


@pytest.mark.system
def test_64_bit_arm_signs_the_same_with_and_without_its_instructions() -> None:
    said = make("aarch64")
    assert "sha-ni x2    UNAVAILABLE" in said
    assert "armv8-ce x2  UNAVAILABLE" not in said


@pytest.mark.system
def test_32_bit_arm_signs_the_same_on_a_cpu_with_and_one_without_the_instructions() -> None:
    with_them, without = make("armhf").split("QEMU_CPU=cortex-a7")
    assert "armv8-ce x2  UNAVAILABLE" not in with_them
    assert "armv8-ce x2  UNAVAILABLE" in without


def test_a_verb_says_which_tool_it_misses_and_fails(tmp_path: Path) -> None:
    for tool in ("bash", "make", "mkdir", "sh"):
        if found := shutil.which(tool):
            (tmp_path / tool).symlink_to(found)
    for verb, tool in (("ct", "valgrind"), ("fuzz", "clang"), ("aarch64", "aarch64-linux-gnu-gcc")):
        with pytest.raises(pytest.skip.Exception, match=f"make {verb}: {tool} is not installed"):
            make(verb, path=str(tmp_path))
