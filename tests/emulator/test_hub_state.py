"""What the connections of a hub share."""

from __future__ import annotations

import asyncio

from gatewayd.clock import ManualClock
from gatewayd.emulator.connect_counts import ConnectCounts
from gatewayd.emulator.connect_throttle import ConnectThrottle
from gatewayd.emulator.event_log import EventLog, HubCode, Operation
from gatewayd.emulator.faults import FaultBoard, FaultKind
from gatewayd.emulator.hub_state import HubSettings, HubState
from gatewayd.emulator.ledger import Ledger
from gatewayd.emulator.rates import PerSecond
from gatewayd.emulator.registry import Registry
from gatewayd.transport.deadline_wheel import DeadlineWheel


def state(clock: ManualClock) -> HubState:
    loop = asyncio.get_running_loop()
    return HubState(
        settings=HubSettings("hub.test"),
        registry=Registry(),
        clock=clock,
        wheel=DeadlineWheel(loop.time, loop.call_at),
        throttle=ConnectThrottle(),
        faults=FaultBoard(),
        events=EventLog(),
        ledger=Ledger(),
        counts=ConnectCounts(0.0),
        sends=PerSecond(0.0),
    )


async def test_an_event_carries_the_hub_s_own_time() -> None:
    hub = state(ManualClock(wall=1000.0, monotonic=5.0))
    hub.settings.clock_offset = 300.0
    event = hub.log(Operation.HUB, HubCode.INTERNAL, cause="why")
    assert (event.wall, event.monotonic, event.cause) == (1300.0, 5.0, "why")


async def test_a_fault_is_taken_by_its_value_and_used_up() -> None:
    hub = state(ManualClock())
    assert hub.take_fault(FaultKind.PUBACK_DELAY, "a") is None
    hub.faults.arm(FaultKind.PUBACK_DELAY, now=0.0, count=1, value=0.25)
    assert hub.take_fault(FaultKind.PUBACK_DELAY, "a") == 0.25
    assert hub.take_fault(FaultKind.PUBACK_DELAY, "a") is None


async def test_sessions_and_twins_are_made_once_per_identity() -> None:
    hub = state(ManualClock())
    assert hub.session("a") is hub.session("a") is not hub.session("b")
    assert hub.twin("a") is hub.twin("a") is not hub.twin("b")
    assert HubSettings("h").skew_seconds == 300.0
    assert HubSettings("h").grace_seconds == 600.0


async def test_the_end_of_the_last_stream_is_told() -> None:
    class Connection:
        def end(self, code: HubCode, cause: str, text: str = "", detail: str = "") -> None: ...
        def plan_expiry(self) -> None: ...
        def send_cloud_messages(self) -> None: ...
        def publish(self, topic_filter: str, topic: str, payload: bytes) -> bool:
            return False

    hub = state(ManualClock())
    first, second = Connection(), Connection()
    hub.all |= {first, second}
    hub.forget(first)
    assert not hub.empty.is_set()
    hub.forget(second)
    assert hub.empty.is_set()
