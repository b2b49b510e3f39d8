"""`gatewayd check`: everything that is wrong with a configuration, before a daemon meets it.

Offline: no name is looked up, nothing is dialled, no port is bound. It judges exactly as a start does. All problems are
printed, each with its path, its line and what is allowed, and the arithmetic of renewals when the devices are known.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from gatewayd.clock import ClockWatch, SystemClock
from gatewayd.daemon.config_examination import Examination, examine
from gatewayd.daemon.config_load import DEFAULT_CONFIG_FILE
from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.errors import ConfigError, ConfigProblem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `gatewayd check`."""
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG_FILE, metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for a program to read")
    parser.add_argument(
        "--warnings-as-errors",
        action="store_true",
        help=f"exit with {ExitCode.WARNINGS.value} when there are warnings",
    )


def run(args: argparse.Namespace) -> int:
    """Check and print; the exit code says the worst that was found."""
    clock = SystemClock()
    wall = clock.wall() if ClockWatch(clock).trusted else None
    try:
        examination = examine(args.config, os.environ, wall)
    except ConfigError as error:
        return _report(args, None, error.problems, ())
    return _report(args, examination, examination.problems, examination.warnings)


def _report(
    args: argparse.Namespace,
    examination: Examination | None,
    problems: tuple[ConfigProblem, ...],
    warnings: tuple[ConfigProblem, ...],
) -> int:
    if args.json:
        print(json.dumps(_as_json(examination, problems, warnings), indent=2))
    else:
        for problem in problems:
            print(f"error: {problem}")
        for warning in warnings:
            print(f"warning: {warning}")
        for line in _arithmetic(examination):
            print(line)
        print(f"{args.config}: {_verdict(problems, warnings)}")
    if problems:
        return ExitCode.CONFIG
    return ExitCode.WARNINGS if warnings and args.warnings_as_errors else ExitCode.OK


def _verdict(problems: tuple[ConfigProblem, ...], warnings: tuple[ConfigProblem, ...]) -> str:
    if not problems and not warnings:
        return "good"
    parts = [f"{len(problems)} error{'s' * (len(problems) != 1)}"] if problems else ["usable"]
    if warnings:
        parts.append(f"{len(warnings)} warning{'s' * (len(warnings) != 1)}")
    return ", ".join(parts)


def _arithmetic(examination: Examination | None) -> tuple[str, ...]:
    if examination is None or examination.timetable is None:
        return ()
    timetable = examination.timetable
    return (
        f"{examination.devices} devices: {timetable.floor:.2f} renewals/s at the least, "
        f"{timetable.expected_peak}/s expected at the peak; "
        f"all of them reconnect in {timetable.reconnect_all_seconds:.0f} s after an outage",
    )


def _as_json(
    examination: Examination | None,
    problems: tuple[ConfigProblem, ...],
    warnings: tuple[ConfigProblem, ...],
) -> dict[str, object]:
    timetable = examination.timetable if examination is not None else None
    return {
        "usable": not problems,
        "errors": [_problem(one) for one in problems],
        "warnings": [_problem(one) for one in warnings],
        "devices": examination.devices if examination is not None else None,
        "timetable": None
        if timetable is None
        else {
            "renewals_floor_per_s": round(timetable.floor, 4),
            "renewals_expected_peak_per_s": timetable.expected_peak,
            "reconnect_all_seconds": round(timetable.reconnect_all_seconds, 1),
            "feasible": timetable.feasible,
        },
    }


def _problem(problem: ConfigProblem) -> dict[str, object]:
    return {
        "path": problem.path,
        "line": problem.line,
        "problem": problem.problem,
        "allowed": problem.allowed or None,
    }
