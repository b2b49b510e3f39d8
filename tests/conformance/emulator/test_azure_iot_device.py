"""The hub judged by an unmodified azure-iot-device client that talks straight to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gatewayd.emulator.event_log import HubCode, HubEvent, Operation
from gatewayd.emulator.faults import FaultKind
from tests.support.azure_device import SDK_PORT, AzureDevice, azure_device, own_loopback_address
from tests.support.emulated_hub import DeskHub, device_key_text, emulated_hub

# The SDK renews 120 s before expiry (SasTokenStage.DEFAULT_TOKEN_UPDATE_MARGIN).
RENEWAL_MARGIN = 120


@asynccontextmanager
async def azure_hub(grace: float = 0.0) -> AsyncIterator[DeskHub]:
    """A hub where the SDK can find it."""
    address = own_loopback_address()
    async with emulated_hub("dev-01", hostname=address, host=address, port=SDK_PORT, grace=grace) as desk:
        yield desk


def connects(desk: DeskHub) -> list[HubEvent]:
    return [event for event in desk.hub.events.since() if event.operation is Operation.CONNECT]


async def use(device: AzureDevice, first: int, count: int) -> None:
    await device.connect()
    for number in range(first, first + count):
        await device.send(str(number))


async def test_it_connects_sends_and_leaves_as_planned() -> None:
    async with (
        azure_hub() as desk,
        azure_device(
            desk.hostname, "dev-01", desk.certificate.authority_pem.decode(), key=device_key_text("dev-01")
        ) as device,
    ):
        await use(device, 1, 20)
        await device.stop()
        assert desk.hub.ledger.ids("dev-01") == {str(number) for number in range(1, 21)}
        assert desk.hub.ledger.duplicates == 0
        summary = desk.hub.summary()
        assert (summary.planned_disconnects, summary.unplanned_disconnects, summary.hub_errors) == (1, 0, {})


async def test_its_own_renewal_is_a_planned_disconnect_and_a_new_connect() -> None:
    async with (
        azure_hub() as desk,
        azure_device(
            desk.hostname,
            "dev-01",
            desk.certificate.authority_pem.decode(),
            key=device_key_text("dev-01"),
            sastoken_ttl=RENEWAL_MARGIN + 2,
        ) as device,
    ):
        await use(device, 1, 3)
        await desk.hub.events.wait_for(lambda event: event.planned is True)
        second = connects(desk)[0].sequence + 1
        await desk.hub.events.wait_for(lambda event: event.operation is Operation.CONNECT, since=second)
        await use(device, 4, 3)
        await device.stop()
        summary = desk.hub.summary()
        assert summary.hub_errors == {}
        assert summary.planned_disconnects >= 2
        assert summary.handover_gap_ms.count >= 1
        assert desk.hub.ledger.ids("dev-01") == {str(number) for number in range(1, 7)}


async def test_an_application_that_renews_only_after_the_cut_shows_the_pattern_of_the_field() -> None:
    """401003, then 404104, then a new connect: what a fleet on the plain SDKs writes into the hub's log for ever."""
    async with (
        azure_hub() as desk,
        azure_device(
            desk.hostname,
            "dev-01",
            desk.certificate.authority_pem.decode(),
            sastoken=desk.token("dev-01", 3.0),
        ) as device,
    ):
        await use(device, 1, 3)
        await device.until("disconnected")
        device.tell("update_sastoken", sastoken=desk.token("dev-01", 3600.0))
        await desk.hub.events.wait_for(lambda event: event.cause == "token_expired")
        cut = next(event for event in desk.hub.events.since() if event.cause == "expired")
        await desk.hub.events.wait_for(
            lambda event: event.operation is Operation.CONNECT and event.code is HubCode.NONE,
            since=cut.sequence,
        )
        await use(device, 4, 3)
        await device.stop()
        story = desk.hub.events.since(cut.sequence)
        assert [event.code for event in story[:2]] == [401003, 404104]
        assert story[1].planned is False
        assert desk.hub.summary().hub_errors["404104"] == 1
        assert desk.hub.ledger.ids("dev-01") == {str(number) for number in range(1, 7)}


async def test_it_finds_its_twin_and_gets_its_cloud_messages() -> None:
    async with (
        azure_hub() as desk,
        azure_device(
            desk.hostname, "dev-01", desk.certificate.authority_pem.decode(), key=device_key_text("dev-01")
        ) as device,
    ):
        await device.connect()
        desk.hub.desire("dev-01", {"interval": 5})
        device.tell("twin")
        twin = (await device.until("twin"))["twin"]
        assert twin == {"desired": {"interval": 5, "$version": 2}, "reported": {"$version": 1}}
        await desk.hub.events.wait_for(lambda event: event.operation is Operation.CONNECT)
        desk.hub.send_to_device("dev-01", b"hello")
        assert (await device.until("message"))["body"] == "hello"
        await device.stop()


async def test_a_drop_brings_it_back_and_a_5_on_the_way_silences_it() -> None:
    """Why a gateway must never answer 5 for trouble of its own: after a drop the SDK gives up on it for good."""
    async with (
        azure_hub() as desk,
        azure_device(
            desk.hostname, "dev-01", desk.certificate.authority_pem.decode(), key=device_key_text("dev-01")
        ) as device,
    ):
        await device.connect()
        desk.hub.drop("dev-01")
        await device.until("disconnected")
        await device.until("connected")
        desk.hub.arm(FaultKind.CONNACK_5, identity="dev-01", count=1)
        desk.hub.drop("dev-01")
        await device.until("disconnected")
        await desk.hub.events.wait_for(lambda event: event.code is HubCode.UNAUTHORIZED)
        await device.stop()
        assert [event.code for event in connects(desk)] == [0, 0, 401003]
