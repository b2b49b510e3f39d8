"""`gatewayd outbox list | export | purge`: what waits on disk for the hub.

`list` and `export` read beside a running daemon and change nothing; they print JSON, one object a line. Payloads are
the devices' data: `export` prints them only when asked, as base64. `purge` deletes messages for which devices already
have a receipt, so it wants the daemon stopped, and a yes.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path

from gatewayd.clock import SystemClock
from gatewayd.daemon.config_load import DEFAULT_CONFIG_FILE, load_config
from gatewayd.daemon.config_values import Duration, NotAllowed, Surroundings
from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.errors import ConfigError, StoreInUse, StoreTooNew, StoreUnusable
from gatewayd.message import Identity
from gatewayd.store.messages import StoredMessage
from gatewayd.store.reading import OwnedOutbox, Selection, piles, stored

AGE = Duration("1s", "3650d")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `gatewayd outbox`."""
    commands = parser.add_subparsers(metavar="list|export|purge", required=True, dest="verb")
    listing = commands.add_parser("list", help="one line for each device that has messages waiting")
    export = commands.add_parser("export", help="one line for each message")
    export.add_argument("--payloads", action="store_true", help="with the payloads, as base64")
    purge = commands.add_parser("purge", help="delete messages; gatewayd must be stopped")
    purge.add_argument(
        "--older-than", type=_age, metavar="DURATION", help=f"received longer ago; {AGE.allowed}"
    )
    purge.add_argument("--yes", action="store_true", help="do it; without, only say what would be deleted")
    for command in (listing, export, purge):
        where = command.add_mutually_exclusive_group()
        where.add_argument(
            "--config", type=Path, default=DEFAULT_CONFIG_FILE, metavar="FILE", help="default: %(default)s"
        )
        where.add_argument("--path", type=Path, metavar="FILE", help="the outbox itself")
    for command in (export, purge):
        command.add_argument("--device", type=_identity, metavar="ID", help='"device" or "device/module"')


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code says whether it worked."""
    try:
        path = args.path or load_config(args.config).outbox.path
        if args.verb == "list":
            _list(path)
            return ExitCode.OK
        if args.verb == "export":
            _export(path, args.device, payloads=args.payloads)
            return ExitCode.OK
        return _purge(path, args)
    except ConfigError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return ExitCode.CONFIG
    except StoreInUse as error:
        print(f"gatewayd outbox: {error}. Stop gatewayd first", file=sys.stderr)
        return ExitCode.FAILED
    except (StoreTooNew, StoreUnusable) as error:
        print(f"gatewayd outbox: {error}", file=sys.stderr)
        return ExitCode.FAILED


def _list(path: Path) -> None:
    for pile in piles(path):
        line = {
            "device": pile.identity,
            "messages": pile.messages,
            "bytes": pile.size,
            "oldest_received_at": pile.oldest,
            "top_priority": pile.top_priority,
        }
        print(json.dumps(line))


def _export(path: Path, identity: Identity | None, *, payloads: bool) -> None:
    for message in stored(path, identity):
        print(json.dumps(_line(message, payloads=payloads)))


def _line(stored_message: StoredMessage, *, payloads: bool) -> dict[str, object]:
    message = stored_message.message
    line: dict[str, object] = {
        "seq": stored_message.seq,
        "device": str(message.identity),
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
        "priority": stored_message.priority,
        "received_at": stored_message.received_at,
        "expires_at": stored_message.expires_at,
        "payload_bytes": len(message.payload),
    }
    if payloads:
        line["payload"] = base64.b64encode(message.payload).decode("ascii")
    return line


def _purge(path: Path, args: argparse.Namespace) -> int:
    before = SystemClock().wall() - args.older_than if args.older_than is not None else None
    selection = Selection(args.device, before)
    outbox = OwnedOutbox(path)
    try:
        messages, size = outbox.count(selection)
        if not args.yes:
            print(
                f"gatewayd outbox: {messages} messages ({size} bytes) would be deleted. Devices have receipts for them "
                "and will not send them again. Add --yes to delete them",
                file=sys.stderr,
            )
            return ExitCode.FAILED
        print(json.dumps({"deleted": outbox.remove(selection), "bytes": size}))
        return ExitCode.OK
    finally:
        outbox.close()


def _identity(text: str) -> Identity:
    try:
        return Identity.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _age(text: str) -> float:
    try:
        return AGE.read(text, Surroundings())
    except NotAllowed as refusal:
        raise argparse.ArgumentTypeError(f"{refusal}; expected {AGE.allowed}") from refusal
