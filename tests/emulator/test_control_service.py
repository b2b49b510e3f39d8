"""The service side of the hub over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.emulator.property_bag import read
from tests.support.hub_remote import controlled
from tests.support.raw_device import RawDevice, publish_bytes

COMMANDS = "devices/dev-01/messages/devicebound/"


async def test_the_service_side_reaches_a_device() -> None:
    async with controlled("dev-01") as (desk, remote):
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe(
            "devices/dev-01/messages/devicebound/#",
            "$iothub/methods/POST/#",
            "$iothub/twin/PATCH/properties/desired/#",
            qos=0,
        )
        await remote.ask("POST", "/cloud-messages", identity="dev-01", body="hello", bag="a=b")
        assert (await device.read()).payload == b"hello"
        assert await remote.ask("POST", "/desired", identity="dev-01", patch={"x": 1}) == {"told": True}
        assert (await device.read()).payload == b'{"x":1,"$version":2}'
        calling = asyncio.ensure_future(
            remote.ask("POST", "/methods", identity="dev-01", method="reboot", payload={"in": 5})
        )
        call = await device.read()
        assert call.payload == b'{"in": 5}'
        rid = call.topic.partition("$rid=")[2]
        device.send(publish_bytes(f"$iothub/methods/res/200/?$rid={rid}", b"ok", qos=0))
        assert await calling == {"status": 200, "body": "ok"}
        await remote.ask("POST", "/methods", 504, identity="dev-01", method="reboot", seconds=0.05)
        await device.disconnect()
        answer = await remote.ask("POST", "/methods", 404, identity="dev-01", method="reboot")
        assert answer["code"] == 404103


async def test_a_cloud_message_has_all_its_properties_and_can_be_followed() -> None:
    async with controlled("dev-01") as (desk, remote):
        queued = await remote.ask(
            "POST",
            "/cloud-messages",
            identity="dev-01",
            body_base64="AAH/",
            message_id="m",
            correlation_id="c",
            user_id="u",
            content_type="t",
            content_encoding="e",
            ack="full",
            lifetime=60,
            custom={"a b": "c"},
        )
        assert queued == {"queued": True, "number": 1}
        assert await remote.ask("GET", "/cloud-messages?identity=dev-01") == {"queued": 1}
        where = "/cloud-messages?identity=dev-01&number=1"
        assert await remote.ask("GET", where) == {"state": "enqueued", "deliveries": 0}
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe(f"{COMMANDS}#")
        packet = await device.read()
        said = read(packet.topic.removeprefix(COMMANDS))
        assert packet.payload == b"\x00\x01\xff"
        assert said.custom == {"a b": "c"}
        assert said.system.keys() == {
            *("message-id", "correlation-id", "user-id", "to", "content-type", "content-encoding"),
            *("expiry-time", "ack"),
        }
        assert await remote.ask("GET", where) == {"state": "invisible", "deliveries": 1}
        await device.disconnect()


async def test_a_module_input_a_purge_and_a_twin() -> None:
    async with controlled("dev-01", "dev-01/mod") as (_, remote):
        message = {"identity": "dev-01/mod", "module_input": "in", "body": "x", "bag": "a=b"}
        await remote.ask("POST", "/cloud-messages", **message)
        assert await remote.ask("DELETE", "/cloud-messages", identity="dev-01/mod") == {"purged": 1}
        assert await remote.ask("POST", "/desired", identity="dev-01", patch={"x": 1}) == {"told": False}
        assert await remote.ask("GET", "/twin?identity=dev-01") == {
            "desired": {"x": 1},
            "desired_version": 2,
            "reported": {},
            "reported_version": 1,
            "connected": False,
        }


async def test_who_listens_for_what_can_be_asked() -> None:
    async with controlled("dev-01") as (desk, remote):
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe(f"{COMMANDS}#")
        session = await remote.ask("GET", "/session?identity=dev-01")
        assert session == {"connected": True, "subscriptions": {f"{COMMANDS}#": 1}}
        await device.disconnect()
        assert not (await remote.ask("GET", "/session?identity=dev-01"))["connected"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/cloud-messages", {"identity": "dev-01", "no_such": 1}),
        ("POST", "/cloud-messages", {"identity": "dev-01", "ack": "maybe"}),
        ("POST", "/cloud-messages", {"identity": "dev-01", "body_base64": "%"}),
        ("GET", "/cloud-messages?identity=dev-01&number=7", {}),
        ("POST", "/desired", {"identity": "dev-01", "patch": {"a.b": 1}}),
        ("POST", "/methods", {"identity": "dev-01", "method": "m", "seconds": 301}),
    ],
)
async def test_what_cannot_be_used_is_answered_with_the_reason(
    method: str, path: str, body: dict[str, object]
) -> None:
    async with controlled("dev-01") as (_, remote):
        assert (await remote.ask(method, path, 400, **body))["error"]


async def test_who_is_not_registered_is_404001() -> None:
    async with controlled() as (_, remote):
        assert (await remote.ask("GET", "/twin?identity=nobody", 404))["code"] == 404001
