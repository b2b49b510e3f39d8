"""`gatewayd emulator`: a strict small IoT Hub on the desk.

Listens where it is told, knows the devices of a file or makes up a number of them from one group key, writes its event
log as JSON lines, and says on start how to point a device or gatewayd at it. Ends on SIGINT or SIGTERM with its account
on standard output and exit code 0; 2 when it cannot start, with the reason on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from gatewayd.clock import SystemClock
from gatewayd.emulator.certificate import make_certificate
from gatewayd.emulator.connect_throttle import OverRate
from gatewayd.emulator.control import ControlServer
from gatewayd.emulator.hub import HubEmulator
from gatewayd.emulator.hub_state import HubSettings
from gatewayd.emulator.registry import (
    MAX_IDENTITIES,
    Registry,
    RegistryFileError,
    decode_key,
    derived_identities,
    load_registry,
)

# Of no worth: whoever starts an emulator without a group key gets devices anybody can compute.
DESK_GROUP_KEY = base64.b64encode(b"gatewayd emulator, a desk key...").decode()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the subcommand."""
    parser.add_argument(
        "--listen", default="127.0.0.1:8883", metavar="ADDRESS:PORT", help="default %(default)s; port 0: any"
    )
    parser.add_argument(
        "--websocket-port",
        type=int,
        metavar="PORT",
        help="MQTT over WebSocket too, at the same address; SDKs dial 443; 0: any",
    )
    parser.add_argument(
        "--hostname",
        help="the hub's name in tokens, user names and the certificate (default: the listen address)",
    )
    devices = parser.add_mutually_exclusive_group()
    devices.add_argument(
        "--devices", type=Path, metavar="FILE", help="id,primary_key,secondary_key[,status] as CSV, or JSON"
    )
    devices.add_argument(
        "--device-count", type=int, metavar="N", help="device-00000 and on, keys derived (default 10)"
    )
    parser.add_argument(
        "--group-key",
        default=DESK_GROUP_KEY,
        metavar="BASE64",
        help="of the derived keys (default: a public one)",
    )
    parser.add_argument(
        "--write-devices", type=Path, metavar="FILE", help="write the derived devices as CSV for gatewayd"
    )
    parser.add_argument("--write-ca", type=Path, metavar="FILE", help="write the root to trust, PEM")
    parser.add_argument(
        "--grace",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds an expired token is left on a connection",
    )
    parser.add_argument(
        "--skew", type=float, default=300.0, metavar="S", help="seconds an expired token still opens one"
    )
    parser.add_argument(
        "--connect-rate", type=int, default=100, metavar="N", help="new connections per second; 0: no limit"
    )
    parser.add_argument(
        "--over-rate", type=OverRate, choices=list(OverRate), default=OverRate.DROP, help="what is over it"
    )
    parser.add_argument(
        "--send-rate",
        type=int,
        default=0,
        metavar="N",
        help="messages per second from all devices (S1: 100); 0: no limit",
    )
    parser.add_argument(
        "--rsa", action="store_true", help="RSA-2048 certificate, as the service (default P-256)"
    )
    parser.add_argument("--tls13", action="store_true", help="allow TLS 1.3 too")
    parser.add_argument(
        "--control", metavar="ADDRESS:PORT", help="HTTP control on loopback: summary, events, faults"
    )
    parser.add_argument("--events", metavar="FILE", help="JSON lines of the event log; - is standard output")
    parser.add_argument("--json", action="store_true", help="greet with one JSON line, for programs")


def run(args: argparse.Namespace) -> int:
    """Run the hub until a signal ends it."""
    try:
        return asyncio.run(_run(args))
    except (OSError, ValueError, RegistryFileError) as error:
        sys.stderr.write(f"gatewayd emulator: {error}\n")
        return 2


async def _run(args: argparse.Namespace) -> int:
    _allow_many_files()
    host, port = parse_address(args.listen)
    if args.websocket_port is not None and not 0 <= args.websocket_port <= 65535:
        raise ValueError(f"--websocket-port {args.websocket_port}: allowed 0 to 65535")
    hostname = args.hostname or host
    registry = make_registry(args)
    certificate = make_certificate(hostname, [host], wall=SystemClock().wall(), use_rsa=args.rsa)
    hub = HubEmulator(
        registry,
        HubSettings(hostname, skew_seconds=args.skew, grace_seconds=args.grace),
        certificate,
        connects_per_second=args.connect_rate,
        over_rate=args.over_rate,
        tls13=args.tls13,
    )
    hub.send_throttle.per_second = args.send_rate
    control = ControlServer(hub)
    stop = asyncio.Event()
    with _event_file(args.events) as events, _signals(stop):
        hub.events.write_to(events, asyncio.get_running_loop().call_soon)
        try:
            if args.write_ca:
                certificate.write_authority(args.write_ca)
            if args.write_devices:
                write_devices(registry, args.write_devices)
            await hub.start(host, port, websocket_port=args.websocket_port)
            if args.control:
                await control.start(*parse_address(args.control))
            _say(as_json(hub, control.port) if args.json else greeting(hub, control.port, args.write_ca))
            await stop.wait()
        finally:
            summary = hub.summary()
            await control.close()
            await hub.stop()
            hub.events.write_to(None)
    _say(json.dumps(summary.as_dict()))
    return 0


def make_registry(args: argparse.Namespace) -> Registry:
    """The devices of the file, or derived ones."""
    if args.devices:
        return load_registry(args.devices)
    count = 10 if args.device_count is None else args.device_count
    if not 0 <= count <= MAX_IDENTITIES:
        raise ValueError(f"--device-count {count}: allowed 0 to {MAX_IDENTITIES}")
    return Registry(derived_identities(decode_key(args.group_key, "the group"), count))


def write_devices(registry: Registry, path: Path) -> None:
    """The registry as the CSV file gatewayd reads; readable by its owner alone."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    lines = ["id,primary_key,secondary_key"]
    for identity in registry:
        primary, secondary = (base64.b64encode(key).decode() for key in identity.keys)
        lines.append(f"{identity.name},{primary},{secondary}")
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:8883" or "[::1]:8883"."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r}: expected ADDRESS:PORT")
    return host.strip("[]"), int(port)


def greeting(hub: HubEmulator, control_port: int, authority: Path | None) -> str:
    """How to point a device or gatewayd at the hub."""
    host, port = hub.address
    name = hub.settings.hostname
    trusted = str(authority) if authority else "(start with --write-ca FILE)"
    example = next(iter(hub.registry), None)
    lines = [
        f"hub {name} on {host}:{port}, {len(hub.registry)} identities,"
        f" grace {hub.settings.grace_seconds:g} s, {hub.throttle.per_second} connects/s",
        "gatewayd:  [hub]",
        f'           hostname = "{name}"',
        f'           trusted_ca = "{trusted}"',
        "           [hub.endpoints]",
        f'           mqtt = "{host}:{port}"',
    ]
    if example is not None:
        lines.append(
            f"device:    HostName={name};DeviceId={example.name};SharedAccessKey=<its key>,"
            f" trusting {trusted}; SDKs insist on port 8883"
        )
    if hub.websocket_address is not None:
        lines.append(
            f"websocket: wss://{host}:{hub.websocket_address[1]}/$iothub/websocket, subprotocol mqtt"
        )
    if control_port:
        lines.append(f"control:   curl http://127.0.0.1:{control_port}/summary")
    return "\n".join(lines)


def as_json(hub: HubEmulator, control_port: int) -> str:
    """The greeting for a program that started the hub."""
    host, port = hub.address
    return json.dumps(
        {
            "hostname": hub.settings.hostname,
            "host": host,
            "port": port,
            "websocket_port": hub.websocket_address[1] if hub.websocket_address else None,
            "control_port": control_port,
            "identities": len(hub.registry),
        }
    )


@contextlib.contextmanager
def _event_file(name: str | None) -> Iterator[TextIO | None]:
    if name is None:
        yield None
    elif name == "-":
        yield sys.stdout
    else:
        with Path(name).open("w", encoding="utf-8") as file:
            yield file


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _allow_many_files() -> None:
    """A file descriptor a connection: the usual soft limit of 1,024 is a small fleet."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
