"""What a message costs on the store's thread: append, lease, settle, in groups.

Question: how much CPU (user + system, fsync's share of the kernel included) does the thread need for a message of 256
bytes, and how many bytes reach the disk for it?

    python -m benchmarks.bench_store [DIRECTORY]
"""

from __future__ import annotations

import gc
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gatewayd.message import Identity, Telemetry
from gatewayd.store.commands import Append, Command, Lease, Settle
from gatewayd.store.keeper import Keeper, Listeners
from gatewayd.store.messages import Health, NewMessage, StoredMessage, WhenFull
from gatewayd.store.outbox import measure
from gatewayd.store.retention import Retention

DEVICES = 500
MESSAGES = 50_000


def main() -> None:
    directory = sys.argv[1] if len(sys.argv) > 1 else None
    print(
        f"{MESSAGES} messages of 256 B from {DEVICES} devices; us of CPU for a message, bytes written for one"
    )
    for group in (1, 10, 100, 1000):
        with tempfile.TemporaryDirectory(dir=directory) as place:
            messages = MESSAGES if group >= 100 else MESSAGES // 10
            report(group, messages, Path(place) / "outbox.db")


def report(group: int, messages: int, path: Path) -> None:
    """One line: the three verbs in groups of `group`."""
    keeper = Keeper(path, Retention(1 << 40, WhenFull.STOP), time.time, Listeners(ignore, ignore, ignore))
    keeper.open()
    devices = [Identity(f"device-{number:05}") for number in range(DEVICES)]
    news = [new(devices[number % DEVICES]) for number in range(messages)]
    appends: list[list[Command]] = [
        [Append((one,), ignore, measure(one.message)) for one in news[begin : begin + group]]
        for begin in range(0, messages, group)
    ]
    appended = spent(keeper, appends)
    size = keeper.size
    found: list[StoredMessage] = []

    def keep(answer: tuple[StoredMessage, ...] | Health) -> None:
        assert not isinstance(answer, Health), "this disk works"
        found.extend(answer)

    # Everybody in turn, as a drain goes on: the oldest of each.
    leases: list[list[Command]] = [
        [Lease(devices[number % DEVICES], 1, 1 << 20, keep) for number in range(begin, begin + group)]
        for begin in range(0, messages, group)
    ]
    leased = spent(keeper, leases)
    settles: list[list[Command]] = [
        [Settle((one.seq,)) for one in found[begin : begin + group]] for begin in range(0, messages, group)
    ]
    settled = spent(keeper, settles)
    assert keeper.messages == 0
    keeper.close()
    print(
        f"groups of {group:4}: append {appended[0]:6.1f} us {appended[1]:7.0f} B"
        f"   lease {leased[0]:6.1f} us   settle {settled[0]:6.1f} us {settled[1]:7.0f} B"
        f"   counted {size / messages:.0f} B, file {path.stat().st_size / messages:.0f} B a message"
    )


def new(identity: Identity) -> NewMessage:
    topic = f"devices/{identity}/messages/events/%24.ct=application%2Fjson"
    return NewMessage(Telemetry(identity, topic, bytes(256), 1), 1, 1.8e9, None)


def spent(keeper: Keeper, batches: Sequence[Sequence[Command]]) -> tuple[float, float]:
    """CPU and written bytes for one command."""
    gc.collect()
    gc.freeze()  # what the benchmark holds is not the store's
    commands = sum(map(len, batches))
    written, before = bytes_written(), cpu()
    for batch in batches:
        for tell, arguments in keeper.run(batch):
            tell(*arguments)
        keeper.empty_wal()
    return (cpu() - before) / commands * 1e6, (bytes_written() - written) / commands


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def bytes_written() -> int:
    """What this process gave to the kernel to write (proc(5), /proc/pid/io)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.partition(":")[2] for line in lines if line.startswith("wchar")))


def ignore(*_: object) -> None:
    """Nobody listens."""


if __name__ == "__main__":
    _: Callable[[], None] = main
    main()
