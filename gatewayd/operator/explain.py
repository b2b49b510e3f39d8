"""`gatewayd explain CODE`: what a code of the hub means, what gatewayd does about it, and what you can do.

Says what the table of refusals says, which logs, metrics and the status page read too.
"""

from __future__ import annotations

import argparse
import difflib
import sys

from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.protocol.iothub import refusals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `gatewayd explain`."""
    parser.add_argument(
        "code", metavar="CODE", nargs="?", help="such as 401003; without it every known code is listed"
    )


def run(args: argparse.Namespace) -> int:
    """Print what is known; a code that is not known lists its neighbours."""
    if args.code is None:
        for code in refusals.known_codes():
            causes = ", ".join(row.cause for row in refusals.causes(code))
            print(f"{code} {refusals.causes(code)[0].name}: {causes}")
        return ExitCode.OK
    # People paste what they saw: "401003", "#401003", "IoTHubUnauthorized".
    lines = tuple(line for code in _codes_meant(args.code) for line in refusals.explain(code))
    if lines:
        print("\n".join(lines))
        return ExitCode.OK
    known = [str(code) for code in refusals.known_codes()]
    near = difflib.get_close_matches(args.code, known, n=3)
    hint = f"; near it: {', '.join(near)}" if near else "; `gatewayd explain` lists all"
    print(f"{args.code} is not a code gatewayd knows{hint}", file=sys.stderr)
    return ExitCode.FAILED


def _codes_meant(text: str) -> tuple[int, ...]:
    plain = text.strip().removeprefix("#")
    if plain.isascii() and plain.isdigit():
        return (int(plain),) if len(plain) <= 6 else ()
    return tuple(sorted({row.code for row in refusals.TABLE if row.name.lower() == plain.lower()}))
