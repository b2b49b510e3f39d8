"""What does one renewal cost the conductor, as the fleet grows? It must stay nearly flat.

Counts the CPU of our own automata only (conductor, session, budget, timetable, heap): every renewal is answered at
once, without handover or network. Also tells the memory of one identity.

    python -m benchmarks.bench_renewal_cost [--devices 100 1000 10000] [--renewals 50000]

Prints one JSON line per fleet size.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import tracemalloc

from gatewayd.flow.renewal import Renewal
from gatewayd.tokens.renewal_timetable import RenewalTimetable
from gatewayd.upstream.budget import ConnectBudget
from gatewayd.upstream.session import HubSession

LIFETIME = 3600.0


def brought_up(devices: int) -> Renewal[int]:
    """A fleet that is connected."""
    budget: ConnectBudget[HubSession[int]] = ConnectBudget(1000)
    renewal: Renewal[int] = Renewal(
        timetable=RenewalTimetable(0.70, 0.85),
        budget=budget,
        lifetime=LIFETIME,
        uniform=lambda least, most: (least + most) / 2.0,
    )
    for identity in range(devices):
        renewal.want(identity, 0.0)
    now = 0.0
    while budget.waiting:
        while (command := renewal.next_command(now)) is not None:
            renewal.connecting(command.identity, now)
            renewal.opened(command.identity, now, now + LIFETIME, now)
        now += 1.0
    return renewal


def renew(renewal: Renewal[int], renewals: int) -> float:
    """CPU seconds of that many renewals, in order of time."""
    done = 0
    started = time.process_time()
    while done < renewals:
        now = renewal.deadline()
        assert now is not None
        renewal.handle_deadline(now)
        while (command := renewal.next_command(now)) is not None:
            renewal.connecting(command.identity, now)
            renewal.renewed(command.identity, now, now + LIFETIME, now)
            done += 1
    return time.process_time() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--renewals", type=int, default=50_000)
    args = parser.parse_args()
    gc.disable()
    for devices in args.devices:
        tracemalloc.start()
        renewal = brought_up(devices)
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        renew(renewal, min(args.renewals, 2 * devices))
        cpu = renew(renewal, args.renewals)
        line = {
            "devices": devices,
            "renewals": args.renewals,
            "microseconds_per_renewal": round(cpu / args.renewals * 1e6, 1),
            "bytes_per_identity": round(memory / devices),
        }
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
