"""The end of a token on an open connection, in virtual time."""

from __future__ import annotations

from gatewayd.emulator.connect_counts import ConnectCounts
from gatewayd.emulator.connect_throttle import ConnectThrottle
from gatewayd.emulator.event_log import EventLog
from gatewayd.emulator.faults import FaultBoard
from gatewayd.emulator.hub_state import HubSettings, HubState
from gatewayd.emulator.ledger import Ledger
from gatewayd.emulator.rates import PerSecond
from gatewayd.emulator.registry import Registry
from gatewayd.emulator.token_end import TokenEnd
from tests.support.virtual_time import VirtualTime

BEGAN = 1_000_000.0


class Rig:
    def __init__(self, lifetime: int, *, grace: float = 0.0) -> None:
        self.time = VirtualTime(BEGAN)
        self.hub = HubState(
            settings=HubSettings("hub.test", grace_seconds=grace),
            registry=Registry(),
            clock=self.time.clock,
            wheel=self.time.wheel,
            throttle=ConnectThrottle(),
            faults=FaultBoard(),
            events=EventLog(),
            ledger=Ledger(),
            counts=ConnectCounts(0.0),
            sends=PerSecond(0.0),
        )
        self.ended: list[tuple[float, float]] = []
        self.token = TokenEnd(self.hub, int(BEGAN) + lifetime, self._on_ended)
        self.token.plan()

    def _on_ended(self, late: float) -> None:
        self.ended.append((self.time.clock.wall() - BEGAN, late))


def test_a_far_end_is_noticed_when_it_comes_and_once() -> None:
    rig = Rig(3600, grace=300.0)
    rig.time.pass_seconds(3899.0)
    assert rig.ended == []
    rig.time.pass_seconds(100.0)
    assert rig.ended == [(3900.0, 0.0)]


def test_a_changed_grace_or_clock_moves_the_end() -> None:
    rig = Rig(3600, grace=300.0)
    rig.hub.settings.grace_seconds = 0.0
    rig.hub.settings.clock_offset = 3000.0
    rig.token.plan()
    rig.time.pass_seconds(601.0)
    assert [moment for moment, _ in rig.ended] == [600.0]


def test_after_the_end_of_the_connection_nothing_is_noticed() -> None:
    rig = Rig(10)
    rig.token.close()
    rig.time.pass_seconds(100.0)
    assert rig.ended == []
