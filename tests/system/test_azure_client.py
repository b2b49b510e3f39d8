"""An unmodified azure-iot-device client with `gateway_hostname` at the daemon: the device gatewayd is made for.

The SDK knows no port but 8883, so the listener has a loopback address of its own.
"""

from __future__ import annotations

from pathlib import Path

from gatewayd.emulator.topics import message_id
from tests.support.azure_device import SDK_PORT, azure_device, own_loopback_address
from tests.support.daemon_process import daemon_process
from tests.support.emulated_hub import device_key_text, emulated_hub
from tests.support.gateway_files import GatewaySite

MESSAGES = 1000
# The SDK renews 120 s before the end (SasTokenStage in its pipeline_stages_base.py), so this one is renewed after 4 s.
TTL_SECONDS = 124


async def test_it_sends_a_thousand_messages_across_a_renewal_of_its_own_and_all_are_at_the_hub(
    tmp_path: Path,
) -> None:
    address = own_loopback_address()
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01"], host=address, port=SDK_PORT)
        async with (
            daemon_process(site) as daemon,
            azure_device(
                hub.hostname,
                "dev-01",
                site.authority.read_text(),
                key=device_key_text("dev-01"),
                gateway_hostname=address,
                sastoken_ttl=TTL_SECONDS,
            ) as device,
        ):
            await device.connect()
            wanted = [f"m{number}" for number in range(MESSAGES)]
            for mid in wanted[: MESSAGES // 2]:
                await device.send(mid)
            renewals = [event for event in device.events if event["event"] == "connected"]
            if len(renewals) < 2:
                await device.until("connected")
            for mid in wanted[MESSAGES // 2 :]:
                await device.send(mid)
            await device.stop()
            assert len(daemon.said("a device connected")) >= 2
            assert hub.hub.ledger.missing("dev-01", wanted) == []
            assert message_id(hub.hub.ledger.of("dev-01")[0].bag) == "m0"
            assert hub.hub.events.errors == {}
            assert hub.hub.summary().connects == 1, "the device's renewal is none of the hub's business"
