"""`gatewayd token`: one SAS token for a person who debugs, signed as the daemon signs.

The key comes from the device file and is wiped; there is no way to give one on the command line, where every user of
the machine could read it. The token goes to standard output and nothing else does. It opens the hub until it expires:
the default lifetime is short.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from gatewayd.clock import ClockWatch, SystemClock
from gatewayd.credentials.device_file import open_device_file
from gatewayd.credentials.secret_file import wipe
from gatewayd.daemon.config_values import Duration, Hostname, Kind, NotAllowed, Surroundings
from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.errors import ClockUntrusted, DeviceFileError, KeyMalformed
from gatewayd.message import Identity
from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.signer import Signer

LIFETIME = Duration("1s", "24h")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `gatewayd token`."""
    parser.add_argument("--device", required=True, metavar="ID", help='"device" or "device/module"')
    parser.add_argument("--devices", required=True, type=Path, metavar="FILE", help="the CSV file of devices")
    parser.add_argument(
        "--hub", required=True, type=_read_as(Hostname()), metavar="HOST", help="name of the hub"
    )
    parser.add_argument(
        "--lifetime",
        type=_read_as(LIFETIME),
        default="10m",
        metavar="DURATION",
        help=f"{LIFETIME.allowed}; default: %(default)s",
    )
    parser.add_argument("--secondary", action="store_true", help="sign with the secondary key")


def run(args: argparse.Namespace) -> int:
    """Print the token."""
    try:
        print(_token(args))
    except (ClockUntrusted, DeviceFileError, KeyMalformed, LookupError, ValueError) as error:
        print(f"gatewayd token: {error.args[0]}", file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.OK


def _token(args: argparse.Namespace) -> str:
    clock = SystemClock()
    if not ClockWatch(clock).trusted:
        raise ClockUntrusted("the clock of this machine is known wrong; nothing is signed with it")
    identity = Identity.parse(args.device)
    key = _key_of(identity, args.devices, secondary=args.secondary)
    table = KeyTable(capacity=1)
    try:
        index = table.add(str(identity), key, _resource(args.hub, identity))
        return Signer(table).sign_one(index, int(clock.wall() + args.lifetime)).decode("ascii")
    finally:
        table.close()


def _resource(hub: str, identity: Identity) -> str:
    """What the token is for, as people write it; the signer encodes it."""
    module = f"/modules/{identity.module_id}" if identity.module_id is not None else ""
    return f"{hub}/devices/{identity.device_id}{module}"


def _key_of(identity: Identity, path: Path, *, secondary: bool) -> bytearray:
    """A copy of the key, which the caller wipes; every other key is wiped here."""
    chosen: bytearray | None = None
    listed = False
    with open_device_file(path) as file:
        for one, first, second in file:
            wanted = second if secondary else first
            if one == identity:
                listed, chosen = True, wanted
            for key in (first, second):
                if key is not None and key is not chosen:
                    wipe(key)
    if chosen is None:
        raise LookupError(
            f"{identity} has no secondary key in {path}" if listed else f"{path} does not list {identity}"
        )
    return chosen


def _read_as(kind: Kind) -> Callable[[str], object]:
    def read(text: str) -> object:
        try:
            return kind.read(text, Surroundings())
        except NotAllowed as refusal:
            raise argparse.ArgumentTypeError(f"{refusal}; expected {kind.allowed}") from refusal

    return read
