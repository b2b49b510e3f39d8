"""How much faster are tokens signed here than by azure-iot-device, and how near is that to what the CPU allows?

The base is `RenewableSasToken.refresh()`, which makes one token. One run, interleaved rounds: each round times every
path once, so that a noisy machine is noisy for all. Every device has a key of its own. Before and after, the tokens of
every path are compared with azure-iot-device's, one by one. "C alone" and the floor (compressions with two streams
interleaved) come from csrc/tests/bench.c, a process that gets three turns in each round, being short.

    python -m benchmarks.bench_signer [--devices N] [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.signer import Signer, TokenBatch

CSRC = Path(__file__).parent.parent / "csrc"
NOW = 1_767_222_000.0
LIFETIME = 3600
EXPIRY = int(NOW) + LIFETIME
NATIVE_TURNS = 3
WANTED = {"arena": 100.0, "list": 50.0, "c": 0.5}
BASE = "azure-iot-device refresh()"


@dataclass(frozen=True, slots=True)
class Row:
    """One path. Nanoseconds per token, and how many times faster than the base."""

    path: str
    best_ns: float
    median_ns: float
    ratio_best: float
    ratio_median: float
    rounds: int
    devices: int
    engine: str


def audience(i: int) -> str:
    """The resource of device i."""
    return f"contoso-hub.azure-devices.net/devices/device-{i:06}"


def key(i: int) -> bytes:
    """Its key, base64."""
    return base64.b64encode(hashlib.sha256(b"device %d" % i).digest())


class Paths:
    """The same fleet in every form that is timed."""

    def __init__(self, devices: int) -> None:
        make_token: Any = RenewableSasToken
        make_key: Any = SymmetricKeySigningMechanism
        self.azure = [make_token(audience(i), make_key(key(i)), None, LIFETIME) for i in range(devices)]
        self.table = KeyTable(devices)
        self.indices = [self.table.add(f"d{i}", bytearray(key(i)), audience(i)) for i in range(devices)]
        self.signer = Signer(self.table)
        self.handles = array("I", self.indices)
        self.batch = TokenBatch()
        # The base holds its last tokens while it makes new ones; a path that makes objects does the same.
        self.kept: dict[str, list[str] | list[bytes]] = {}

    def refresh(self) -> None:
        for token in self.azure:
            token.refresh()

    def arena(self) -> TokenBatch:
        return self.signer.sign_many(self.handles, EXPIRY, self.batch)

    def strings(self) -> list[str]:
        made = self.kept["strings"] = self.signer.sign_many(self.handles, EXPIRY, self.batch).tolist()
        return made

    def singly(self) -> list[bytes]:
        made = self.kept["singly"] = [self.signer.sign_one(index, EXPIRY) for index in self.indices]
        return made

    def singly_as_str(self) -> list[str]:
        made = self.kept["singly_as_str"] = [
            self.signer.sign_one(index, EXPIRY).decode() for index in self.indices
        ]
        return made

    def check(self) -> None:
        """Every path gives what azure-iot-device gives, token for token."""
        self.refresh()
        want = [str(token) for token in self.azure]
        assert self.strings() == want
        assert self.singly_as_str() == want
        batch = self.arena()
        assert [bytes(batch.view(i)) for i in range(len(batch))] == [token.encode() for token in want]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Native:
    """The program in C: one line in, one round, one line out."""

    def __init__(self) -> None:
        subprocess.run(["make", "-s", "-C", str(CSRC), "build/bench"], check=True, timeout=120)
        self.process = subprocess.Popen(
            [str(CSRC / "build/bench")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def round(self) -> dict[str, dict[str, float]]:
        """Nanoseconds by engine and measure."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        engines: dict[str, dict[str, float]] = json.loads(self.process.stdout.readline())["engines"]
        return engines

    def close(self) -> None:
        """Let the program end."""
        self.process.communicate(timeout=30)


def measure(devices: int, rounds: int) -> tuple[list[Row], list[dict[str, dict[str, float]]]]:
    """Every round of every path, and the rounds in C."""
    paths = Paths(devices)
    paths.check()
    work: dict[str, Callable[[], object]] = {
        BASE: paths.refresh,
        "sign_one -> bytes": paths.singly,
        "sign_one -> str": paths.singly_as_str,
        "sign_many -> list[str]": paths.strings,
        "sign_many -> arena": paths.arena,
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    native, native_rounds = Native(), []
    for _ in range(rounds):
        for name, step in work.items():
            times[name].append(timed(step) / devices * 1e9)
        native_rounds += [native.round() for _ in range(NATIVE_TURNS)]
    native.close()
    paths.check()
    engine = paths.signer.engine
    times["C alone, in order"] = [measured[engine]["token"] for measured in native_rounds]
    times["C alone, random order"] = [measured[engine]["token_random"] for measured in native_rounds]
    times["C alone, portable engine"] = [measured["portable"]["token"] for measured in native_rounds]
    base = times[BASE]
    return [
        Row(
            path=name,
            best_ns=min(found),
            median_ns=statistics.median(found),
            ratio_best=min(base) / min(found),
            ratio_median=statistics.median(base) / statistics.median(found),
            rounds=rounds,
            devices=devices,
            engine=engine,
        )
        for name, found in times.items()
    ], native_rounds


def main() -> int:
    """Print a table, or JSON lines; 1 when a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    options = parser.parse_args()
    # A plain function: a mock object would cost the base more than its own work.
    with patch("azure.iot.device.common.auth.sastoken.time.time", lambda: NOW):
        rows, native = measure(options.devices, options.rounds)
    engine = rows[0].engine
    by_path = {row.path: row for row in rows}
    floors = [measured[engine]["compression_2"] for measured in native]
    floor_ns = 3 * min(floors)
    share = floor_ns / by_path["C alone, in order"].best_ns
    share_median = statistics.median(
        3 * f / measured[engine]["token"] for f, measured in zip(floors, native, strict=True)
    )
    verdicts = {
        "sign_many into the arena, times the base": (
            by_path["sign_many -> arena"].ratio_best,
            WANTED["arena"],
        ),
        "sign_many as list[str], times the base": (
            by_path["sign_many -> list[str]"].ratio_best,
            WANTED["list"],
        ),
        "C alone, share of the floor": (share, WANTED["c"]),
    }
    summary = {
        "engine": engine,
        "compression_ns": min(floors),
        "compressions_per_token": 3,
        "floor_ns": floor_ns,
        "share_of_floor_best": share,
        "share_of_floor_median": share_median,
    }
    if options.json:
        for row in rows:
            print(json.dumps(asdict(row)))
        print(json.dumps(summary))
    else:
        show(rows, summary)
        for name, (got, wanted) in verdicts.items():
            print(
                f"{'met   ' if got >= wanted else 'MISSED'}  {name}: {got:.2f}, wanted {wanted:g} (best of rounds)"
            )
    return 0 if all(got >= wanted for got, wanted in verdicts.values()) else 1


def show(rows: list[Row], summary: dict[str, Any]) -> None:
    """The table."""
    table = Table(
        width=110, title=f"{rows[0].devices} devices, {rows[0].rounds} interleaved rounds, {rows[0].engine}"
    )
    for heading in ("path", "best ns", "median ns", "tokens/s", "x base (best)", "x base (median)"):
        table.add_column(heading, justify="left" if heading == "path" else "right")
    for row in rows:
        table.add_row(
            escape(row.path),
            f"{row.best_ns:,.0f}",
            f"{row.median_ns:,.0f}",
            f"{1e9 / row.best_ns:,.0f}",
            f"{row.ratio_best:.1f}",
            f"{row.ratio_median:.1f}",
        )
    Console(width=110).print(table)
    print(
        f"floor: {summary['compressions_per_token']} compressions of {summary['compression_ns']:.1f} ns, two streams, "
        f"= {summary['floor_ns']:.1f} ns; C alone reaches {summary['share_of_floor_best']:.0%} of it "
        f"(median of rounds {summary['share_of_floor_median']:.0%})"
    )


if __name__ == "__main__":
    sys.exit(main())
