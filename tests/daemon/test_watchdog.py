"""The watchdog is fed while everything gets on, and only then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gatewayd.daemon.progress import Progress, Stall
from gatewayd.daemon.watchdog import Watchdog
from tests.support.virtual_loop import VirtualLoop

INTERVAL = 30.0


class Rig:
    """A watchdog on a virtual loop, with the times it was fed."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.progress = Progress()
        self.fed: list[float] = []
        self.stalls: list[Stall] = []
        self.watchdog = Watchdog(
            self.loop,
            self.progress,
            INTERVAL,
            feed=lambda: self.fed.append(self.loop.time()),
            stalled=self.stalls.append,
        )

    def work(self, every: float) -> None:
        """A renewal loop that reports."""
        self.progress.report("renewal", self.loop.time())
        self.loop.call_later(every, self.work, every)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.watchdog.stop()
    rig.loop.close()


def longest_gap(times: list[float], end: float) -> float:
    return max(later - earlier for earlier, later in zip(times, [*times[1:], end], strict=True))


def test_it_is_fed_at_once_and_well_within_the_interval(rig: Rig) -> None:
    rig.watchdog.start()
    rig.loop.run_for(300.0)
    assert rig.fed[0] == 0.0
    assert longest_gap(rig.fed, 300.0) <= INTERVAL / 2


def test_it_is_fed_while_the_renewal_loop_reports(rig: Rig) -> None:
    rig.progress.expect("renewal", 20.0, 0.0)
    rig.loop.call_soon(rig.work, 15.0)
    rig.watchdog.start()
    rig.loop.run_for(600.0)
    assert longest_gap(rig.fed, 600.0) <= INTERVAL / 2
    assert rig.stalls == []


def test_it_starves_when_the_renewal_loop_hangs_although_the_event_loop_turns(rig: Rig) -> None:
    rig.progress.expect("renewal", 20.0, 0.0)
    rig.watchdog.start()
    rig.loop.run_for(600.0)
    assert rig.fed[-1] <= 20.0
    assert [stall.room for stall in rig.stalls] == ["renewal"], "said once, when it begins"


def test_it_starves_when_the_event_loop_stands_still(rig: Rig) -> None:
    rig.watchdog.start()
    rig.loop.call_at(45.0, rig.loop.jump, 300.0)
    rig.loop.run_for(400.0)
    assert longest_gap(rig.fed, 400.0) >= 300.0


def test_it_is_fed_again_when_the_room_has_recovered_and_the_next_stall_is_said_too(rig: Rig) -> None:
    rig.progress.expect("renewal", 20.0, 0.0)
    rig.watchdog.start()
    rig.loop.run_for(100.0)
    rig.progress.report("renewal", rig.loop.time())
    rig.loop.run_for(15.0)
    assert rig.fed[-1] > 100.0
    rig.loop.run_for(100.0)
    assert len(rig.stalls) == 2


def test_it_stops(rig: Rig) -> None:
    rig.watchdog.start()
    rig.watchdog.stop()
    rig.watchdog.stop()
    rig.loop.run_for(100.0)
    assert rig.fed == [0.0]
