"""`gatewayd emulator` as a process of its own, and what it refuses."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from gatewayd.emulator import program
from gatewayd.emulator.registry import load_registry
from tests.support.emulated_hub import emulated_hub, sas_token
from tests.support.raw_device import RawDevice

START = """
import argparse, sys
from gatewayd.emulator import program
parser = argparse.ArgumentParser()
program.add_arguments(parser)
sys.exit(program.run(parser.parse_args()))
"""


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    program.add_arguments(parser)
    return parser.parse_args(words)


@dataclass(frozen=True, slots=True)
class Desk:
    """What a device needs to meet the program's hub."""

    host: str
    port: int
    hostname: str
    authority: Path
    key: bytes

    def client_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority)
        return context

    def username(self, identity: str) -> str:
        return f"{self.hostname}/{identity}/?api-version=2021-04-12"

    def token(self, identity: str, lifetime: float = 3600.0) -> str:
        return sas_token(self.hostname, identity, self.key, 4_000_000_000)


async def test_the_program_serves_derived_devices_and_ends_with_its_account(tmp_path: Path) -> None:
    devices, authority, events = (tmp_path / name for name in ("devices.csv", "ca.pem", "events.jsonl"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", START, "--listen", "127.0.0.1:0", "--hostname", "desk.test"),
        *(
            "--websocket-port",
            "0",
            "--device-count",
            "3",
            "--write-devices",
            str(devices),
            "--write-ca",
            str(authority),
        ),
        *("--events", str(events), "--control", "127.0.0.1:0", "--grace", "0", "--skew", "0", "--json"),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(program.__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            greeting = json.loads(await process.stdout.readline())
        assert greeting["identities"] == 3
        assert greeting["websocket_port"] not in (0, None, greeting["port"])
        identity = next(iter(load_registry(devices)))
        desk = Desk(greeting["host"], greeting["port"], greeting["hostname"], authority, identity.primary_key)
        device = await RawDevice.connect(desk, identity.name)
        await device.publish(b"x")
        await device.disconnect()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{greeting['control_port']}/summary") as response,
        ):
            assert (await response.json())["messages_at_hub"] == 1
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0
    summary = json.loads(out)
    assert (summary["planned_disconnects"], summary["hub_errors"]) == (1, {})
    operations = [json.loads(line)["operation"] for line in events.read_text().splitlines()]
    assert operations == ["hub", "deviceConnect", "deviceDisconnect"]
    assert stat.S_IMODE(devices.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "nonsense"], "expected ADDRESS:PORT"),
        (["--listen", "127.0.0.1:99999"], "expected ADDRESS:PORT"),
        (["--listen", "127.0.0.1:0", "--devices", "/nonexistent/devices.csv"], "No such file"),
        (["--listen", "127.0.0.1:0", "--group-key", "%"], "not base64"),
        (["--listen", "127.0.0.1:0", "--device-count", "-1"], "allowed 0 to"),
        (["--listen", "127.0.0.1:0", "--control", "0.0.0.0:0"], "only loopback"),
        (["--listen", "127.0.0.1:0", "--send-rate", "-1"], "sends_per_second=-1"),
        (["--listen", "127.0.0.1:0", "--websocket-port", "65536"], "allowed 0 to 65535"),
    ],
)
def test_what_cannot_be_started_is_said_in_one_line_with_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run(arguments(*words)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_device_file_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text("id,primary_key\ndev-9,AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    registry = program.make_registry(arguments("--devices", str(path)))
    assert [identity.name for identity in registry] == ["dev-9"]


@pytest.mark.parametrize(
    ("text", "address"), [("127.0.0.1:8883", ("127.0.0.1", 8883)), ("[::1]:0", ("::1", 0))]
)
def test_an_address_is_read(text: str, address: tuple[str, int]) -> None:
    assert program.parse_address(text) == address


async def test_the_greeting_tells_how_to_point_gatewayd_and_a_device_at_it(tmp_path: Path) -> None:
    async with emulated_hub("dev-01", grace=5.0) as desk:
        text = program.greeting(desk.hub, 8080, tmp_path / "ca.pem")
        assert 'hostname = "hub.test"' in text
        assert f'mqtt = "127.0.0.1:{desk.port}"' in text
        assert f'trusted_ca = "{tmp_path / "ca.pem"}"' in text
        assert "HostName=hub.test;DeviceId=dev-01" in text
        assert "curl http://127.0.0.1:8080/summary" in text
        assert "--write-ca" in program.greeting(desk.hub, 0, None)
