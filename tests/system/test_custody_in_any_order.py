"""Custody under whatever devices, hub and outbox may do, in any order: nothing lost, out of order, or left behind.

Each seed is one story of some hundred steps, with its own odds for each kind of step. A story that fails prints its
seed; `tell` with the same seed tells it again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.flow.custody import CustodyPolicy
from gatewayd.flow.lane import LaneBounds
from gatewayd.message import DropReason
from gatewayd.store.messages import Health, WhenFull
from tests.support.custody_world import RULES, SPILL_AFTER, World
from tests.support.stepped_store import SteppedStore, StepsByHand, StepsOfTheKeeper

STEPS = 120
DISKS = (Health.OK, Health.OK, Health.OK, Health.AT_BOUND, Health.DISK_FULL, Health.FAILING)


def world_of(chance: random.Random, store: SteppedStore) -> World:
    return World(
        store,
        bounds_of(chance),
        policy_of(chance),
        devices=chance.choice([1, 2, 3]),
        window=chance.choice([1, 3, 8]),
    )


def bounds_of(chance: random.Random) -> LaneBounds:
    return LaneBounds(
        max_messages=chance.choice([3, 6]), max_bytes=1 << 20, max_bytes_in_all=chance.choice([150, 1 << 20])
    )


def policy_of(chance: random.Random) -> CustodyPolicy:
    return CustodyPolicy(
        spill_after=chance.choice([1.0, SPILL_AFTER]),
        sends_per_second=chance.choice([1, 20, 20, 1000, 1000, 1000]),
        store_qos0=chance.random() < 0.5,
        rules=RULES,
    )


def tell(chance: random.Random, world: World, steps: int) -> None:
    """One story, and rest at its end."""
    store, some, often = world.store, chance.random, chance.choice

    def device() -> int:
        return chance.randrange(len(world.sites))

    def hub_takes() -> None:
        number = device()
        world.hub_takes(number, chance.randint(1, 4))
        world.hub_acknowledges(number, chance.randint(0, 4))

    def reload() -> None:
        world.dispatch.retune(bounds_of(chance))
        world.custody.retune(policy_of(chance))

    what: list[tuple[float, Callable[[], None]]] = [
        (0.1 + 0.5 * some(), lambda: world.arrive(device(), keeps_session=some() < 0.7)),
        (0.3 * some(), lambda: world.leave(device(), will=some() < 0.3)),
        (3.0, lambda: world.publish(device(), alarm=some() < 0.2)),
        (0.3 * some(), lambda: world.publish(device(), qos=0)),
        (some(), lambda: world.hub_opens(device())),
        (0.7 * some(), lambda: world.hub_lost(device())),
        (0.3 * some(), lambda: world.hub_forgotten(device())),
        (0.3, lambda: world.handover(device(), held=some() < 0.5)),
        (1.5, hub_takes),
        (0.2 + 2.0 * some(), lambda: store.work(chance.randint(1, 4))),
        (0.2 + 2.0 * some(), store.deliver),
        (3.0, world.turn),
        (0.1 * some(), reload),
        (1.0, lambda: world.wait(often([0.1, 1.0, 6.0]))),
    ]
    if isinstance(store, StepsByHand):
        what += [
            (0.6 * some(), lambda: store.turn_disk(often(DISKS))),
            (0.5 * some(), lambda: store.drop_one(chance.randint(0, 9), DropReason.TTL)),
        ]
    odds = [weight for weight, _ in what]
    for _ in range(steps):
        ((_, step),) = chance.choices(what, odds)
        step()
        world.check()
    if isinstance(store, StepsByHand):
        store.turn_disk(Health.OK)
    world.come_to_rest()


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_nothing_is_lost_out_of_order_or_left_behind(first: int) -> None:
    for seed in range(first, first + 50):
        chance = random.Random(seed)
        try:
            tell(chance, world_of(chance, StepsByHand()), STEPS)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("when_full", list(WhenFull))
@pytest.mark.parametrize("seed", range(3))
def test_the_same_with_the_real_keeper_at_its_bound(seed: int, when_full: WhenFull, tmp_path: Path) -> None:
    chance = random.Random(seed)
    store = StepsOfTheKeeper(
        tmp_path / "outbox", wall=lambda: 1_800_000_000.0, max_bytes=1500, when_full=when_full
    )
    try:
        tell(chance, world_of(chance, store), 2 * STEPS)
    finally:
        store.close()
