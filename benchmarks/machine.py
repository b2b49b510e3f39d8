"""Where a benchmark ran: facts that belong beside its figures."""

from __future__ import annotations

import os
import platform
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def machine_facts() -> dict[str, str | int]:
    """CPU, cores, kernel, Python, OpenSSL."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION.removeprefix("OpenSSL ").split()[0],
    }


@dataclass(slots=True)
class Busy:
    """How much of all CPUs was in use, once the spell is over."""

    share: float = 0.0


@contextmanager
def busy_share() -> Iterator[Busy]:
    """Watch the whole machine while the block runs: others on it make every figure worse."""
    busy = Busy()
    used, total = _jiffies()
    yield busy
    used_now, total_now = _jiffies()
    busy.share = (used_now - used) / max(1, total_now - total)


def _jiffies() -> tuple[int, int]:
    """Used and all, of all CPUs since boot (proc(5), /proc/stat)."""
    line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    user, nice, system, idle, iowait, *rest = (int(field) for field in line.split()[1:9])
    return user + nice + system + sum(rest), user + nice + system + idle + iowait + sum(rest)


def _cpu_model() -> str:
    """As the kernel names it; ARM kernels give only a part number."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "CPU part"):
            return value.strip()
    return platform.machine()
