"""What the kernel says: where a benchmark ran, how busy the machine was, what a process costs."""

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


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process, in KiB."""

    rss: float
    pss: float

    @classmethod
    def of(cls, pid: int) -> Memory:
        """As the kernel counts it now."""
        fields = {}
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
            name, value = line.split()[:2]
            fields[name.rstrip(":")] = float(value)
        return cls(fields["Rss"], fields["Pss"])

    def slope(self, smaller: Memory, count: int) -> Memory:
        """What each of `count` more cost."""
        return Memory((self.rss - smaller.rss) / count, (self.pss - smaller.pss) / count)


def thread_names(pid: int) -> list[str]:
    """The kernel's names of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sorted((task / "comm").read_text(encoding="utf-8").strip() for task in tasks)


@dataclass(frozen=True, slots=True)
class CpuTime:
    """What one process has used, in seconds, in steps of a clock tick (10 ms)."""

    user: float
    system: float

    @classmethod
    def of(cls, pid: int) -> CpuTime:
        """All threads since its start."""
        # The name, the second field, may hold blanks; it ends with the last parenthesis.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        tick = os.sysconf("SC_CLK_TCK")
        return cls(int(fields[11]) / tick, int(fields[12]) / tick)

    def each(self, before: CpuTime, count: int) -> CpuTime:
        """What each of `count` things cost since `before`, in microseconds."""
        scale = 1e6 / count
        return CpuTime((self.user - before.user) * scale, (self.system - before.system) * scale)

    @property
    def total(self) -> float:
        return self.user + self.system


def cpu_seconds(pid: int) -> float:
    """User and system time."""
    return CpuTime.of(pid).total


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
