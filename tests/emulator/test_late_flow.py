"""A late flow: order is kept, every end is late too, and the hold is bounded."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from gatewayd.clock import SystemClock
from gatewayd.emulator import late_flow
from gatewayd.emulator.late_flow import LateFlow
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.transport.stream import Stream


class Recorder:
    """An owner that writes down what reaches it and when."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.got: list[tuple[object, float]] = []
        self.ended = asyncio.Event()

    def note(self, what: object) -> None:
        self.got.append((what, self.clock.monotonic()))

    def stream_ready(self, stream: Stream) -> None:
        self.note("ready")

    def stream_data(self, data: bytes) -> None:
        self.note(data)

    def stream_eof(self) -> None:
        self.note("eof")

    def stream_writable(self) -> None:
        self.note("writable")

    def stream_closed(self, error: Exception | None) -> None:
        self.note("closed")
        self.ended.set()

    @property
    def order(self) -> list[object]:
        return [what for what, _ in self.got]


def late(delay: float) -> tuple[Recorder, LateFlow, list[float]]:
    loop = asyncio.get_running_loop()
    recorder, delays = Recorder(), [delay]
    wheel = DeadlineWheel(loop.time, loop.call_at)
    return (
        recorder,
        LateFlow(recorder, wheel, recorder.clock, lambda: delays[0], lambda: recorder.note("gone")),
        delays,
    )


async def test_without_delay_everything_passes_through() -> None:
    recorder, flow, _ = late(0.0)
    flow.stream_ready(cast(Stream, None))
    flow.stream_data(b"a")
    flow.stream_writable()
    flow.stream_eof()
    flow.stream_closed(None)
    assert recorder.order == ["ready", b"a", "writable", "eof", "closed", "gone"]


async def test_data_and_both_ends_arrive_late_and_in_order() -> None:
    recorder, flow, delays = late(0.1)
    began = recorder.clock.monotonic()
    flow.stream_data(b"a")
    flow.stream_eof()
    delays[0] = 0.0
    flow.stream_closed(None)  # the delay is over, yet this waits behind the rest
    assert recorder.order == []
    async with asyncio.timeout(5):
        await recorder.ended.wait()
    assert recorder.order == [b"a", "eof", "closed", "gone"]
    assert all(moment - began >= 0.1 for _, moment in recorder.got)


async def test_after_the_hold_everything_passes_through_again() -> None:
    recorder, flow, delays = late(0.05)
    flow.stream_data(b"a")
    delays[0] = 0.0
    flow.stream_closed(None)
    async with asyncio.timeout(5):
        await recorder.ended.wait()
    flow.stream_data(b"b")
    assert recorder.order == [b"a", "closed", "gone", b"b"]


async def test_a_flood_ends_the_hold_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_flow, "MAX_HELD_BYTES", 4)
    recorder, flow, _ = late(0.05)
    flow.stream_data(b"abc")
    flow.stream_data(b"de")
    assert recorder.order == [b"abc"]
    flow.stream_closed(None)
    async with asyncio.timeout(5):
        await recorder.ended.wait()
    assert recorder.order == [b"abc", b"de", "closed", "gone"]
