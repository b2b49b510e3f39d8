"""What the exit code of every `gatewayd` command means. The list in docs/configuration.md is made from this one."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Small numbers for people's scripts, sysexits(3) where systemd gives them a name."""

    OK = 0
    FAILED = 1
    USAGE = 2
    WARNINGS = 3
    NEEDS_EXTRA = 4
    CONFIG = 78

    @property
    def says(self) -> str:
        """The meaning, for the reference."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "it worked",
    ExitCode.FAILED: "it failed, and the last line on standard error says why",
    ExitCode.USAGE: "the command line was wrong",
    ExitCode.WARNINGS: "`gatewayd check --warnings-as-errors` found warnings and no error",
    ExitCode.NEEDS_EXTRA: "the command needs an extra that is not installed; its name is printed",
    ExitCode.CONFIG: "the configuration cannot be used; systemd does not restart after it",
}
