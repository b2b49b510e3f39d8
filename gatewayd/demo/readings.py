"""What the demo reads of the daemon: its metrics, its log, its memory.

The hub is the judge of the run; this adds what the hub cannot know. Of the log only the renewals are taken (`renewed`,
with `gap_ms` and `drain_ms`) and the last warnings, to be shown when a run fails.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from gatewayd.clock import Clock

SCRAPE_SECONDS = 5.0
KEPT_WARNINGS = 10
RENEWED = "renewed"


@dataclass(frozen=True, slots=True)
class DaemonReading:
    """One scrape."""

    renewals_failed: int
    engine: str


@dataclass(frozen=True, slots=True)
class Handover:
    """One renewal as the daemon timed it, in seconds; `at` is when we heard of it, monotonic."""

    at: float
    gap: float
    drain: float


class DaemonLog:
    """The daemon's log lines, as they come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.handovers: list[Handover] = []
        self.warnings: deque[str] = deque(maxlen=KEPT_WARNINGS)

    def take(self, line: str) -> None:
        """One line of its standard error; what is not a JSON object of its log is a warning too."""
        try:
            said = json.loads(line)
        except ValueError:
            self.warnings.append(line)
            return
        if not isinstance(said, dict):
            self.warnings.append(line)
        elif said.get("message") == RENEWED and "gap_ms" in said:
            gap, drain = float(said["gap_ms"]) / 1000, float(said.get("drain_ms", 0.0)) / 1000
            self.handovers.append(Handover(self._clock.monotonic(), gap, drain))
        elif said.get("level") in {"warning", "error", "critical"}:
            self.warnings.append(line)


class NotThere(Exception):
    """Nothing answers yet, or not in time."""


async def fetch(session: aiohttp.ClientSession, url: str, *, within: float = SCRAPE_SECONDS) -> str:
    """The body of a good answer; NotThere without one."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=within)) as answer:
            body = await answer.text()
            if answer.status != 200:
                raise NotThere(f"{url}: {answer.status}")
            return body
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise NotThere(f"{url}: {type(error).__name__}") from None


def parse_metrics(text: str) -> DaemonReading:
    """What a scrape says; what is missing counts as 0."""
    failed, engine = 0.0, ""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "gatewayd_build_info":
                engine = sample.labels.get("engine", "")
            elif sample.name == "gatewayd_token_renewals_total" and sample.labels.get("result") == "failed":
                failed += sample.value
    return DaemonReading(int(failed), engine)


def rss_kib(pid: int) -> int:
    """The resident memory of a process; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)
