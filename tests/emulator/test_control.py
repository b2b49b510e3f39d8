"""The hub's remote control over HTTP."""

from __future__ import annotations

import asyncio
import base64
import ssl

import pytest

from gatewayd.emulator.arrivals import digest
from gatewayd.emulator.connect_throttle import OverRate
from gatewayd.emulator.control import ControlServer
from tests.support.emulated_hub import device_key_text, emulated_hub
from tests.support.hub_remote import controlled
from tests.support.raw_device import RawDevice


async def test_summary_events_and_messages_can_be_read() -> None:
    async with controlled("dev-01") as (desk, remote):
        device = await RawDevice.connect(desk, "dev-01")
        await device.publish(b"\xff", "%24.mid=1")
        await device.publish(b"2", "%24.mid=2")
        await device.disconnect()
        summary = await remote.ask("GET", "/summary")
        assert (summary["messages_at_hub"], summary["planned_disconnects"]) == (2, 1)
        assert summary["handover_gap_ms"] == {"count": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
        operations = [event["operation"] for event in await remote.ask("GET", "/events?identity=dev-01")]
        assert operations == ["deviceConnect", "deviceDisconnect"]
        assert await remote.ask("GET", "/events?code=401003") == []
        assert len(await remote.ask("GET", "/events?since=1&limit=1")) == 1
        messages = await remote.ask("GET", "/messages?identity=dev-01&since=0&limit=1")
        assert [base64.b64decode(message["payload"]) for message in messages] == [b"\xff"]
        newest = await remote.ask("GET", "/messages?since=1")
        assert (newest[0]["system"], newest[0]["custom"]) == ({"message-id": "2"}, {})
        arrivals = await remote.ask("GET", "/arrivals?identity=dev-01&since=1")
        assert arrivals == [[digest(b"2").hex(), "%24.mid=2", False]]
        assert await remote.ask("GET", "/message-ids") == {"dev-01": ["1", "2"]}
        assert await remote.ask("GET", "/message-ids?identity=nobody") == {"nobody": []}


async def test_faults_are_armed_listed_and_taken_back() -> None:
    async with controlled("dev-01") as (desk, remote):
        armed = await remote.ask("POST", "/faults", kind="connack_3", identity="dev-01", count=2)
        listed = await remote.ask("GET", "/faults")
        assert [(fault["number"], fault["kind"], fault["left"]) for fault in listed] == [
            (armed["number"], "connack_3", 2)
        ]
        assert (await remote.ask("DELETE", f"/faults/{armed['number']}"))["disarmed"]
        await remote.ask("POST", "/faults", kind="puback_delay", value=0.1, seconds=5)
        await remote.ask("DELETE", "/faults")
        assert desk.hub.faults.armed(desk.clock.monotonic()) == []


async def test_settings_are_changed_at_run_time() -> None:
    async with controlled("dev-01") as (desk, remote):
        device = await RawDevice.connect(desk, "dev-01", lifetime=100.0)
        await remote.ask(
            "PATCH",
            "/settings",
            skew_seconds=7,
            connects_per_second=5,
            over_rate="refuse",
            close_on_foreign_filter=True,
            grace_seconds=1,
            sends_per_second=9,
            shape_seconds=2,
            lock_seconds=3,
            keep_packet_ids=False,
        )
        assert desk.hub.settings.skew_seconds == 7.0
        assert desk.hub.settings.close_on_foreign_filter
        assert (desk.hub.send_throttle.per_second, desk.hub.send_throttle.shape_seconds) == (9, 2.0)
        assert (desk.hub.settings.lock_seconds, desk.hub.settings.keep_packet_ids) == (3.0, False)
        assert (desk.hub.throttle.per_second, desk.hub.throttle.mode) == (5, OverRate.REFUSE)
        await remote.ask("PATCH", "/settings", clock_offset=200)
        assert await device.ended() == b""
        assert (await remote.ask("GET", "/summary"))["hub_errors"] == {"401003": 1, "404104": 1}


async def test_connections_are_dropped_and_the_hub_restarts() -> None:
    async with controlled("a", "b") as (desk, remote):
        devices = [await RawDevice.connect(desk, identity) for identity in "ab"]
        assert await remote.ask("POST", "/drop", identity="a") == {"closed": 1}
        assert await remote.ask("POST", "/restart", seconds=0) == {"closed": 1}
        assert [await device.ended() for device in devices] == [b"", b""]
        desk.hub.state.session("a").subscriptions["f"] = 1
        await remote.ask("POST", "/restart", lose_sessions=True)
        assert desk.hub.state.session("a").subscriptions == {}
        await remote.ask("POST", "/blackhole", seconds=60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await RawDevice.dial(desk)


async def test_the_root_can_be_fetched_and_rotated() -> None:
    async with controlled("dev-01") as (desk, remote):
        before = await remote.text("GET", "/certificate")
        assert before == desk.certificate.authority_pem.decode()
        after = await remote.text("POST", "/certificate")
        assert after != before
        with pytest.raises(ssl.SSLCertVerificationError):
            await RawDevice.dial(desk)


async def test_identities_come_and_go() -> None:
    async with controlled() as (desk, remote):
        await remote.ask("PUT", "/identities", name="new", primary_key=device_key_text("new"))
        device = await RawDevice.connect(desk, "new")
        await device.disconnect()
        assert await remote.ask("PATCH", "/identities", name="new", enabled=False) == {"changed": True}
        found = desk.hub.registry.find("new")
        assert found is not None
        assert not found.enabled
        assert await remote.ask("DELETE", "/identities", name="new") == {"removed": True}
        assert "new" not in desk.hub.registry


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/faults", {"kind": "no such"}),
        ("POST", "/faults", {"count": 1}),
        ("POST", "/faults", {"kind": "connack_3", "seconds": 1e9}),
        ("PATCH", "/settings", {"no_such": 1}),
        ("PUT", "/identities", {"name": "a", "primary_key": "%"}),
        ("POST", "/blackhole", {"seconds": -1}),
        ("GET", "/events?since=x", {}),
        ("GET", "/arrivals", {}),
    ],
)
async def test_a_request_that_cannot_be_used_is_answered_with_the_reason(
    method: str, path: str, body: dict[str, object]
) -> None:
    async with controlled() as (_, remote):
        assert (await remote.ask(method, path, 400, **body))["error"]


async def test_control_listens_on_loopback_only() -> None:
    async with emulated_hub() as desk:
        with pytest.raises(ValueError, match="loopback"):
            await ControlServer(desk.hub).start("0.0.0.0", 0)
