"""MQTT over WebSocket from end to end: unmodified clients at the daemon, the daemon at the hub, a real proxy between.

The SDK dials port 443 and cannot be told another, so the daemon listens there on a loopback address of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.azure_device import azure_device, own_loopback_address
from tests.support.daemon_process import daemon_process
from tests.support.emulated_hub import device_key_text, emulated_hub
from tests.support.gateway_files import GatewaySite, free_port
from tests.support.gateway_rig import gateway_rig
from tests.support.proxy_rig import proxy_rig
from tests.support.raw_device import RawDevice, connect_bytes

HTTPS_PORT = 443
WITHIN_SECONDS = 30.0


def may_bind_443() -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", HTTPS_PORT))
        except PermissionError:
            return False
        except OSError:
            return True  # taken here, free on another address
    return True


needs_443 = pytest.mark.skipif(not may_bind_443(), reason="port 443 needs root or CAP_NET_BIND_SERVICE")


@pytest.mark.system
@needs_443
async def test_the_python_sdk_over_websockets_is_a_device_like_any_other(tmp_path: Path) -> None:
    address = own_loopback_address(HTTPS_PORT)
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(
            tmp_path, hub, ["dev-01"], host=address, listener=f'websocket_address = "{address}:{HTTPS_PORT}"'
        )
        async with (
            daemon_process(site),
            azure_device(
                hub.hostname,
                "dev-01",
                site.authority.read_text(),
                key=device_key_text("dev-01"),
                gateway_hostname=address,
                websockets=True,
            ) as device,
        ):
            await device.connect()
            wanted = [f"m{number}" for number in range(50)]
            for mid in wanted:
                await device.send(mid)
            assert hub.hub.ledger.missing("dev-01", wanted) == []
            await device.stop()


@pytest.mark.system
@needs_443
async def test_the_python_sdk_over_websockets_meets_the_emulated_hub_itself() -> None:
    address = own_loopback_address(HTTPS_PORT)
    async with emulated_hub("dev-01", hostname=address, host=address, websocket_port=HTTPS_PORT) as hub:
        authority = hub.certificate.authority_pem.decode()
        async with azure_device(
            address, "dev-01", authority, key=device_key_text("dev-01"), websockets=True
        ) as device:
            await device.connect()
            await device.send("m0")
            assert hub.hub.ledger.missing("dev-01", ["m0"]) == []
            await device.stop()


# The hub side


@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
async def test_a_message_reaches_the_hub_on_either_transport_through_a_proxy(
    tmp_path: Path, transport: str
) -> None:
    async with emulated_hub("dev-01", websocket_port=0) as hub, proxy_rig() as proxy:
        assert hub.hub.websocket_address is not None
        target = hub.port if transport == "mqtt" else hub.hub.websocket_address[1]
        async with gateway_rig(
            tmp_path,
            "dev-01",
            hub=hub,
            hub_lines=f'transport = "{transport}"\nproxy = "http://127.0.0.1:{proxy.port}"',
            endpoints=f'websocket = "127.0.0.1:{hub.hub.websocket_address[1]}"',
            lifetime=3600,
        ) as rig:
            device = await RawDevice.connect(rig.site, "dev-01")
            await device.publish(b"through", "$.mid=one")
            await device.disconnect()
            assert [message.payload for message in hub.hub.ledger.of("dev-01")] == [b"through"]
        assert set(proxy.targets) == {f"127.0.0.1:{target}"}
        assert hub.hub.events.errors == {}


@pytest.mark.parametrize("handover", ["strict", "fast"])
async def test_renewals_over_websocket_lose_nothing_and_the_hub_sees_no_error(
    tmp_path: Path, handover: str
) -> None:
    async with emulated_hub("dev-01", websocket_port=0) as hub:
        assert hub.hub.websocket_address is not None
        async with gateway_rig(
            tmp_path,
            "dev-01",
            hub=hub,
            hub_lines='transport = "websocket"',
            endpoints=f'websocket = "127.0.0.1:{hub.hub.websocket_address[1]}"',
            lifetime=10,
            tokens=f'handover = "{handover}"\nrenew_earliest = 0.10\nrenew_latest = 0.30',
        ) as rig:
            device = await RawDevice.connect(rig.site, "dev-01")
            sent = 0
            async with asyncio.timeout(WITHIN_SECONDS):
                while hub.hub.summary().connects < 3:
                    await device.publish(b"again", f"$.mid=m{sent}", packet_id=1 + sent % 1000)
                    sent += 1
                    await asyncio.sleep(0.01)
            await device.disconnect()
            assert hub.hub.ledger.missing("dev-01", [f"m{number}" for number in range(sent)]) == []
            assert hub.hub.events.errors == {}
            assert hub.hub.summary().unplanned_disconnects == 0


async def test_a_refusing_proxy_costs_no_message_and_is_said_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        emulated_hub("dev-01") as hub,
        proxy_rig(refuse=407) as proxy,
        gateway_rig(tmp_path, "dev-01", hub=hub, hub_lines=f'proxy = "http://127.0.0.1:{proxy.port}"') as rig,
    ):
        device = await RawDevice.connect(rig.site, "dev-01")
        await rig.until(lambda: "set hub.proxy_credentials" in caplog.text)
        proxy.refuse = None
        await device.publish(b"late", "$.mid=one")
        await device.disconnect()
        await rig.until(lambda: hub.hub.ledger.missing("dev-01", ["one"]) == [], WITHIN_SECONDS)


async def test_a_proxy_that_ends_both_ways_at_one_fin_breaks_no_renewal_over_websocket(
    tmp_path: Path,
) -> None:
    async with (
        emulated_hub("dev-01", websocket_port=0) as hub,
        proxy_rig(cut_on_half_close=True) as proxy,
    ):
        assert hub.hub.websocket_address is not None
        async with gateway_rig(
            tmp_path,
            "dev-01",
            hub=hub,
            hub_lines=f'transport = "websocket"\nproxy = "http://127.0.0.1:{proxy.port}"',
            endpoints=f'websocket = "127.0.0.1:{hub.hub.websocket_address[1]}"',
            lifetime=10,
            tokens="renew_earliest = 0.10\nrenew_latest = 0.30",
        ) as rig:
            device = await RawDevice.connect(rig.site, "dev-01")
            await rig.until(lambda: hub.hub.summary().connects >= 3, WITHIN_SECONDS)
            await device.disconnect()
            assert hub.hub.events.errors == {}
            assert hub.hub.summary().unplanned_disconnects == 0


# A proxy that others wrote


@contextlib.asynccontextmanager
async def tinyproxy(folder: Path, user: str = "", password: str = "") -> AsyncIterator[int]:
    program, port = shutil.which("tinyproxy"), free_port()
    if program is None:
        pytest.skip("tinyproxy is not installed (Debian package tinyproxy)")
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "Allow 127.0.0.1", f'LogFile "{folder}/log"']
    if user:
        lines.append(f"BasicAuth {user} {password}")
    config = folder / "tinyproxy.conf"
    config.write_text("\n".join(lines) + "\n")
    process = await asyncio.create_subprocess_exec(
        program, "-d", "-c", os.fspath(config), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        yield port
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.system
@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
async def test_through_tinyproxy_with_a_password_messages_and_renewals_get_through(
    tmp_path: Path, transport: str
) -> None:
    async with (
        emulated_hub("dev-01", websocket_port=0) as hub,
        tinyproxy(tmp_path, "gateway", "hunter2") as port,
    ):
        assert hub.hub.websocket_address is not None
        secret = tmp_path / "proxy"
        secret.write_text("gateway:hunter2\n")
        secret.chmod(0o600)
        async with gateway_rig(
            tmp_path,
            "dev-01",
            hub=hub,
            hub_lines=(
                f'transport = "{transport}"\nproxy = "http://127.0.0.1:{port}"\nproxy_credentials = "proxy"'
            ),
            endpoints=f'websocket = "127.0.0.1:{hub.hub.websocket_address[1]}"',
            lifetime=10,
            tokens="renew_earliest = 0.10\nrenew_latest = 0.30",
        ) as rig:
            device = await RawDevice.connect(rig.site, "dev-01")
            await device.publish(b"through", "$.mid=one")
            await rig.until(lambda: hub.hub.summary().connects >= 3, WITHIN_SECONDS)
            await device.disconnect()
            assert hub.hub.ledger.missing("dev-01", ["one"]) == []
            assert hub.hub.events.errors == {}
            assert "CONNECT 127.0.0.1:" in (tmp_path / "log").read_text()


# The device side beside the other door


async def test_both_doors_lead_to_the_same_sessions(tmp_path: Path) -> None:
    websocket_port = free_port()
    async with gateway_rig(
        tmp_path, "dev-01", listener=f'websocket_address = "127.0.0.1:{websocket_port}"'
    ) as rig:
        device = await RawDevice.connect(rig.site, "dev-01")
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(
                f"https://127.0.0.1:{websocket_port}/$iothub/websocket",
                ssl=rig.site.client_context(),
                server_hostname=rig.site.hostname,
                protocols=("mqtt",),
            ) as ws,
        ):
            site = rig.site
            await ws.send_bytes(connect_bytes("dev-01", site.username("dev-01"), site.token("dev-01")))
            assert (await ws.receive_bytes(timeout=WITHIN_SECONDS))[3] == 0
            assert await device.ended() == b"", "the newer session ends the older"
            assert len(rig.gateway.listener) == 1
