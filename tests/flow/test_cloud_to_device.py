"""Cloud messages between a hub and a device that are stood in for: who is told what, and what is kept how long.

With real sockets: test_way_back.py.
"""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from gatewayd.errors import Bounded
from gatewayd.flow.cloud_to_device import CloudToDevice
from gatewayd.flow.deliveries import MAX_HELD
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.upstream.hub_message import HubMessage

DEV = Identity("dev-01")


class Device:
    """Takes what it is given, or says that it cannot."""

    def __init__(self) -> None:
        self.congested = False
        self.bounded = False
        self.said: list[tuple[bytes, int]] = []

    def publish(self, topic: str, payload: bytes, qos: int) -> int:
        if self.bounded:
            raise Bounded("too many")
        self.said.append((payload, qos))
        return len(self.said) if qos else 0


class Hub:
    """One connection."""

    def __init__(self) -> None:
        self.is_over = False
        self.acknowledged: list[bytes] = []

    def acknowledge(self, message: HubMessage) -> bool:
        if not self.is_over:
            self.acknowledged.append(message.payload)
        return not self.is_over


class World:
    """Both, and the filters."""

    def __init__(self) -> None:
        self.qos: int | None = 1
        self.cloud = CloudToDevice(lambda _who, _topic: self.qos, Metrics(CollectorRegistry()))
        self.device, self.hub = Device(), Hub()

    def send(self, *payloads: bytes, qos: int = 1) -> None:
        for payload in payloads:
            self.cloud.received(
                DEV, HubMessage("devices/dev-01/messages/devicebound/", payload, qos, packet_id=1)
            )


@pytest.fixture
def world() -> World:
    world = World()
    world.cloud.hub_up(DEV, world.hub)
    world.cloud.device_arrived(DEV, world.device)
    return world


def test_a_message_goes_to_the_device_and_its_receipt_to_the_hub(world: World) -> None:
    world.send(b"a")
    assert world.device.said == [(b"a", 1)]
    assert world.hub.acknowledged == []
    world.cloud.delivered(DEV, 1)
    assert world.hub.acknowledged == [b"a"]


def test_an_acknowledgement_of_something_else_settles_nothing(world: World) -> None:
    world.send(b"a")
    world.cloud.delivered(DEV, 2)
    world.cloud.delivered(Identity("dev-02"), 1)
    assert world.hub.acknowledged == []


def test_a_message_of_qos_0_is_written_with_qos_0(world: World) -> None:
    world.send(b"a", qos=0)
    assert world.device.said == [(b"a", 0)]


@pytest.mark.parametrize("switch", ["congested", "bounded"])
def test_a_device_that_takes_no_more_gets_the_rest_later_in_order(world: World, switch: str) -> None:
    setattr(world.device, switch, True)
    world.send(b"a", b"b")
    assert world.device.said == []
    setattr(world.device, switch, False)
    world.cloud.pump(DEV)
    assert world.device.said == [(b"a", 1), (b"b", 1)]


def test_a_device_that_speaks_while_it_is_sent_to_gets_nothing_twice(world: World) -> None:
    publish = world.device.publish

    def speaks(topic: str, payload: bytes, qos: int) -> int:
        world.cloud.pump(DEV)
        return publish(topic, payload, qos)

    world.device.publish = speaks  # type: ignore[method-assign]  # a device that speaks at the worst moment
    world.send(b"a", b"b")
    assert world.device.said == [(b"a", 1), (b"b", 1)]


def test_a_device_that_has_not_subscribed_gets_nothing_until_it_has(world: World) -> None:
    world.qos = None
    world.send(b"a")
    assert world.device.said == []
    world.qos = 0
    world.cloud.pump(DEV)
    assert world.device.said == [(b"a", 0)]
    assert world.hub.acknowledged == [b"a"]


def test_a_device_that_comes_back_keeps_its_memory_unless_it_begins_anew(world: World) -> None:
    memory = world.cloud.memory(DEV, fresh=False)
    world.send(b"a")
    world.cloud.device_left(DEV, comes_back=True)
    assert world.cloud.memory(DEV, fresh=False) is memory
    world.cloud.device_arrived(DEV, world.device)
    assert world.device.said == [(b"a", 1)], "its MQTT session sends that again, not the ledger"
    world.cloud.device_left(DEV, comes_back=False)
    assert world.cloud.memory(DEV, fresh=False) is not memory
    world.cloud.device_arrived(DEV, world.device)
    assert world.device.said == [(b"a", 1), (b"a", 1)]


def test_a_connection_that_can_carry_no_receipt_leaves_it_to_the_next(world: World) -> None:
    world.send(b"a")
    world.hub.is_over = True
    world.cloud.delivered(DEV, 1)
    newer = Hub()
    world.cloud.hub_up(DEV, newer)
    assert newer.acknowledged == []
    world.send(b"a")
    assert newer.acknowledged == [b"a"]
    assert world.device.said == [(b"a", 1)]


def test_nothing_is_kept_of_a_device_that_left_for_good(world: World) -> None:
    world.send(b"a")
    world.cloud.hub_down(DEV)
    world.cloud.device_left(DEV, comes_back=True)
    world.cloud.forget(DEV)
    assert len(world.cloud) == 0


def test_nothing_is_kept_of_a_device_without_messages_and_without_a_hub(world: World) -> None:
    world.cloud.hub_down(DEV)
    world.cloud.device_left(DEV, comes_back=True)
    assert len(world.cloud) == 0


def test_what_finds_no_room_stays_with_the_hub(world: World) -> None:
    world.device.congested = True
    world.send(*(str(number).encode() for number in range(MAX_HELD + 1)))
    world.device.congested = False
    world.cloud.pump(DEV)
    for packet_id in range(1, MAX_HELD + 1):
        world.cloud.delivered(DEV, packet_id)
    assert world.hub.acknowledged == [str(number).encode() for number in range(MAX_HELD)]
