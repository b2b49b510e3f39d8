"""Everything a stranger, a broken device and an operator can do wrong, at one daemon: a clear error each.

A bystander publishes throughout and must notice nothing: one connection, every message receipted and at the hub, once.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from gatewayd.daemon.exit_codes import ExitCode
from tests.support.daemon_process import DaemonProcess, LogLine, daemon_process
from tests.support.emulated_hub import emulated_hub
from tests.support.gateway_files import GatewaySite
from tests.support.raw_device import Gone, RawDevice, connect_bytes, frame, publish_bytes
from tests.support.talking_device import talking_device

KIB = 1024
NOT_AUTHORIZED = 5

FIVE_MISTAKES = {
    'lifetime = "3600s"': "lifetime = 3600",
    "[listener]": '[listener]\nhandshake_deadlin = "3s"',
    "[hub.session]": "[hub.session]\nwindow = 0",
    "[devices]": '[tokens.backoff]\nfirst = "2m"\n[devices]',
    "[metrics]": '[shutdown]\ndeadline = "forever"\n[metrics]',
}
THEIR_KEYS = (
    "hub.session.window",
    "tokens.lifetime",
    "tokens.backoff.first",
    "listener.handshake_deadlin",
    "shutdown.deadline",
)


@dataclass(frozen=True, slots=True)
class Offence:
    """What is done, what the log says about it, and under which reason it is counted."""

    commit: Callable[[GatewaySite], Awaitable[None]]
    says: str
    metric: str
    reason: str

    def is_told(self, log: list[LogLine]) -> bool:
        """Whether these lines tell it."""
        return any(
            self.says in line["message"] and line.get("reason", "tls_handshake") == self.reason
            for line in log
        )


async def say(site: GatewaySite, data: bytes, *, connected: bool) -> None:
    """Send something wrong; the connection must end without another answer."""
    device = await (RawDevice.connect(site, "dev-02") if connected else RawDevice.dial(site, "dev-02"))
    device.send(data)
    assert await device.ended() == b""


async def refused(site: GatewaySite, token: str) -> None:
    """A CONNECT with this token is answered 5, and the connection is closed."""
    device = await RawDevice.dial(site, "dev-02")
    device.send(connect_bytes("dev-02", site.username("dev-02"), token))
    assert await device.connack() == NOT_AUTHORIZED
    assert await device.ended() == b""


async def silent(site: GatewaySite) -> None:
    """TLS, and then no CONNECT."""
    device = await RawDevice.dial(site, "dev-02")
    assert await device.ended() == b""


async def slow_connect(site: GatewaySite) -> None:
    """A CONNECT that drips in byte by byte is no CONNECT in time."""
    device = await RawDevice.dial(site, "dev-02")
    with suppress(ConnectionError, ssl.SSLError):
        for byte in connect_bytes("dev-02", site.username("dev-02"), site.token("dev-02"))[:20]:
            device.send(bytes([byte]))
            await asyncio.sleep(0.1)  # this slowness is what is tested
    with pytest.raises(Gone):
        await device.read()
    await device.close()


async def no_tls(site: GatewaySite) -> None:
    reader, writer = await asyncio.open_connection(site.host, site.port)
    writer.write(connect_bytes("dev-02", "x", "y"))
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            await reader.read()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def no_handshake(site: GatewaySite) -> None:
    """TCP, and then nothing."""
    reader, writer = await asyncio.open_connection(site.host, site.port)
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


OTHERS_TOPIC = "devices/dev-01/messages/events/"
OWN_TOPIC = "devices/dev-02/messages/events/"
REFUSED, ENDED = "gatewayd_device_refusals_total", "gatewayd_disconnects_total"
OFFENCES = {
    "no TLS": Offence(no_tls, "did not finish its TLS handshake", REFUSED, "tls_handshake"),
    "no handshake": Offence(no_handshake, "did not finish its TLS handshake", REFUSED, "tls_handshake"),
    "garbage instead of CONNECT": Offence(
        lambda site: say(site, b"GET / HTTP/1.1\r\n\r\n", connected=False),
        "ended before",
        REFUSED,
        "malformed",
    ),
    "PUBLISH before CONNECT": Offence(
        lambda site: say(site, publish_bytes(OWN_TOPIC, b"x"), connected=False),
        "ended before",
        REFUSED,
        "protocol_violation",
    ),
    "a packet of type 15": Offence(
        lambda site: say(site, frame(0xF0, b""), connected=True), "a device left", ENDED, "malformed"
    ),
    "a length of five bytes": Offence(
        lambda site: say(site, b"\x32\xff\xff\xff\xff\x01", connected=True),
        "a device left",
        ENDED,
        "malformed",
    ),
    "QoS 3": Offence(
        lambda site: say(site, frame(0x36, b"\x00\x01a\x00\x01"), connected=True), "left", ENDED, "malformed"
    ),
    "QoS 2": Offence(
        lambda site: say(site, publish_bytes(OWN_TOPIC, b"x", qos=2), connected=True), "left", ENDED, "qos2"
    ),
    "a second CONNECT": Offence(
        lambda site: say(site, connect_bytes("dev-02", "x", "y"), connected=True),
        "a device left",
        ENDED,
        "protocol_violation",
    ),
    "another device's topic": Offence(
        lambda site: say(site, publish_bytes(OTHERS_TOPIC, b"x"), connected=True),
        "a device left",
        ENDED,
        "foreign_topic",
    ),
    "a message over 256 KiB": Offence(
        lambda site: say(site, publish_bytes(OWN_TOPIC, bytes(256 * KIB + 1)), connected=True),
        "a message of 262145 bytes, at most 262144",
        ENDED,
        "too_large",
    ),
    "a packet that claims 200 MiB": Offence(
        lambda site: say(site, b"\x32\x80\x80\x80\x64", connected=True), "a device left", ENDED, "too_large"
    ),
    "a token signed with another key": Offence(
        lambda site: refused(site, site.token("dev-02", key=b"k" * 32)),
        "the device's key is not the one in the device file",
        REFUSED,
        "bad_signature",
    ),
    "a token that has run out": Offence(
        lambda site: refused(site, site.token("dev-02", -3600.0)), "the token ran out", REFUSED, "expired"
    ),
    "a token of another device": Offence(
        lambda site: refused(site, site.token("dev-01")), "another device", REFUSED, "wrong_audience"
    ),
    "no token at all": Offence(
        lambda site: refused(site, "password"), "a device is refused", REFUSED, "malformed_token"
    ),
    "no CONNECT": Offence(silent, "ended before", REFUSED, "connect_timeout"),
    "a CONNECT that drips": Offence(slow_connect, "ended before", REFUSED, "connect_timeout"),
}


async def five_mistakes(daemon: DaemonProcess) -> None:
    """A reload of a file with five mistakes names all five, and the old configuration goes on."""
    for before, after in FIVE_MISTAKES.items():
        daemon.site.rewrite(before, after)
    ready = daemon.notified("READY=1")
    daemon.tell(signal.SIGHUP)
    await daemon.until_notified("READY=1", ready + 1)
    words = "reload refused, the old configuration goes on"
    await daemon.until_said(words, len(FIVE_MISTAKES))
    told = daemon.said(words)
    assert len(told) == len(FIVE_MISTAKES)
    for key in THEIR_KEYS:
        assert any(f"{key} (line " in line["message"] for line in told), key


def counted(metrics: dict[str, float], offence: Offence) -> float:
    return sum(
        value
        for name, value in metrics.items()
        if name.startswith(offence.metric) and f'reason="{offence.reason}"' in name
    )


async def test_every_wrong_input_gets_its_error_and_the_others_go_on(tmp_path: Path) -> None:
    async with emulated_hub("dev-01", "dev-02") as hub:
        site = GatewaySite.make(
            tmp_path,
            hub,
            ["dev-01", "dev-02"],
            listener='connect_deadline = "1s"\nhandshake_deadline = "1s"\nhold = "1s"\n'
            "connects_per_device_per_minute = 1000",
            more='[log]\nlevel = "debug"',
        )
        async with daemon_process(site) as daemon, talking_device(site, "dev-01") as bystander:
            told: set[tuple[str, str]] = set()
            for what, offence in OFFENCES.items():
                before = len(daemon.log)
                await offence.commit(site)
                await daemon.until(lambda it, told=offence, since=before: told.is_told(it.log[since:]))  # type: ignore[misc]  # defaults bind the loop's values
                line = next(line for line in daemon.log[before:] if offence.is_told([line]))
                kind = (offence.metric, offence.reason)
                assert line["level"] == ("debug" if kind in told else "warning"), what
                told.add(kind)
            await five_mistakes(daemon)
            await asyncio.sleep(1.0)  # a page is kept for a second
            metrics = await daemon.metrics()
            for what, offence in OFFENCES.items():
                same = sum(
                    (one.metric, one.reason) == (offence.metric, offence.reason) for one in OFFENCES.values()
                )
                assert counted(metrics, offence) == same, what
            assert daemon.said("fault of gatewayd") == []
            status, _ = await daemon.get("/readyz")
            assert status == 200
        # The bystander's block has ended without an error: it was never cut off.
        assert bystander.sent == bystander.receipted
        assert [one.message_id for one in hub.hub.ledger.of("dev-01")] == bystander.sent
        assert bystander.slowest < 2.0
        assert hub.hub.events.unplanned == 0


async def test_a_start_with_five_mistakes_tells_all_five_and_opens_nothing(tmp_path: Path) -> None:
    async with emulated_hub("dev-01") as hub:
        site = GatewaySite.make(tmp_path, hub, ["dev-01"])
        for before, after in FIVE_MISTAKES.items():
            site.rewrite(before, after)
        async with daemon_process(site, ready=False) as daemon:
            assert await daemon.ended() == ExitCode.CONFIG
            assert len(daemon.output) == len(FIVE_MISTAKES)
            for key in THEIR_KEYS:
                told = [line for line in daemon.output if f"{key} (line " in line]
                assert len(told) == 1, key
                assert "allowed" in told[0] or "did you mean" in told[0], key
            assert hub.hub.summary().connects == 0
