"""When a SUBSCRIBE is answered."""

from __future__ import annotations

from gatewayd.flow.grants import PATIENCE_SECONDS, Grants
from gatewayd.message import Identity
from tests.support.virtual_time import VirtualTime

DEV = Identity("dev-01")
A, B = ("a/#", 1), ("b/#", 0)


class World:
    """One device, one hub, and what they are told."""

    def __init__(self) -> None:
        self.time = VirtualTime(1_800_000_000.0)
        self.answered = False
        self.refused: frozenset[str] = frozenset()
        self.codes: list[tuple[int, tuple[int, ...]]] = []
        self.turned_away: list[tuple[str, ...]] = []
        self.grants = Grants(
            self,
            self.time.wheel,
            self.time.clock.monotonic,
            lambda _who, names: self.turned_away.append(names),
        )

    def hub_has_answered(self, identity: Identity) -> bool:
        return self.answered

    def refused_by_hub(self, identity: Identity) -> frozenset[str]:
        return self.refused

    def grant(self, packet_id: int, codes: tuple[int, ...]) -> None:
        self.codes.append((packet_id, codes))


def test_it_is_answered_when_it_is_kept_and_the_hub_has_answered() -> None:
    world = World()
    kept = world.grants.ask(DEV, world, 7, (A, B))
    world.answered = True
    world.grants.look(DEV)
    assert world.codes == []
    kept()
    assert world.codes == [(7, (1, 0))]
    assert len(world.grants) == 0


def test_the_answer_of_the_hub_may_come_last() -> None:
    world = World()
    world.grants.ask(DEV, world, 7, (A,))()
    assert world.codes == []
    world.answered = True
    world.grants.look(DEV)
    assert world.codes == [(7, (1,))]


def test_a_hub_that_does_not_answer_is_waited_for_only_so_long() -> None:
    world = World()
    world.grants.ask(DEV, world, 7, (A,))()
    world.time.pass_seconds(PATIENCE_SECONDS - 0.1)
    assert world.codes == []
    world.time.pass_seconds(0.1)
    assert world.codes == [(7, (1,))]


def test_the_disk_is_waited_for_however_long_it_takes() -> None:
    world = World()
    kept = world.grants.ask(DEV, world, 7, (A,))
    world.time.pass_seconds(10 * PATIENCE_SECONDS)
    assert world.codes == []
    kept()
    assert world.codes == [(7, (1,))]


def test_what_the_hub_refuses_is_refused_and_told() -> None:
    world = World()
    world.answered, world.refused = True, frozenset({B[0]})
    world.grants.ask(DEV, world, 7, (A, B))()
    assert world.codes == [(7, (1, 0x80))]
    assert world.turned_away == [(B[0],)]


def test_several_wait_each_for_its_own_time() -> None:
    world = World()
    world.grants.ask(DEV, world, 1, (A,))()
    world.time.pass_seconds(PATIENCE_SECONDS / 2)
    world.grants.ask(DEV, world, 2, (B,))()
    assert len(world.grants) == 2
    world.time.pass_seconds(PATIENCE_SECONDS / 2)
    assert [packet_id for packet_id, _ in world.codes] == [1]
    world.time.pass_seconds(PATIENCE_SECONDS / 2)
    assert [packet_id for packet_id, _ in world.codes] == [1, 2]


def test_nobody_waits_for_a_device_that_left() -> None:
    world = World()
    kept = world.grants.ask(DEV, world, 7, (A,))
    world.grants.ask(DEV, world, 8, (A,))()
    world.grants.left(DEV)
    kept()
    world.time.pass_seconds(PATIENCE_SECONDS)
    assert world.codes == []
    assert len(world.grants) == 0
