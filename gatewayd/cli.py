"""`gatewayd COMMAND`: arguments and subcommands, no logic.

A subcommand lives in a module with `add_arguments(parser)` and `run(args) -> exit code`, named in one table here. Only
the module of the command that was asked for is imported, so that `gatewayd check` loads neither the daemon nor plots.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Protocol, cast

from gatewayd.daemon.exit_codes import ExitCode


class Program(Protocol):
    """What the module of a subcommand offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A name, what it is for, and where it lives. `extra` is the optional dependencies it needs, "" for none."""

    name: str
    says: str
    module: str
    extra: str = ""


SUBCOMMANDS: tuple[Subcommand, ...] = (
    Subcommand("run", "run the daemon", "gatewayd.daemon.lifecycle"),
    Subcommand("check", "check a configuration, offline", "gatewayd.operator.check"),
    Subcommand("token", "print one SAS token, to debug with", "gatewayd.operator.token"),
    Subcommand("outbox", "look into the messages that wait on disk", "gatewayd.operator.outbox"),
    Subcommand("explain", "explain an error code of the hub", "gatewayd.operator.explain"),
    Subcommand("emulator", "run a small strict IoT Hub on this machine", "gatewayd.emulator.program"),
    Subcommand("demo", "show the main job on the embedded hub", "gatewayd.demo.program", extra="demo"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="gatewayd",
        description="Keeps a fleet of devices at Azure IoT Hub from one gateway.",
        epilog="`gatewayd COMMAND --help` says more.",
    )
    parser.add_argument("--version", action="version", version=f"gatewayd {metadata.version('gatewayd')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    program: Program | None = None
    for subcommand in SUBCOMMANDS:
        own = commands.add_parser(subcommand.name, help=subcommand.says, description=_description(subcommand))
        if subcommand.name == _command_in(words):
            program = _load(subcommand)
            if program is None:
                return ExitCode.NEEDS_EXTRA
            program.add_arguments(own)
    args = parser.parse_args(words)
    assert program is not None, "argparse lets only a command of the table pass"
    try:
        return program.run(args)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell reports it
    except BrokenPipeError:
        # The reader of our output has seen enough: `gatewayd explain | head`.
        sys.stderr.close()
        return ExitCode.OK


def _command_in(words: Sequence[str]) -> str:
    """The first word that is not an option: no option before the command takes a value."""
    return next((word for word in words if not word.startswith("-")), "")


def _load(subcommand: Subcommand) -> Program | None:
    """The program; None, with words on standard error, when it needs an extra that is not installed."""
    try:
        return cast(Program, importlib.import_module(subcommand.module))
    except ModuleNotFoundError as error:
        ours = (error.name or "").partition(".")[0] == "gatewayd"
        if ours or not subcommand.extra:
            raise
        print(
            f"`gatewayd {subcommand.name}` needs {error.name}, which is not installed. "
            f"Install the extra: pip install 'gatewayd[{subcommand.extra}]'",
            file=sys.stderr,
        )
        return None


def _description(subcommand: Subcommand) -> str:
    return f"{subcommand.says[0].upper()}{subcommand.says[1:]}."
