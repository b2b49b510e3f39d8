"""`gatewayd demo`: its options, and what must be true before anything is started.

Imports nothing of the extra `demo`, so that `gatewayd --help` works without it; says plainly what is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import sys
from pathlib import Path

from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.demo.settings import Policy, Settings, boot_for, duration_seconds, problems

EXTRA = {"asyncio_mqtt": "asyncio-mqtt", "rich": "rich"}
EXTRA_FOR_PLOT = {"matplotlib": "matplotlib"}
PLOT_SUFFIXES = (".png", ".svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `gatewayd demo`."""
    defaults = Settings()
    parser.add_argument(
        "--devices",
        type=int,
        default=defaults.devices,
        metavar="N",
        help="how many devices (default %(default)s)",
    )
    parser.add_argument(
        "--lifetime",
        type=_duration,
        default=defaults.lifetime,
        metavar="D",
        help="life of a token at the hub, such as 30s or 60m (default 30s)",
    )
    parser.add_argument(
        "--duration",
        type=_duration,
        default=defaults.duration,
        metavar="D",
        help="how long the devices run (default 75s)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=defaults.rate,
        metavar="R",
        help="messages a second from each device (default %(default)s)",
    )
    parser.add_argument(
        "--boot",
        type=_duration,
        default=None,
        metavar="D",
        help="time in which the devices are switched on, one after another (default: 50 devices a second)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="run the same fleet beside it the way the SDKs do, without gatewayd",
    )
    parser.add_argument(
        "--compare-policy",
        choices=[Policy.CUT.value, Policy.FIXED.value],
        default=Policy.CUT.value,
        help="how those devices renew: cut waits until the hub closes the connection, fixed reconnects at 85 %% of "
        "the token's life (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON and nothing else")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the hub's connections over time, as .png or .svg"
    )
    # To see that a bad run is called bad.
    parser.add_argument("--sabotage", choices=["drop", "silence", "kill"], help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """The command. Its exit code is the verdict."""
    missing = missing_parts(plot=args.plot is not None)
    if missing:
        _complain(
            f"gatewayd demo needs {', '.join(missing)}, which the extra `demo` brings: pip install 'gatewayd[demo]'"
        )
        return ExitCode.NEEDS_EXTRA
    settings = settings_from(args)
    found = [*problems(settings), *_problems_of_the_machine(settings)]
    if args.plot is not None:
        found += _problems_of_the_picture(args.plot)
    if found:
        for problem in found:
            _complain(problem)
        return ExitCode.USAGE
    from gatewayd.demo.reporting import run_and_report  # noqa: PLC0415  # needs the extra, which is here now

    return run_and_report(settings, as_json=args.json, plot=args.plot, sabotage=args.sabotage)


def settings_from(args: argparse.Namespace) -> Settings:
    return Settings(
        devices=args.devices,
        lifetime=args.lifetime,
        duration=args.duration,
        rate=args.rate,
        boot=boot_for(args.devices) if args.boot is None else args.boot,
        compare=Policy(args.compare_policy) if args.compare else None,
    )


def missing_parts(*, plot: bool) -> list[str]:
    """The packages of the extra that are not installed and would be needed."""
    needed = {**EXTRA, **(EXTRA_FOR_PLOT if plot else {})}
    return [package for module, package in needed.items() if importlib.util.find_spec(module) is None]


def _problems_of_the_machine(settings: Settings) -> list[str]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and settings.open_files > hard:
        return [
            f"{settings.devices} devices need {settings.open_files} open files in one process, "
            f"and the limit here is {hard} (ulimit -Hn)"
        ]
    return []


def _problems_of_the_picture(path: Path) -> list[str]:
    """Why it could not be written; asked before the run, not after it."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        return [f"--plot {path}: the file's name must end in {' or '.join(PLOT_SUFFIXES)}"]
    if not path.absolute().parent.is_dir():
        return [f"--plot {path}: there is no directory {path.absolute().parent}"]
    return []


def _duration(text: str) -> float:
    try:
        return duration_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
