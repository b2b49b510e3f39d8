"""One connection to the hub, from CONNECT to its end, at the emulated hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gatewayd.clock import SystemClock
from gatewayd.errors import LocalProtocolError
from gatewayd.message import Identity, Telemetry
from gatewayd.protocol.mqtt.client import ClientSession
from gatewayd.protocol.mqtt.events import (
    ClientEvent,
    Closed,
    ConnackReceived,
    PublishAcknowledged,
    PublishReceived,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from gatewayd.protocol.mqtt.faults import ConnackCode
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.transport.worker import Worker
from gatewayd.upstream.dialer import Dialer, Endpoint
from gatewayd.upstream.mqtt_link import Carrier, MqttLink, MqttSettings
from gatewayd.upstream.outcome import SignedToken
from tests.support.emulated_hub import DeskHub, emulated_hub

DEVICE = Identity("dev-01")
WITHIN = 5.0


class Owner:
    """Notes what a link says, and lets a test wait for it."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[ClientEvent] = asyncio.Queue()

    def link_event(self, link: MqttLink, event: ClientEvent) -> None:
        if isinstance(event, ConnackReceived):
            link.accepted_at = 0.0 if event.code == 0 else None
        self.said.put_nowait(event)

    def link_closed(self, link: MqttLink, closed: Closed) -> None:
        self.said.put_nowait(closed)

    def link_writable(self) -> None:
        raise AssertionError("nothing was congested")

    async def next(self) -> ClientEvent:
        return await asyncio.wait_for(self.said.get(), WITHIN)


@asynccontextmanager
async def dialled_link(desk: DeskHub, owner: Owner, memory: ClientSession) -> AsyncIterator[MqttLink]:
    loop, clock = asyncio.get_running_loop(), SystemClock()
    worker = Worker(loop)
    endpoint = Endpoint(desk.host, desk.port, desk.hostname)
    dialer = Dialer(loop, endpoint, desk.client_context(), worker)

    def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        raise AssertionError("a link starts no task")

    carrier = Carrier(
        dialer,
        DeadlineWheel(loop.time, loop.call_at),
        clock,
        lambda: True,
        spawn,
        MqttSettings(desk.hostname, "gatewayd/test"),
    )
    link = MqttLink(owner, carrier, memory)
    try:
        await dialer.dial(link.conversation)
        yield link
    finally:
        link.conversation.abort()
        await worker.stop()


def token(desk: DeskHub) -> SignedToken:
    return SignedToken(desk.token("dev-01").encode(), 0.0, 3600.0)


async def test_a_link_connects_publishes_and_ends_as_planned() -> None:
    async with emulated_hub("dev-01") as desk:
        owner, memory = Owner(), ClientSession()
        async with dialled_link(desk, owner, memory) as link:
            assert not link.can_publish
            link.token = token(desk)
            link.connect(DEVICE)
            assert isinstance(await owner.next(), ConnackReceived)
            assert link.can_publish
            handle = link.publish(Telemetry(DEVICE, "devices/dev-01/messages/events/", b"hello", 1))
            assert await owner.next() == PublishAcknowledged(handle)
            link.disconnect("renewal")
            closed = await owner.next()
        assert isinstance(closed, Closed)
        assert closed.planned
        assert link.reason == "renewal"
        assert memory.in_flight == 0
        assert desk.hub.events.errors == {}


async def test_a_link_subscribes_takes_messages_and_says_things_beside_them() -> None:
    filters = (("devices/dev-01/messages/devicebound/#", 1), ("$iothub/twin/res/#", 0))
    async with emulated_hub("dev-01") as desk:
        owner = Owner()
        async with dialled_link(desk, owner, ClientSession()) as link:
            assert not link.is_open
            assert not link.acknowledge(1)
            link.token = token(desk)
            link.connect(DEVICE)
            assert await owner.next() == ConnackReceived(ConnackCode.ACCEPTED, False)
            assert link.is_open
            packet_id = link.subscribe(filters)
            assert await owner.next() == SubscribeAcknowledged(packet_id, (1, 0))
            link.say("$iothub/twin/GET/?$rid=1", b" ")
            answer = await owner.next()
            assert isinstance(answer, PublishReceived)
            assert answer.publish.topic == "$iothub/twin/res/200/?$rid=1"
            desk.hub.send_to_device("dev-01", b"turn left")
            message = await owner.next()
            assert isinstance(message, PublishReceived)
            assert link.acknowledge(message.publish.packet_id)
            packet_id = link.unsubscribe(("$iothub/twin/res/#",))
            assert await owner.next() == UnsubscribeAcknowledged(packet_id)
            link.disconnect("renewal")
            assert not link.is_open
            assert not link.acknowledge(message.publish.packet_id)
            await owner.next()
        assert desk.hub.queued("dev-01") == 0
        assert desk.hub.events.errors == {}


async def test_there_is_no_connect_without_a_token() -> None:
    async with emulated_hub("dev-01") as desk, dialled_link(desk, Owner(), ClientSession()) as link:
        with pytest.raises(LocalProtocolError, match="CONNECT without a token"):
            link.connect(DEVICE)
        assert not link.connect_sent


async def test_a_link_that_was_never_accepted_has_nothing_to_disconnect() -> None:
    async with emulated_hub("dev-01") as desk, dialled_link(desk, Owner(), ClientSession()) as link:
        link.disconnect("renewal")
        assert link.reason == "closed"


async def test_what_a_lost_link_left_unacknowledged_goes_out_again_on_the_next() -> None:
    async with emulated_hub("dev-01") as desk:
        memory = ClientSession()
        first, second = Owner(), Owner()
        async with dialled_link(desk, first, memory) as link:
            link.token = token(desk)
            link.connect(DEVICE)
            await first.next()
            link.publish(Telemetry(DEVICE, "devices/dev-01/messages/events/%24.mid=m1", b"once", 1))
            link.conversation.abort()
            assert isinstance(await first.next(), Closed)
        async with dialled_link(desk, second, memory) as again:
            again.token = token(desk)
            again.connect(DEVICE)
            await second.next()
            assert isinstance(await second.next(), PublishAcknowledged)
        assert desk.hub.ledger.missing("dev-01", ["m1"]) == []
