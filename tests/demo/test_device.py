"""A simulated device against a real hub: its schedule, its receipts, its way with tokens."""

from __future__ import annotations

import asyncio

from gatewayd.demo.device import Device
from gatewayd.demo.identity import device_name, message_id
from gatewayd.demo.schedule import Schedule
from gatewayd.demo.settings import Policy
from gatewayd.emulator.event_log import HubCode, Operation
from gatewayd.emulator.faults import FaultKind
from tests.demo.conftest import Desk, eventually

NAME = device_name(0)
WITHIN = 15.0
SOON = Schedule(boot=0.0, first=0.01, interval=0.02, end=0.11)


class Running:
    """A device that plays while the block lasts."""

    def __init__(self, device: Device) -> None:
        self._device = device

    async def __aenter__(self) -> Device:
        self._task = asyncio.create_task(self._device.run(asyncio.get_running_loop().time()))
        return self._device

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=WITHIN)
        assert self._task.cancelled()


async def until_receipted(device: Device, count: int) -> None:
    await eventually(lambda: len(device.receipted) >= count, WITHIN)


async def test_every_message_of_the_schedule_is_sent_and_receipted(desk: Desk) -> None:
    async with Running(desk.device(SOON)) as device:
        await until_receipted(device, SOON.count)
        assert desk.tally.connected == 1
    assert device.receipted == set(range(5))
    assert desk.hub.ledger.ids(NAME) == {message_id(NAME, number) for number in range(5)}
    assert (desk.tally.due, desk.tally.sent, desk.tally.receipted, desk.tally.connected) == (5, 5, 5, 0)


async def test_it_leaves_with_disconnect_when_it_is_ended(desk: Desk) -> None:
    async with Running(desk.device(SOON)) as device:
        await until_receipted(device, SOON.count)
    end = await desk.hub.events.wait_for(lambda event: event.operation is Operation.DISCONNECT, within=WITHIN)
    assert end.planned is True


async def test_what_has_no_receipt_is_sent_again_after_a_reconnect(desk: Desk) -> None:
    """The hub takes the message and its receipt is lost: the message comes twice, and nothing is missing."""
    desk.hub.arm(FaultKind.PUBACK_DROP, identity=NAME, count=1)
    plan = Schedule(boot=0.0, first=0.01, interval=10.0, end=5.0)
    async with Running(desk.device(plan)) as device:
        await desk.hub.ledger.wait_for_count(1, within=WITHIN)
        assert device.receipted == set()
        desk.hub.drop(NAME)
        await until_receipted(device, 1)
    assert desk.hub.ledger.duplicates == 1
    assert desk.tally.losses == 1
    assert desk.tally.sent == 1


async def test_with_the_policy_cut_the_hub_counts_401003_and_404104_and_the_device_is_back(
    desk: Desk,
) -> None:
    plan = Schedule(boot=0.0, first=0.0, interval=0.5, end=4.0)
    async with Running(desk.device(plan, policy=Policy.CUT, lifetime=2.0)) as device:
        cut = await desk.hub.events.wait_for(
            lambda event: event.code is HubCode.CONNECTION_CLOSED, within=WITHIN
        )
        back = await desk.hub.events.wait_for(
            lambda event: event.operation is Operation.CONNECT, since=cut.sequence, within=WITHIN
        )
        assert back.monotonic - cut.monotonic < 1.0
        await until_receipted(device, plan.count)
    assert (
        desk.hub.events.errors[HubCode.UNAUTHORIZED] == desk.hub.events.errors[HubCode.CONNECTION_CLOSED] >= 1
    )


async def test_with_the_policy_fixed_it_leaves_before_the_cut(desk: Desk) -> None:
    # The expiry is cut to whole seconds, so it may be 1 s away; the grace lets the cut come after 85 % of 2 s.
    desk.hub.set_grace(1.0)
    plan = Schedule(boot=0.0, first=0.0, interval=0.5, end=2.2)
    async with Running(desk.device(plan, policy=Policy.FIXED, lifetime=2.0)) as device:
        left = await desk.hub.events.wait_for(lambda event: event.planned is not None, within=WITHIN)
        await until_receipted(device, plan.count)
    assert left.planned is True
    assert not desk.hub.events.errors


async def test_a_refused_device_comes_back_after_pauses_that_grow(desk: Desk) -> None:
    desk.hub.arm(FaultKind.CONNACK_3, identity=NAME, count=3)
    async with Running(desk.device(SOON)) as device:
        await until_receipted(device, SOON.count)
    assert desk.tally.failures == {"CONNACK 3": 3}
    refusals = [event.monotonic for event in desk.hub.events.matching(HubCode.UNAVAILABLE)]
    back = next(
        e.monotonic for e in desk.hub.events.since() if e.operation is Operation.CONNECT and not e.code
    )
    pauses = [later - sooner for sooner, later in zip(refusals, [*refusals[1:], back], strict=True)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 0.1
    assert pauses[2] >= 0.4


async def test_messages_that_wait_without_receipt_are_bounded(desk: Desk) -> None:
    await desk.hub.stop()
    plan = Schedule(boot=0.0, first=0.0, interval=0.0005, end=0.6)
    async with Running(desk.device(plan)):
        await eventually(lambda: desk.tally.due == plan.count, WITHIN)
    assert desk.tally.sent == 1000
    assert desk.tally.dropped == plan.count - 1000
