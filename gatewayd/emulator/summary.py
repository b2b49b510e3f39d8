"""The hub's own account of a run, for tests, the demo and whoever asks over HTTP."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

from gatewayd.emulator.connect_counts import GapSummary
from gatewayd.emulator.event_log import HubCode
from gatewayd.emulator.hub_state import HubState


@dataclass(frozen=True, slots=True)
class HubSummary:
    """`sends` are the telemetry messages that came, taken or not; `messages` those that were taken."""

    seconds: float
    connects: int
    connects_peak_per_s: int
    connects_peak_per_aligned_s: int
    connects_per_s: list[int]
    open_connections: int
    connections_without_connect: int
    handshakes_failed: int
    planned_disconnects: int
    unplanned_disconnects: int
    hub_errors: dict[str, int]
    hub_error_causes: dict[str, int]
    handover_gap_ms: GapSummary
    sends: int
    sends_peak_per_s: int
    sends_peak_per_aligned_s: int
    sends_per_s: list[int]
    sends_shaped: int
    sends_dropped: int
    messages_at_hub: int
    messages_distinct: int
    messages_duplicate: int
    messages_without_id: int
    messages_unaccounted: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def summarize(state: HubState, started_at: float) -> HubSummary:
    """What happened at the hub so far."""
    now = state.now()
    connects, sends, throttle = state.counts.rate, state.sends, state.send_throttle
    events, ledger = state.events, state.ledger
    return HubSummary(
        seconds=round(now - started_at, 3),
        connects=connects.total,
        connects_peak_per_s=connects.sliding_peak,
        connects_peak_per_aligned_s=connects.aligned_peak,
        connects_per_s=connects.series(now),
        open_connections=len(state.open),
        connections_without_connect=state.without_connect,
        handshakes_failed=state.handshakes_failed,
        planned_disconnects=events.planned,
        unplanned_disconnects=events.unplanned,
        hub_errors=_as_text(events.errors),
        hub_error_causes={
            f"{code:d}/{cause}": count for (code, cause), count in sorted(events.causes.items())
        },
        handover_gap_ms=state.counts.gaps(),
        sends=sends.total,
        sends_peak_per_s=sends.sliding_peak,
        sends_peak_per_aligned_s=sends.aligned_peak,
        sends_per_s=sends.series(now),
        sends_shaped=throttle.shaped,
        sends_dropped=throttle.dropped,
        messages_at_hub=ledger.received,
        messages_distinct=ledger.distinct,
        messages_duplicate=ledger.duplicates,
        messages_without_id=ledger.without_id,
        messages_unaccounted=ledger.unaccounted,
    )


def _as_text(errors: Counter[HubCode]) -> dict[str, int]:
    return {f"{code:d}": count for code, count in sorted(errors.items())}
