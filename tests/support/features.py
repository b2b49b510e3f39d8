"""Runs the feature script in a process of its own and gives its transcript.

async with controlled_hub("dev", "dev/mod", "plain", ...) as (desk, control):
    transcript = await run_features(desk, control, authority=..., gateway="")
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gatewayd.emulator.control import ControlServer
from tests.support.azure_device import SDK_PORT, own_loopback_address
from tests.support.emulated_hub import DeskHub, device_key_text, emulated_hub

SCRIPT = Path(__file__).with_name("feature_script.py")
ROOT = SCRIPT.parents[2]
NODE = ROOT / "tests" / "node"
DEVICE, MODULE, PLAIN = "dev-01", "dev-01/mod", "dev-02"
IDENTITIES = (DEVICE, MODULE, PLAIN)
STORIES = ("device", "module", "renewal", "plain")
WEBSOCKET_PORT = 443  # the SDKs know no other
WITHIN_SECONDS = 60.0


def need_port(port: int) -> None:
    """Skips where this user may not listen on a port so low."""
    with socket.socket() as sock:
        try:
            sock.bind((own_loopback_address(port), port))
        except PermissionError:
            pytest.skip(
                f"port {port} needs CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start below it"
            )


def python_client() -> list[str]:
    """The script on azure-iot-device for Python and paho-mqtt."""
    return [sys.executable, str(SCRIPT)]


def node_client() -> list[str]:
    """The device's story on azure-iot-device for Node; skips where it is not installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (NODE / "node_modules" / "azure-iot-device").is_dir():
        pytest.skip("the Node SDK is not installed: npm ci --prefix tests/node")
    return [node, str(NODE / "feature_script.js")]


class ScriptFailed(AssertionError):
    """The script did not come to its end; says what it had told and why it stopped."""


@asynccontextmanager
async def feature_hub(*, websockets: bool = False) -> AsyncIterator[tuple[DeskHub, str]]:
    """A hub where the SDK can find it, and the address of its remote control."""
    address = own_loopback_address()
    port = WEBSOCKET_PORT if websockets else None
    async with emulated_hub(
        *IDENTITIES, hostname=address, host=address, port=SDK_PORT, websocket_port=port
    ) as desk:
        control = ControlServer(desk.hub)
        await control.start("127.0.0.1", 0)
        try:
            yield desk, f"http://127.0.0.1:{control.port}"
        finally:
            await control.close()


async def run_features(
    desk: DeskHub,
    control: str,
    *,
    gateway: str = "",
    authority: str = "",
    websockets: bool = False,
    stories: Sequence[str] = STORIES,
    client: Sequence[str] = (),
) -> list[str]:
    """The transcript of a run straight at the hub, or at `gateway`, whose `authority` is PEM text."""
    script = {
        "hostname": desk.hostname,
        "gateway": gateway,
        "authority": authority or desk.certificate.authority_pem.decode(),
        "control": control,
        "keys": {name: device_key_text(name) for name in IDENTITIES},
        "token": desk.token(PLAIN),
        "device": DEVICE,
        "module": MODULE,
        "plain": PLAIN,
        "websockets": websockets,
        "stories": list(stories),
    }
    process = await asyncio.create_subprocess_exec(
        *(client or python_client()),
        json.dumps(script),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    communicating = asyncio.ensure_future(process.communicate())
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            out, error = await asyncio.shield(communicating)
    except TimeoutError:
        process.kill()
        out, error = await communicating
        raise ScriptFailed(f"not within {WITHIN_SECONDS:g} s; it told {out.decode()[-2000:]}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await communicating
    transcript = out.decode().splitlines()
    if process.returncode != 0:
        raise ScriptFailed(f"after {transcript[-3:]}: {error.decode()[-2000:]}")
    return transcript
