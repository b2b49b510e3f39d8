"""No key leaves the daemon: canary keys in the device file, and a search of everything the daemon says and shows.

The search is for each key in every form it has on the way: as in the file, as bytes, in hexadecimal, and as in a URL.
It also goes through the daemon's memory: after load a key exists there only as what was made of it.
"""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote

from tests.support.daemon_process import daemon_process
from tests.support.emulated_hub import DeskHub, device_key, emulated_hub
from tests.support.gateway_files import GatewaySite
from tests.support.raw_device import RawDevice, connect_bytes
from tests.support.talking_device import talking_device

PAGES = ("/metrics", "/livez", "/readyz", "/", "/api/fleet", "/api/devices", "/nonsense")
NAMES = ("dev-01", "dev-02", "dev-03")


def forms(key: bytes) -> dict[str, bytes]:
    """How a key may look."""
    text = base64.b64encode(key).decode()
    return {
        "base64": text.encode(),
        "URL": quote(text, safe="").encode(),
        "bytes": key,
        "hexadecimal": key.hex().encode(),
        "repr": repr(key)[2:-1].encode(),
    }


def canaries() -> dict[str, bytes]:
    """Every form of every key in the device file, by a name for messages."""
    keys = {name: device_key(name) for name in NAMES}
    keys |= {f"{name} secondary": device_key(f"{name}:2") for name in NAMES}
    return {f"{who}, {form}": look for who, key in keys.items() for form, look in forms(key).items()}


def found(where: bytes) -> list[str]:
    return [what for what, look in canaries().items() if look in where]


def face(pid: int) -> bytes:
    """What any user of the machine, or its owner, can see of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline", "comm"))


def memory(pid: int) -> bytes:
    """Everything a process has in memory that can be written to, as its parent may read it."""
    parts: list[bytes] = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, mode = line.split()[:2]
            if not mode.startswith("rw") or "[v" in line:
                continue
            start, end = (int(number, 16) for number in place.split("-"))
            mem.seek(start)
            try:
                parts.append(mem.read(end - start))
            except OSError:  # a guard page
                continue
    return b"\0".join(parts)


async def misbehave(site: GatewaySite) -> None:
    """Give the daemon reasons to speak of credentials."""
    for token in (site.token("dev-02", key=b"k" * 32), site.token("dev-02", -3600.0), "sig=nonsense"):
        device = await RawDevice.dial(site, "dev-02")
        device.send(connect_bytes("dev-02", site.username("dev-02"), token))
        assert await device.connack() == 5
        await device.ended()


def test_the_search_finds_a_key_in_every_form() -> None:
    for look in canaries().values():
        assert found(b"..." + look + b"...")
    assert found(b"nothing of the kind") == []


async def test_no_key_is_in_a_log_line_a_page_or_the_process(tmp_path: Path) -> None:
    async with emulated_hub(*NAMES) as hub:
        site = make_site(tmp_path, hub)
        assert len(found(site.devices.read_bytes())) == 2 * len(NAMES)
        async with daemon_process(site) as daemon, talking_device(site, "dev-01"):
            await misbehave(site)
            hub.hub.drop("dev-01")
            await daemon.until_said("at the hub again")
            shown = "".join([(await daemon.get(page))[1] for page in PAGES])
            assert "gatewayd_build_info" in shown
            assert "dev-01" in shown
            assert found(face(daemon.pid)) == []
            assert found(shown.encode()) == []
            in_memory = memory(daemon.pid)
            assert b"hub.test" in in_memory
            assert found(in_memory) == []
        said = "\n".join(daemon.output)
        assert "SharedAccessSignature sr" not in said
        assert "sig=" not in said
        assert found(said.encode()) == []
        assert found("".join(daemon.notifications).encode()) == []


def make_site(folder: Path, hub: DeskHub) -> GatewaySite:
    return GatewaySite.make(
        folder, hub, NAMES, listener='hold = "1s"', more='[log]\nlevel = "debug"', lifetime=3600
    )
