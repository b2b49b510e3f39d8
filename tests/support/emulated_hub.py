"""An emulated hub in this process, on a free loopback port, with its own authority and a fleet of known keys.

    async with emulated_hub("dev-01", "dev-01/mod") as desk:
        desk.hub.arm(FaultKind.CONNACK_3, count=1)
        device = await RawDevice.connect(desk, "dev-01")

Grace and skew are 0 here unless asked for, so that a token ends when it says.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

from gatewayd.clock import Clock, SystemClock
from gatewayd.emulator.certificate import HubCertificate, make_certificate
from gatewayd.emulator.connect_throttle import OverRate
from gatewayd.emulator.hub import HubEmulator
from gatewayd.emulator.hub_state import HubSettings
from gatewayd.emulator.registry import Policy, RegisteredIdentity, Registry

HOSTNAME = "hub.test"
POLICY_KEY = b"policy key of the emulated hub.."


def device_key(identity: str) -> bytes:
    """The primary key of an identity here: 32 bytes that follow from its name."""
    return hashlib.sha256(identity.encode()).digest()


def device_key_text(identity: str) -> str:
    return base64.b64encode(device_key(identity)).decode()


def sas_token(hostname: str, identity: str, key: bytes, expiry: int, skn: str = "") -> str:
    """A token as the Python SDK writes it, made with the standard library alone."""
    device, _, module = identity.partition("/")
    path = f"{hostname}/devices/{device}" + (f"/modules/{module}" if module else "")
    sr = quote(path, safe="")
    signature = base64.b64encode(hmac.new(key, f"{sr}\n{expiry}".encode(), hashlib.sha256).digest())
    token = f"SharedAccessSignature sr={sr}&sig={quote(signature, safe='')}&se={expiry}"
    return f"{token}&skn={skn}" if skn else token


@functools.cache
def desk_certificate(hostname: str = HOSTNAME) -> HubCertificate:
    """One for each host name of a run."""
    return make_certificate(hostname, ["localhost", "127.0.0.1"], wall=SystemClock().wall())


@dataclass(frozen=True, slots=True)
class DeskHub:
    """A running hub and what a device needs to meet it."""

    hub: HubEmulator
    certificate: HubCertificate
    clock: Clock

    @property
    def host(self) -> str:
        return self.hub.address[0]

    @property
    def port(self) -> int:
        return self.hub.address[1]

    @property
    def hostname(self) -> str:
        return self.hub.settings.hostname

    def client_context(self) -> ssl.SSLContext:
        return self.certificate.client_context()

    def username(self, identity: str) -> str:
        return f"{self.hostname}/{identity}/?api-version=2021-04-12"

    def token(
        self, identity: str, lifetime: float = 3600.0, *, key: bytes | None = None, skn: str = ""
    ) -> str:
        expiry = int(self.clock.wall() + lifetime)
        return sas_token(self.hostname, identity, key or device_key(identity), expiry, skn)


@asynccontextmanager
async def emulated_hub(
    *identities: str,
    hostname: str = HOSTNAME,
    host: str = "127.0.0.1",
    port: int = 0,
    grace: float = 0.0,
    skew: float = 0.0,
    connects_per_second: int = 0,
    over_rate: OverRate = OverRate.DROP,
    tls13: bool = False,
    websocket_port: int | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[DeskHub]:
    """A hub that knows `identities` (secondary keys are the primary of `{identity}:2`) and the usual policies."""
    registry = Registry(
        [RegisteredIdentity(name, device_key(name), device_key(f"{name}:2")) for name in identities],
        [
            Policy("device", POLICY_KEY, POLICY_KEY, frozenset({"DeviceConnect"})),
            Policy("service", POLICY_KEY, POLICY_KEY, frozenset({"ServiceConnect"})),
        ],
    )
    certificate = desk_certificate(hostname)
    hub = HubEmulator(
        registry,
        HubSettings(hostname, skew_seconds=skew, grace_seconds=grace),
        certificate,
        clock=clock,
        connects_per_second=connects_per_second,
        over_rate=over_rate,
        tls13=tls13,
    )
    await hub.start(host, port, websocket_port=websocket_port)
    try:
        yield DeskHub(hub, certificate, hub.clock)
    finally:
        await hub.stop()
