"""Everything that can happen to a hub session at every stage of an attempt: one outcome each, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gatewayd.emulator.event_log import HubCode
from gatewayd.emulator.faults import FaultKind
from gatewayd.upstream.handover import HandoverTimeouts, Mode, Stage
from tests.support.hub_session_rig import HubSessionRig, hub_session_rig

TIMEOUTS = HandoverTimeouts()


async def dialing(rig: HubSessionRig) -> None:
    await rig.open()
    await rig.hub.blackhole(60.0)
    rig.renew()
    await rig.until(lambda: len(rig.line.flows) == 2)


async def dialing_alone(rig: HubSessionRig) -> None:
    await rig.hub.blackhole(60.0)
    rig.ask_open()
    await rig.until(lambda: len(rig.line.flows) == 1)


async def poised(rig: HubSessionRig) -> None:
    await rig.open()
    rig.renew(rig.time.clock.monotonic() + 10.0)
    await rig.until_stage(Stage.POISED)


async def quiescing(rig: HubSessionRig) -> None:
    await rig.open()
    rig.hub.arm(FaultKind.PUBACK_DROP, count=1)
    rig.owner.offer(rig.session, 3)
    await rig.until(lambda: rig.hub.ledger.received == 3)
    rig.renew()
    await rig.until_stage(Stage.QUIESCING)


async def draining(rig: HubSessionRig) -> None:
    await quiescing(rig)
    rig.pass_seconds(TIMEOUTS.patience)
    assert rig.stage is Stage.DRAINING


async def leaving(rig: HubSessionRig) -> None:
    """CLOSING_OLD, in fast mode CROSSING with a hub that does not answer."""
    await rig.open()
    rig.old.blackhole = True
    rig.hub.arm(FaultKind.NO_CONNACK, count=1)
    if rig.session._carrier.settings.mode is Mode.STRICT:
        rig.hub.faults.clear()
    rig.renew()
    await rig.until(lambda: rig.stage in {Stage.CLOSING_OLD, Stage.CROSSING})


async def connecting(rig: HubSessionRig) -> None:
    await rig.open()
    rig.hub.arm(FaultKind.NO_CONNACK, count=1)
    rig.renew()
    await rig.until_stage(Stage.CONNECTING)
    await rig.until(lambda: rig.hub.events.errors[HubCode.UNAVAILABLE] == 1)


async def connecting_alone(rig: HubSessionRig) -> None:
    rig.hub.arm(FaultKind.NO_CONNACK, count=1)
    rig.ask_open()
    await rig.until(lambda: rig.hub.events.errors[HubCode.UNAVAILABLE] == 1)


async def settling(rig: HubSessionRig) -> None:
    await rig.open()
    rig.old.blackhole = True
    rig.renew()
    await rig.until_stage(Stage.SETTLING)


def old_cut(rig: HubSessionRig) -> None:
    rig.old.reset()


def new_cut(rig: HubSessionRig) -> None:
    rig.new.reset()


def hub_dies(rig: HubSessionRig) -> None:
    rig.line.reset()


def closed_by_us(rig: HubSessionRig) -> None:
    rig.close()


def nothing(rig: HubSessionRig) -> None:
    """Only time passes."""


Reach = Callable[[HubSessionRig], object]
STRICT, FAST = Mode.STRICT, Mode.FAST
# Where it stands, what happens, and every outcome told from then on.
CASES: list[tuple[Mode, Reach, Reach, list[str]]] = [
    (STRICT, dialing_alone, new_cut, ["open_failed"]),
    (STRICT, dialing_alone, closed_by_us, ["closed"]),
    (STRICT, dialing_alone, nothing, ["open_failed"]),
    (STRICT, connecting_alone, new_cut, ["open_failed"]),
    (STRICT, connecting_alone, closed_by_us, ["closed"]),
    (STRICT, connecting_alone, nothing, ["open_failed"]),
    (STRICT, dialing, old_cut, ["lost"]),
    (STRICT, dialing, new_cut, ["renewal_failed"]),
    (STRICT, dialing, closed_by_us, ["closed"]),
    (STRICT, dialing, nothing, ["renewal_failed"]),
    (STRICT, poised, old_cut, ["renewed"]),
    (STRICT, poised, new_cut, ["renewal_failed"]),
    (STRICT, poised, closed_by_us, ["closed"]),
    (STRICT, poised, nothing, ["renewed"]),
    (STRICT, quiescing, old_cut, ["renewed"]),
    (STRICT, quiescing, new_cut, ["renewal_failed"]),
    (STRICT, quiescing, closed_by_us, ["closed"]),
    (STRICT, quiescing, nothing, ["renewed"]),
    (STRICT, draining, old_cut, ["renewed"]),
    (STRICT, draining, new_cut, ["renewal_failed"]),
    (STRICT, draining, closed_by_us, ["closed"]),
    (STRICT, draining, nothing, ["renewed"]),
    (STRICT, leaving, old_cut, ["renewed"]),
    (STRICT, leaving, new_cut, ["lost"]),
    (STRICT, leaving, hub_dies, ["lost"]),
    (STRICT, leaving, closed_by_us, ["closed"]),
    (STRICT, leaving, nothing, ["renewed"]),
    (STRICT, connecting, hub_dies, ["lost"]),
    (STRICT, connecting, closed_by_us, ["closed"]),
    (STRICT, connecting, nothing, ["lost"]),
    (FAST, leaving, old_cut, ["lost"]),
    (FAST, leaving, new_cut, ["lost"]),
    (FAST, leaving, hub_dies, ["lost"]),
    (FAST, leaving, closed_by_us, ["closed"]),
    (FAST, leaving, nothing, ["lost"]),
    (FAST, settling, old_cut, []),
    (FAST, settling, new_cut, ["lost"]),
    (FAST, settling, hub_dies, ["lost"]),
    (FAST, settling, closed_by_us, ["closed"]),
    (FAST, settling, nothing, []),
    (FAST, quiescing, new_cut, ["renewal_failed"]),
    (FAST, quiescing, nothing, ["renewed"]),
]


@pytest.mark.parametrize(
    ("mode", "reach", "happens", "expected"),
    CASES,
    ids=[f"{mode.value}-{reach.__name__}-{happens.__name__}" for mode, reach, happens, _ in CASES],
)
async def test_whatever_happens_at_a_stage_is_told_once_and_nothing_is_lost(
    mode: Mode, reach: Callable[..., object], happens: Callable[..., object], expected: list[str]
) -> None:
    async with hub_session_rig(mode=mode) as rig:
        await reach(rig)  # type: ignore[misc]  # every way to a stage is a coroutine
        before = len(rig.owner.outcomes())
        rig.owner.offer(rig.session, 2)
        happens(rig)
        await _let_time_pass(rig, before, expected)
        assert rig.owner.outcomes()[before:] == expected
        await _still_good_for_everything(rig)


@pytest.mark.parametrize("reach", [dialing, poised, quiescing, draining], ids=lambda reach: reach.__name__)
async def test_a_hub_that_dies_before_disconnect_ends_the_attempt_once_and_the_session_once(
    reach: Callable[..., object],
) -> None:
    """Which of the two ends is seen first is chance: the attempt may fail before the session is lost."""
    async with hub_session_rig() as rig:
        await reach(rig)  # type: ignore[misc]  # every way to a stage is a coroutine
        before = len(rig.owner.outcomes())
        rig.line.reset()
        await rig.until(lambda: rig.owner.state == "down")
        assert rig.owner.outcomes()[before:] in (["lost"], ["renewal_failed", "lost"])
        await _still_good_for_everything(rig)


async def _let_time_pass(rig: HubSessionRig, before: int, expected: list[str]) -> None:
    """All deadlines of an attempt, one after the other, until it is over."""
    for _ in range(400):
        await asyncio.sleep(0.001)
        if rig.stage is None and len(rig.owner.outcomes()) >= before + len(expected):
            return
        rig.pass_seconds(0.25)
    raise TimeoutError(f"{rig.stage!r}, told {rig.owner.outcomes()}")


async def _still_good_for_everything(rig: HubSessionRig) -> None:
    """After a fault: open again if need be, renew, publish, close; in order, without a loss."""
    if rig.owner.state == "up":
        rig.close()
        await rig.until(lambda: rig.owner.state == "down")
    await rig.open_again()
    rig.owner.told.clear()
    rig.owner.offer(rig.session, 1)
    await rig.until(lambda: rig.session.in_flight == 0)
    rig.renew()
    await rig.until_told("renewed")
    rig.owner.offer(rig.session, 1)
    await rig.until_settled()
    rig.close()
    await rig.until_told("closed")
