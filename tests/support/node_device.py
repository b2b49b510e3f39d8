"""An unmodified azure-iot-device client for Node in a process of its own, where node and its packages are installed.

They are found as node finds them: in a `node_modules` above this folder, or in a folder named by NODE_PATH.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.azure_device import AzureDevice

CHILD = Path(__file__).with_name("node_child.js")
PACKAGES = ("azure-iot-device", "azure-iot-device-mqtt")


def why_no_node_device() -> str | None:
    """What is missing, for a test that says why it is skipped."""
    node = shutil.which("node")
    if node is None:
        return "node is not installed"
    program = ";".join(f"require.resolve('{name}')" for name in PACKAGES)
    found = subprocess.run(
        [node, "-e", program],
        cwd=CHILD.parent,
        env=os.environ,
        capture_output=True,
        timeout=20.0,
        check=False,
    )
    return None if found.returncode == 0 else f"npm packages {' and '.join(PACKAGES)} are not installed"


@asynccontextmanager
async def node_device(
    hostname: str, device_id: str, authority: str, *, key: str, gateway: str
) -> AsyncIterator[AzureDevice]:
    """A client of `hostname` that dials `gateway`, "host:port"."""
    parts = {"HostName": hostname, "DeviceId": device_id, "SharedAccessKey": key, "GatewayHostName": gateway}
    spec = {
        "connection_string": ";".join(f"{name}={value}" for name, value in parts.items()),
        "authority": authority,
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        str(CHILD),
        json.dumps(spec),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield AzureDevice(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
