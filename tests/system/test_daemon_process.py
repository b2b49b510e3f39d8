"""The daemon as a process, between devices and an emulated hub: start, pages, renewals, reload, stop.

Nothing in it knows of the tests: it is `python -m gatewayd run` with a configuration, signals and a service manager.
Slow, because time here is real: the renewals (22 s) and the clock (9 s); the others take a second or two.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.emulator.event_log import HubEvent, Operation
from gatewayd.emulator.faults import FaultKind
from tests.support.daemon_process import DaemonProcess, daemon_process
from tests.support.emulated_hub import DeskHub, emulated_hub
from tests.support.gateway_files import GatewaySite
from tests.support.paho_device import paho_client
from tests.support.raw_device import PUBACK, RawDevice, publish_bytes
from tests.support.talking_device import TalkingDevice, talking_device

RENEWED = 'gatewayd_token_renewals_total{result="ok",transport="mqtt"}'
# Renewals at half of a token's life, so that a test need not wait for most of it.
EARLY = "renew_earliest = 0.35\nrenew_latest = 0.5"
RELOADED = "gatewayd_config_last_reload_successful"


def disconnects(hub: DeskHub) -> list[HubEvent]:
    return [event for event in hub.hub.events.since() if event.operation is Operation.DISCONNECT]


def assert_all_arrived(hub: DeskHub, talker: TalkingDevice, identity: str) -> None:
    assert talker.sent == talker.receipted
    assert hub.hub.ledger.missing(identity, talker.sent) == []
    assert [one.message_id for one in hub.hub.ledger.of(identity)] == talker.sent, "in order, each once"


# Start and pages


async def test_it_says_ready_when_devices_can_connect_and_serves_its_pages(tmp_path: Path) -> None:
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01", "dev-02"])
        async with daemon_process(site) as daemon:
            assert daemon.notifications == ["READY=1\nSTATUS=serving"]
            device = await RawDevice.connect(site, "dev-01")
            await device.publish(b"21.5")
            assert hub.hub.ledger.of("dev-01")[0].payload == b"21.5"
            assert (await daemon.get("/livez"))[0] == 200
            assert (await daemon.get("/readyz"))[0] == 200
            status, page = await daemon.get("/")
            assert (status, "dev-01" in page, "hub.test" in page) == (200, True, True)
            metrics = await daemon.metrics()
            assert metrics["gatewayd_devices_connected"] == 1
            assert metrics['gatewayd_devices{state="up"}'] == 1
            assert metrics['gatewayd_devices{state="absent"}'] == 1
            assert metrics["gatewayd_tokens_expired"] == 0
            assert metrics[RELOADED] == 1
            await device.disconnect()


async def test_a_port_that_is_taken_is_told_in_one_line_and_the_exit_code_says_failed(tmp_path: Path) -> None:
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01"], port=hub.port)
        async with daemon_process(site, ready=False) as daemon:
            assert await daemon.ended() == ExitCode.FAILED
            assert [line["level"] for line in daemon.log] == ["error"]
            assert "Traceback" not in "".join(daemon.output)
            assert str(hub.port) in daemon.log[0]["message"]
            assert daemon.notified("READY=1") == 0


# Receipts and renewals


async def test_a_receipt_waits_for_the_hubs_own(tmp_path: Path) -> None:
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01"])
        async with daemon_process(site):
            device = await RawDevice.connect(site, "dev-01")
            await device.publish(b"first")
            number = hub.hub.arm(FaultKind.PUBACK_DELAY, identity="dev-01", value=1.0)
            device.send(publish_bytes(device.events, b"second", packet_id=2))
            await hub.hub.ledger.wait_for_count(2)
            with pytest.raises(TimeoutError):
                await device.read(0.5)
            hub.hub.faults.disarm(number)
            packet = await device.read()
            assert (packet.kind, packet.packet_id) == (PUBACK, 2)
            await device.disconnect()


async def test_a_client_we_did_not_write_has_its_messages_at_the_hub_in_order(tmp_path: Path) -> None:
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01"])
        async with daemon_process(site), paho_client(site, "dev-01", site.client_context()) as device:
            wanted = [f"{number}".encode() for number in range(100)]
            for payload in wanted:
                await device.publish("devices/dev-01/messages/events/", payload, qos=1)
            assert [message.payload for message in hub.hub.ledger.of("dev-01")] == wanted


async def test_tokens_are_renewed_without_a_word_of_complaint_from_the_hub(tmp_path: Path) -> None:
    """Tokens of 20 s, renewed at half of their life, for longer than a life; the hub grants no grace."""
    names = [f"dev-{number:02}" for number in range(8)]
    async with emulated_hub(*names) as hub, AsyncExitStack() as stack:
        site = GatewaySite.make(tmp_path, hub, names, lifetime=20, tokens=EARLY)
        daemon = await stack.enter_async_context(daemon_process(site, watchdog=3.0))
        talkers = [await stack.enter_async_context(talking_device(site, name)) for name in names]
        await asyncio.sleep(21.0)  # the wall clock is real, and so is the end of a token
        metrics = await daemon.metrics()
        assert metrics[RENEWED] >= 2 * len(names)
        assert metrics["gatewayd_tokens_expired"] == 0
        assert hub.hub.events.errors == {}
        assert hub.hub.events.unplanned == 0
        assert daemon.notified("WATCHDOG=1") >= 19, "three times in each three seconds, while renewals go on"
        await stack.aclose()
        for talker, name in zip(talkers, names, strict=True):
            assert_all_arrived(hub, talker, name)
            assert len(talker.sent) > 200
            assert talker.slowest < 2.0


# Reload


async def reload(daemon: DaemonProcess) -> None:
    """SIGHUP, until the daemon says that it is done with it."""
    before = daemon.notified("READY=1")
    daemon.tell(signal.SIGHUP)
    await daemon.until_notified("READY=1", before + 1)


async def test_a_reload_puts_good_changes_in_force_and_refuses_others_whole(tmp_path: Path) -> None:
    async with emulated_hub("dev-01", "dev-02") as hub:
        site = GatewaySite.make(
            tmp_path, hub, ["dev-01", "dev-02"], tokens=EARLY, more='[log]\nlevel = "info"\n[hub.budget]\n'
        )
        async with daemon_process(site) as daemon, talking_device(site, "dev-01") as talker:
            # What needs a restart, and beside it something that does not: nothing of it is taken.
            good = site.toml.read_text()
            site.rewrite('level = "info"', 'level = "debug"')
            site.rewrite(f":{site.metrics_port}", ":1")
            await reload(daemon)
            assert daemon.notifications[1].startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert "refused" in daemon.notifications[2]
            assert "needs a restart" in (await daemon.until_said("metrics.address"))["message"]
            await daemon.until_metric(RELOADED, lambda value: value == 0)
            assert [line for line in daemon.log if line["level"] == "debug"] == []
            # A file that is none.
            site.toml.write_text(good + "nonsense\n")
            await reload(daemon)
            await daemon.until_metric(RELOADED, lambda value: value == 0)
            # One that is good.
            site.toml.write_text(good)
            site.rewrite('lifetime = "3600s"', 'lifetime = "15s"')
            site.rewrite('level = "info"', 'level = "debug"')
            site.rewrite("[hub.budget]", "[hub.budget]\nconnects_per_second = 7")
            await reload(daemon)
            assert daemon.notifications[-1] == "READY=1\nSTATUS=serving"
            await daemon.until_metric(RELOADED, lambda value: value == 1)
            assert (await daemon.metrics())["gatewayd_connect_budget_available"] <= 7
            await daemon.until_metric(RENEWED, lambda count: count >= 1)
            assert [line for line in daemon.log if line["level"] == "debug"] != []
        assert_all_arrived(hub, talker, "dev-01")
        assert hub.hub.events.unplanned == 0


# Stop


async def test_told_to_stop_it_hands_out_receipts_first_and_leaves_the_hub_politely(tmp_path: Path) -> None:
    names = ["dev-01", "dev-02", "dev-03"]
    async with emulated_hub(*names) as hub:
        site = GatewaySite.make(tmp_path, hub, names)
        async with daemon_process(site) as daemon:
            devices = [await RawDevice.connect(site, name) for name in names]
            for device in devices:
                await device.publish(b"first")
            hub.hub.arm(FaultKind.PUBACK_DELAY, value=1.0)
            for device in devices:
                device.send(publish_bytes(device.events, b"last", packet_id=2))
            await hub.hub.ledger.wait_for_count(2 * len(names))
            daemon.tell(signal.SIGTERM)
            await daemon.until_notified("STOPPING=1")
            with pytest.raises(ConnectionRefusedError):
                await RawDevice.dial(site)
            assert "stopping" in (await daemon.get("/readyz"))[1]
            for device in devices:
                packet = await device.read()
                assert (packet.kind, packet.packet_id) == (PUBACK, 2)
                assert await device.ended() == b""
            assert await daemon.ended() == ExitCode.OK
            assert hub.hub.events.errors == {}
            assert [event.planned for event in disconnects(hub)] == [True] * len(names)
            assert daemon.said("gatewayd has stopped")
            assert [line for line in daemon.log if line["level"] in {"warning", "error"}] == []


async def test_told_to_stop_twice_it_ends_at_once(tmp_path: Path) -> None:
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01"])
        async with daemon_process(site) as daemon:
            device = await RawDevice.connect(site, "dev-01")
            await device.publish(b"first")
            hub.hub.arm(FaultKind.PUBACK_DROP)
            device.send(publish_bytes(device.events, b"last", packet_id=2))
            await hub.hub.ledger.wait_for_count(2)
            daemon.tell(signal.SIGTERM)
            await daemon.until_notified("STOPPING=1")
            daemon.tell(signal.SIGTERM)
            assert await daemon.ended(1.0) == ExitCode.FAILED
            assert daemon.said("told to stop again")
            await device.abort()


async def test_it_stops_as_fast_when_the_hub_is_away(tmp_path: Path) -> None:
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01"])
        async with daemon_process(site) as daemon:
            hub.hub.arm(FaultKind.REFUSE_ALL)
            device = await RawDevice.connect(site, "dev-01")
            await daemon.until_said("no connection to the hub")
            status, reasons = await daemon.get("/readyz")
            assert (status, "none of 1 wanted identities is at the hub" in reasons) == (503, True)
            daemon.tell(signal.SIGTERM)
            assert await daemon.ended(2.0) == ExitCode.OK
            assert daemon.said("did not end in time") == []
            await device.abort()


# The clock


async def test_with_a_clock_known_wrong_devices_come_in_and_nothing_is_signed_until_it_is_good(
    tmp_path: Path,
) -> None:
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01"])
        site.floor_file.write_text(f"{int(hub.clock.wall()) + 8}\n")
        async with daemon_process(site) as daemon:
            await daemon.until_said("the wall clock is known wrong")
            device = await RawDevice.connect(site, "dev-01")
            device.send(publish_bytes(device.events, b"early"))
            with pytest.raises(TimeoutError):
                await device.read(1.0)
            status, reasons = await daemon.get("/readyz")
            assert (status, "the wall clock is known wrong" in reasons) == (503, True)
            metrics = await daemon.metrics()
            assert metrics["gatewayd_clock_trusted"] == 0
            assert metrics["gatewayd_token_signatures_total"] == 0
            assert hub.hub.summary().connects == 0
            assert (await device.read()).kind == PUBACK
            await daemon.until_said("signing begins")
            assert (await daemon.get("/readyz"))[0] == 200
            assert hub.hub.events.errors == {}
            await device.disconnect()
