"""Everything there is to say about a configuration file: its keys, their rules, and the files it names.

`gatewayd check` prints it, a start and a reload require it: all three judge alike, because they call this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gatewayd.daemon.config import Config
from gatewayd.daemon.config_files import inspect_files
from gatewayd.daemon.config_load import Reading, read_file, surroundings_of, with_lines
from gatewayd.daemon.config_rules import doubts
from gatewayd.errors import ConfigError, ConfigProblem
from gatewayd.tokens.renewal_timetable import Feasibility


@dataclass(frozen=True, slots=True)
class Examination:
    """The verdict on a file. `devices` and `timetable` are None when the device file could not be read."""

    reading: Reading
    problems: tuple[ConfigProblem, ...]
    warnings: tuple[ConfigProblem, ...]
    devices: int | None
    timetable: Feasibility | None

    def usable(self) -> Config:
        """The configuration; ConfigError with every problem when there is one."""
        if self.problems:
            raise ConfigError(self.problems)
        return self.reading.config


def examine(path: Path, environ: Mapping[str, str], wall: float | None) -> Examination:
    """Examine a file. `wall` is the time, None while it is not known.

    ConfigError when the file is no configuration at all, so that nothing else can be said.
    """
    reading = read_file(path, environ)
    credentials = surroundings_of(path, environ).credentials
    findings = inspect_files(reading.config, credentials=credentials, wall=wall, skip=reading.wrong)
    warnings = (*doubts(reading.config, skip=reading.wrong), *findings.warnings)
    return Examination(
        reading=reading,
        problems=(*reading.problems, *with_lines(findings.problems, reading.text)),
        warnings=with_lines(warnings, reading.text),
        devices=findings.devices,
        timetable=findings.timetable,
    )
