"""PUBACKs that are late keep their order."""

from __future__ import annotations

from gatewayd.emulator.late_receipts import LateReceipts
from tests.support.virtual_time import VirtualTime


def test_each_leaves_at_its_time_and_none_before_the_one_ahead_of_it() -> None:
    time = VirtualTime(0.0)
    left: list[tuple[int, float]] = []
    rounds: list[float] = []
    now = time.clock.monotonic
    late = LateReceipts(
        time.wheel, lambda packet_id: left.append((packet_id, now())), lambda: rounds.append(now())
    )
    assert not late.waiting
    start = now()
    for packet_id, delay in ((1, 2.0), (2, 0.0), (3, 5.0)):
        late.add(packet_id, start + delay)
    assert late.waiting
    time.pass_seconds(10.0)
    assert left == [(1, start + 2.0), (2, start + 2.0), (3, start + 5.0)]
    assert rounds == [start + 2.0, start + 5.0]
    assert not late.waiting


def test_after_the_end_none_leaves() -> None:
    time = VirtualTime(0.0)
    left: list[int] = []
    late = LateReceipts(time.wheel, left.append, lambda: None)
    late.close()
    late.add(1, time.clock.monotonic() + 1.0)
    late.close()
    time.pass_seconds(10.0)
    assert left == []
