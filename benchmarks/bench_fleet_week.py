"""How flat is a fleet's week? 5,000 devices, one-hour tokens, 7 virtual days, against two other ways to place renewals.

Runs the real conductor, sessions, handovers, budget and timetable against a model hub under virtual time. Every
second's connects are held to the budget, and every token to its expiry, while it runs. Then the same measure is put
to uniform random placement and to a fixed fraction of the life, which must fail it.

    python -m benchmarks.bench_fleet_week [--devices 5000] [--lifetime 3600] [--days 7] [--rival-days 1]

Prints one JSON line per placement. Exit code 0 when ours keeps the promise and both others break it.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import time

from gatewayd.flow.renewal import Timetable
from gatewayd.tokens.renewal_timetable import RenewalTimetable
from tests.support.fleet_parts import FixedFraction, UniformRandom
from tests.support.virtual_fleet import VirtualFleet

DAY = 86_400.0
WINDOW = (0.70, 0.85)


def measure(name: str, timetable: Timetable, devices: int, lifetime: float, days: float) -> dict[str, object]:
    """One fleet's days."""
    fleet = VirtualFleet(devices, lifetime, timetable=timetable, window=WINDOW, seed=1, sweep_every=600.0)
    started = time.process_time()
    fleet.want_all()
    fleet.run(days * DAY)
    cpu = time.process_time() - started
    floor = devices / (WINDOW[1] * lifetime)
    allowed = max(math.ceil(floor) + 1, 1.15 * floor)
    peak = max(fleet.first_cycle.peak, fleet.steady.peak)
    return {
        "placement": name,
        "devices": devices,
        "lifetime_s": lifetime,
        "virtual_days": days,
        "renewals": fleet.renewed,
        "renewals_per_s": round(fleet.renewed / (days * DAY), 3),
        "floor_per_s": round(floor, 3),
        "allowed_peak_per_s": round(allowed, 2),
        "first_cycle_peak_per_s": fleet.first_cycle.peak,
        "steady_peak_per_s": fleet.steady.peak,
        "peak_over_floor": round(peak / floor, 2),
        "within": peak <= allowed,
        "connects_peak_per_s": fleet.connects.peak,
        "budget_per_s": fleet.per_second,
        "expired": fleet.hub.expired_in_use,
        "hub_errors": dict(fleet.hub.errors),
        "lateness_max_s": round(fleet.lateness_most, 3),
        "cpu_s": round(cpu, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--lifetime", type=float, default=3600.0)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--rival-days", type=float, default=1.0)
    args = parser.parse_args()
    gc.disable()  # nothing here makes cycles that outlive a run, and collections would be billed to it
    ours = measure("least loaded", RenewalTimetable(*WINDOW), args.devices, args.lifetime, args.days)
    print(json.dumps(ours), flush=True)
    rivals = [
        measure(name, timetable, args.devices, args.lifetime, args.rival_days)
        for name, timetable in (
            ("uniform random", UniformRandom(*WINDOW)),
            ("fixed fraction", FixedFraction(*WINDOW)),
        )
    ]
    for rival in rivals:
        print(json.dumps(rival), flush=True)
    kept = bool(ours["within"]) and ours["expired"] == 0 and not ours["hub_errors"]
    return 0 if kept and not any(rival["within"] for rival in rivals) else 1


if __name__ == "__main__":
    sys.exit(main())
