"""What the daemon asks of the kernel for itself: open files for a fleet, and no core dumps."""

from __future__ import annotations

import resource
from dataclasses import dataclass

# Sockets of one device: its own, its hub connection, and the second one of a handover.
FILES_PER_DEVICE = 3
# Logs, the status page, the loop and what libraries open.
FILES_BESIDE = 128


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What was granted. `devices` is how many fit into `open_files`."""

    open_files: int

    @property
    def devices(self) -> int:
        return max(0, (self.open_files - FILES_BESIDE) // FILES_PER_DEVICE)


def raise_limits() -> ProcessLimits:
    """Take as many open files as the hard limit allows, and leave no core file: it would hold what devices said."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _, hard_core = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard_core))
    granted, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = granted == resource.RLIM_INFINITY
    return ProcessLimits(open_files=1 << 30 if unlimited else granted)
