"""Runs another program so that it cannot outlive us: `python -m gatewayd.demo.tether PARENT PROGRAM ...`.

The kernel sends it SIGTERM when its parent ends, however that ends (prctl(2), PR_SET_PDEATHSIG; kept over exec). It
also gets as many open files as the hard limit allows: a fleet needs more than the usual 1,024.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> int:
    """Tie this process to its parent and become the program. Returns only when it cannot."""
    parent, *program = arguments
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        return 1  # the parent ended before the tie held
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        os.execvp(program[0], program)  # noqa: S606  # there is no shell, on purpose
    except OSError as error:
        print(f"{program[0]}: {error.strerror}", file=sys.stderr)
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
