"""What the process asks of the kernel, asked in a process of its own: limits cannot be given back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gatewayd.daemon.process_limits import FILES_BESIDE, FILES_PER_DEVICE, ProcessLimits

ASK = """
import json, resource
from gatewayd.daemon.process_limits import raise_limits
before, core = {before}, resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_NOFILE, before)
limits = raise_limits()
print(json.dumps([limits.open_files, resource.getrlimit(resource.RLIMIT_NOFILE),
                  resource.getrlimit(resource.RLIMIT_CORE), core[1]]))
"""


def asked(soft: int, hard: int) -> tuple[int, list[int], list[int], int]:
    """Start with these limits on open files: what was granted, and the limits on files and core dumps afterwards."""
    ran = subprocess.run(
        [sys.executable, "-c", ASK.format(before=(soft, hard))], capture_output=True, text=True, timeout=30
    )
    assert ran.returncode == 0, ran.stderr
    open_files, files, core, hard_core = json.loads(ran.stdout)
    return open_files, files, core, hard_core


def test_as_many_files_as_the_hard_limit_allows() -> None:
    granted, files, _, _ = asked(256, 1024)
    assert granted == 1024
    assert files == [1024, 1024]


def test_a_limit_that_is_at_its_bound_is_left_alone() -> None:
    assert asked(512, 512)[0] == 512


def test_no_core_file_is_left_and_the_hard_limit_stays_the_administrators() -> None:
    _, _, core, hard_core = asked(512, 512)
    assert core == [0, hard_core]


@pytest.mark.parametrize(
    ("open_files", "devices"),
    [(0, 0), (FILES_BESIDE, 0), (FILES_BESIDE + FILES_PER_DEVICE, 1), (FILES_BESIDE + 3 * 1000 + 2, 1000)],
)
def test_each_device_needs_three_sockets_and_the_rest_its_share(open_files: int, devices: int) -> None:
    assert ProcessLimits(open_files).devices == devices
