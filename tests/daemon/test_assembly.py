"""The daemon as assembled: what passes through it, what a reload changes in it, and how it ends."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509

from gatewayd.daemon.assembly import Gateway
from gatewayd.daemon.clock_floor import SAVE_SECONDS, read_floor
from gatewayd.daemon.config import Applies, settings
from gatewayd.emulator.event_log import Operation
from gatewayd.emulator.faults import FaultKind
from gatewayd.errors import ConfigError
from gatewayd.message import Identity
from gatewayd.store.messages import WhenFull
from gatewayd.upstream.handover import Mode
from gatewayd.upstream.session import State
from tests.support.gateway_rig import GatewayRig, SetClock, gateway_rig
from tests.support.raw_device import PUBACK, RawDevice, connect_bytes, publish_bytes

DEV = Identity("dev-01")
YEAR = 366 * 86_400.0


def value(rig: GatewayRig, name: str, **labels: str) -> float:
    found = rig.gateway.registry.get_sample_value(name, labels)
    assert found is not None, name
    return found


# Serving


async def test_telemetry_reaches_the_hub_and_its_receipt_the_device(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, "dev-01") as rig:
        assert rig.gateway.status.ready().good
        device = await RawDevice.connect(rig.site, "dev-01")
        await device.publish(b"21.5", "%24.mid=m1")
        assert [message.payload for message in rig.hub.hub.ledger.of("dev-01")] == [b"21.5"]
        await device.disconnect()


async def test_the_expiry_of_both_certificates_is_shown(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, "dev-01") as rig:
        for role, path in (
            ("listener", rig.gateway.config.listener.certificate),
            ("hub_ca", rig.gateway.config.hub.trusted_ca),
        ):
            assert path is not None
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            shown = value(rig, "gatewayd_certificate_expiry_timestamp_seconds", role=role)
            assert shown == certificate.not_valid_after_utc.timestamp()


async def test_a_websocket_address_that_is_taken_is_told_by_its_key(tmp_path: Path) -> None:
    listener = 'websocket_address = "127.0.0.1:1"'
    async with gateway_rig(tmp_path, "dev-01", start=False, listener=listener) as rig:
        rig.site.rewrite('"127.0.0.1:1"', f'"127.0.0.1:{rig.hub.port}"')
        rig.gateway.config = rig.load()
        with pytest.raises(
            ConfigError, match=rf"listener.websocket_address: cannot .* on 127.*:{rig.hub.port}"
        ):
            await rig.gateway.start()
        await rig.gateway.drain()


async def test_the_status_can_stand_on_a_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "status.sock"
    async with gateway_rig(tmp_path, "dev-01", start=False) as rig:
        rig.site.rewrite(f'"127.0.0.1:{rig.site.metrics_port}"', f'"unix:{path}"')
        rig.gateway.config = rig.load()
        await rig.gateway.start()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
        await rig.gateway.drain()
        assert not path.exists()


async def test_a_token_that_is_gone_is_told_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        async with gateway_rig(tmp_path, "dev-01", metrics='token_file = "nothing"'):
            raise AssertionError("not reached")
    assert raised.group_contains(ConfigError, match="metrics.token_file: .*No such file")


@pytest.mark.parametrize("key", ["listener.address", "metrics.address"])
async def test_an_address_that_is_taken_is_told_by_its_key(tmp_path: Path, key: str) -> None:
    async with gateway_rig(tmp_path, "dev-01", start=False) as rig:
        site = rig.site
        port = site.port if key == "listener.address" else site.metrics_port
        site.rewrite(f"127.0.0.1:{port}", f"127.0.0.1:{rig.hub.port}")
        rig.gateway.config = rig.load()
        with pytest.raises(ConfigError, match=rf"{key}: cannot listen on 127\.0\.0\.1:{rig.hub.port}"):
            await rig.gateway.start()
        await rig.gateway.drain()


async def test_a_device_whose_hub_session_is_parked_waits_and_comes_in_when_it_is_up_again(
    tmp_path: Path,
) -> None:
    async with gateway_rig(tmp_path, "dev-01", listener='hold = "20s"', session='linger = "1h"') as rig:
        number = rig.hub.hub.arm(FaultKind.CONNACK_5)
        first = await RawDevice.connect(rig.site, "dev-01")
        await rig.until(lambda: rig.gateway.conductor.state(DEV) is State.PARKED)
        await first.disconnect()
        second = await RawDevice.dial(rig.site, "dev-01")
        second.send(connect_bytes("dev-01", rig.site.username("dev-01"), rig.site.token("dev-01")))
        with pytest.raises(TimeoutError):
            await second.read(0.3)
        rig.hub.hub.faults.disarm(number)
        assert rig.gateway.conductor.retry(DEV, rig.clock.monotonic())
        rig.gateway.hub_sessions.turn()
        assert await second.connack() == 0
        await second.disconnect()


# The clock


async def test_with_a_wrong_clock_devices_come_in_and_nothing_is_signed_until_it_is_set(
    tmp_path: Path,
) -> None:
    clock = SetClock(-30 * YEAR)
    async with gateway_rig(tmp_path, "dev-01", "dev-02", clock=clock) as rig:
        devices = [await RawDevice.connect(rig.site, name) for name in ("dev-01", "dev-02")]
        for device in devices:
            device.send(publish_bytes(device.events, b"early"))
        with pytest.raises(TimeoutError):
            await devices[0].read(0.5)
        assert rig.gateway.status.ready().reasons == (
            "the wall clock is known wrong, nothing is signed: set it",
        )
        assert value(rig, "gatewayd_clock_trusted") == 0
        assert value(rig, "gatewayd_token_signatures_total") == 0
        assert rig.hub.hub.summary().connects == 0
        clock.shift = 0.0
        for device in devices:
            assert (await device.read()).kind == PUBACK
        assert rig.gateway.status.ready().good
        assert value(rig, "gatewayd_clock_trusted") == 1
        assert value(rig, "gatewayd_clock_steps_total") == 1
        for device in devices:
            await device.disconnect()
        assert rig.hub.hub.events.errors == {}


async def test_a_device_that_came_in_on_a_wrong_clock_with_an_old_token_leaves_when_it_is_set(
    tmp_path: Path,
) -> None:
    clock = SetClock(-30 * YEAR)
    async with gateway_rig(tmp_path, "dev-01", clock=clock) as rig:
        device = await RawDevice.connect(rig.site, "dev-01", lifetime=-3600.0)
        clock.shift = 0.0
        assert await device.ended() == b""
        assert value(
            rig, "gatewayd_disconnects_total", side="device", planned="false", reason="token_expired"
        )


async def test_the_time_is_kept_every_hour_and_at_the_end_but_never_a_wrong_one(tmp_path: Path) -> None:
    clock = SetClock()
    async with gateway_rig(tmp_path, "dev-01", clock=clock) as rig:
        floor = rig.site.floor_file
        rig.gateway._keep_floor(clock.wall() + SAVE_SECONDS - 60)
        assert not floor.exists()
        later = clock.wall() + SAVE_SECONDS
        rig.gateway._keep_floor(later)
        assert read_floor(floor) == int(later)
        clock.shift = 2 * SAVE_SECONDS
        await rig.gateway.drain()
        assert read_floor(floor) > later
        kept = floor.read_text()
    clock.shift = -30 * YEAR
    (tmp_path / "again").mkdir()
    async with gateway_rig(tmp_path / "again", "dev-01", clock=clock) as rig:
        rig.site.floor_file.write_text(kept)
    assert rig.site.floor_file.read_text() == kept


# Reload

# A key, another value for it, and where that value must have arrived. Every key that says SIGHUP is here.
Look = Callable[[Gateway], object]
TUNING: dict[str, tuple[str, object, Look]] = {
    "hub.budget.connects_per_second": ("7", 7, lambda it: it._budget.per_second),
    "hub.deadlines.dial": ('"700ms"', 0.7, lambda it: it._dialer._deadlines.connect),
    "hub.deadlines.handshake": ('"800ms"', 0.8, lambda it: it._dialer._deadlines.handshake),
    "hub.deadlines.connack": (
        '"900ms"',
        (0.9, 0.9),
        lambda it: (it._carrier.settings.limits.connect_timeout, it._carrier.settings.timeouts.connack),
    ),
    "hub.deadlines.ping": ('"7s"', 7.0, lambda it: it._carrier.settings.limits.ping_timeout),
    "hub.session.keep_alive": ('"77s"', 77, lambda it: it._carrier.settings.keep_alive),
    "hub.session.window": ("3", 3, lambda it: it._carrier.settings.window),
    "hub.session.linger": ('"7s"', 7.0, lambda it: it.hub_sessions.linger),
    "tokens.lifetime": ('"30m"', (1800.0, 1800.0), lambda it: (it._tokens.lifetime, it.conductor._lifetime)),
    "tokens.renew_earliest": ("0.42", 0.42, lambda it: it.conductor._timetable._earliest),  # type: ignore[attr-defined]
    "tokens.renew_latest": ("0.91", 0.91, lambda it: it.conductor._timetable.latest),
    "tokens.handover": ('"fast"', Mode.FAST, lambda it: it._carrier.settings.mode),
    "tokens.handover_drain": (
        '"6s"',
        (3.0, 3.0),
        lambda it: (it._carrier.settings.timeouts.patience, it._carrier.settings.timeouts.drain),
    ),
    "tokens.handover_patience": (
        '"7s"',
        (7.0, 7.0),
        lambda it: (it._carrier.settings.timeouts.close, it._carrier.settings.limits.disconnect_timeout),
    ),
    "tokens.backoff.first": ('"7s"', 7.0, lambda it: it.conductor._policy.retry.first),
    "tokens.backoff.ceiling": ('"77s"', 77.0, lambda it: it.conductor._policy.retry.ceiling),
    "tokens.backoff.stable": ('"7s"', 7.0, lambda it: it.conductor._policy.retry.stable),
    "tokens.backoff.parking_probe": ('"77s"', 77.0, lambda it: it.conductor._policy.park_first),
    "listener.handshake_deadline": ('"7s"', 7.0, lambda it: it.listener._server.handshake_timeout),  # type: ignore[union-attr]
    "listener.connect_deadline": ('"7s"', 7.0, lambda it: it.listener._limits.connect_timeout),
    "listener.hold": ('"7s"', 7.0, lambda it: it.listener.hold_seconds),
    "listener.keep_alive_cap": ('"77s"', 77.0, lambda it: it.listener._limits.max_keep_alive),
    "listener.max_connections": ("77", 77, lambda it: it.listener._policy.max_connections),
    "listener.connects_per_device_per_minute": ("6", 10.0, lambda it: it._admission._limit._interval),
    "listener.connects_per_address_per_second": ("5", 0.2, lambda it: it.listener._address_limit._interval),
    "listener.expired_token_grace": ('"7m"', 420.0, lambda it: it.listener._policy.expired_token_grace),
    "listener.max_unreceipted_messages": (
        "77",
        (77, 77, 154),
        lambda it: (
            it.dispatch._bounds.max_messages,
            it.dispatch.lane(DEV).in_flight._max_messages,
            it.listener.session(DEV)._automaton._limits.max_unacknowledged,  # type: ignore[union-attr]
        ),
    ),
    "listener.max_unreceipted_bytes": ('"2MiB"', 2 << 20, lambda it: it.dispatch._bounds.max_bytes),
    "hub.budget.sends_per_second": ("77", 77, lambda it: it.outbox.custody._pace.per_second),
    "outbox.max_bytes": ('"7MiB"', 7 << 20, lambda it: it.outbox.max_bytes),
    "outbox.when_full": ('"drop_oldest"', WhenFull.DROP_OLDEST, lambda it: it.outbox.when_full),
    "outbox.spill_after": ('"7s"', 7.0, lambda it: it.outbox.custody.policy.spill_after),
    "outbox.store_qos0": ("true", True, lambda it: it.outbox.custody.policy.store_qos0),
    "outbox.ttl": ('"7d"', 604_800.0, lambda it: it.outbox.custody.policy.rules.of("x").ttl),
    "outbox.rules": (
        '[{topic = "*", priority = 7}]',
        7,
        lambda it: it.outbox.custody.policy.rules.of("x").priority,
    ),
    "shutdown.deadline": ('"7s"', 7.0, lambda it: it.config.shutdown.deadline),
}
# In force elsewhere: the log's level by the lifecycle, the reserve by the judgement of the file itself.
TUNED_ELSEWHERE = {"log.level", "hub.budget.reserve"}


def test_the_table_has_every_key_that_a_reload_may_change() -> None:
    assert TUNING.keys() | TUNED_ELSEWHERE == {
        setting.path for setting in settings() if setting.applies is Applies.TUNING
    }


async def test_every_key_that_a_reload_may_change_arrives_where_it_is_used(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, "dev-01") as rig:
        device = await RawDevice.connect(rig.site, "dev-01")
        await device.publish(b"first")
        good = rig.site.toml.read_text()
        for path, (written, expected, look) in TUNING.items():
            rig.site.toml.write_text(with_key(good, path, written))
            before = look(rig.gateway)
            assert [str(change.setting.path) for change in rig.apply(rig.load())] == [path]
            assert look(rig.gateway) == pytest.approx(expected), path
            assert before != look(rig.gateway), path
            rig.site.toml.write_text(good)
            rig.apply(rig.load())
            assert look(rig.gateway) == before, f"{path}: a reload back"
        await device.publish(b"last", packet_id=2)
        assert rig.hub.hub.events.errors == {}
        await device.disconnect()


def with_key(text: str, path: str, written: str) -> str:
    """A configuration text with one key set, whether or not it was there."""
    table, _, key = path.rpartition(".")
    lines = text.splitlines()
    if f"[{table}]" not in lines:
        return f"{text}[{table}]\n{key} = {written}\n"
    start = lines.index(f"[{table}]") + 1
    end = next((at for at in range(start, len(lines)) if lines[at].startswith("[")), len(lines))
    kept = [line for line in lines[start:end] if not line.startswith(f"{key} =")]
    return "\n".join([*lines[:start], f"{key} = {written}", *kept, *lines[end:]]) + "\n"


async def test_a_raised_bound_holds_for_devices_that_were_here_before(tmp_path: Path) -> None:
    """Else the protocol core would still park them at the old bound and then call their messages a flood."""
    async with gateway_rig(tmp_path, "dev-01", listener="max_unreceipted_messages = 10") as rig:
        device = await RawDevice.connect(rig.site, "dev-01")
        await device.publish(b"first")
        number = rig.hub.hub.arm(FaultKind.PUBACK_DELAY, value=1.0)
        rig.site.rewrite("max_unreceipted_messages = 10", "max_unreceipted_messages = 500")
        rig.apply(rig.load())
        for packet_id in range(2, 302):
            device.send(publish_bytes(device.events, bytes(2048), packet_id=packet_id))
        await rig.until(lambda: rig.gateway.dispatch.unreceipted == 300)
        rig.hub.hub.faults.disarm(number)
        for packet_id in range(2, 302):
            packet = await device.read()
            assert (packet.kind, packet.packet_id) == (PUBACK, packet_id)
        await device.disconnect()


# The end


async def test_the_end_gives_receipts_first_then_leaves_devices_then_the_hub(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, "dev-01") as rig:
        device = await RawDevice.connect(rig.site, "dev-01")
        await device.publish(b"first")
        rig.hub.hub.arm(FaultKind.PUBACK_DELAY, value=0.5)
        device.send(publish_bytes(device.events, b"last", packet_id=2))
        await rig.hub.hub.ledger.wait_for_count(2)
        await rig.gateway.drain()
        assert (await device.read()).packet_id == 2
        assert await device.ended() == b""
        ends = [one for one in rig.hub.hub.events.since() if one.operation is Operation.DISCONNECT]
        assert [end.planned for end in ends] == [True]
        assert value(rig, "gatewayd_disconnects_total", side="hub", planned="true", reason="shutdown") == 1
        assert (
            value(rig, "gatewayd_disconnects_total", side="device", planned="false", reason="shutdown") == 1
        )


async def test_an_end_while_the_hub_is_away_waits_for_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_rig(tmp_path, "dev-01") as rig:
        rig.hub.hub.arm(FaultKind.REFUSE_ALL)
        device = await RawDevice.connect(rig.site, "dev-01")
        await rig.until(lambda: rig.gateway.conductor.state(DEV) is State.BACKOFF)
        before = rig.clock.monotonic()
        await rig.gateway.drain()
        assert rig.clock.monotonic() - before < 2.5
        assert rig.gateway.hub_sessions.open_sessions == 0
        assert "did not end in time" not in caplog.text
        await device.abort()


async def test_messages_the_hub_never_acknowledges_hold_up_the_end_for_their_share_only_and_are_stored(
    tmp_path: Path,
) -> None:
    async with gateway_rig(tmp_path, "dev-01", more='[shutdown]\ndeadline = "1s"') as rig:
        device = await RawDevice.connect(rig.site, "dev-01")
        await device.publish(b"first")
        rig.hub.hub.arm(FaultKind.PUBACK_DROP)
        device.send(publish_bytes(device.events, b"last", packet_id=2))
        await rig.hub.hub.ledger.wait_for_count(2)
        before = rig.clock.monotonic()
        await rig.gateway.drain()
        assert rig.clock.monotonic() - before < 1.5
        assert (await device.read()).packet_id == 2
        assert await device.ended() == b""
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as outbox:
        assert outbox.execute("SELECT payload FROM message").fetchall() == [(b"last",)]
