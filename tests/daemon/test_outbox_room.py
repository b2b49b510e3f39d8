"""The outbox inside the daemon: opened at a start, drained after one, damage said loudly, its state told."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from gatewayd.daemon.config_load import load_config
from gatewayd.daemon.outbox_room import custody_policy
from gatewayd.emulator.faults import FaultKind
from gatewayd.errors import ConfigError
from gatewayd.message import Identity
from gatewayd.store.messages import BacklogCount, Contents
from gatewayd.upstream.session import State
from tests.support.emulated_hub import emulated_hub
from tests.support.gateway_rig import GatewayRig, gateway_rig
from tests.support.raw_device import RawDevice, publish_bytes

DEV = Identity("dev-01")
PATIENCE_SECONDS = 10.0


def value(rig: GatewayRig, name: str, **labels: str) -> float:
    found = rig.gateway.registry.get_sample_value(f"gatewayd_{name}", labels)
    assert found is not None, name
    return found


def damaged_files(folder: Path) -> list[Path]:
    return list(folder.glob("outbox.db.damaged-*Z"))


async def send_while_the_hub_is_away(rig: GatewayRig, count: int, name: str = "dev-01") -> None:
    """Messages that are receipted from the outbox."""
    rig.hub.hub.arm(FaultKind.REFUSE_ALL)
    device = await RawDevice.connect(rig.site, name)
    await rig.until(lambda: rig.gateway.conductor.state(Identity(name)) is State.BACKOFF)
    for number in range(1, count + 1):
        device.send(publish_bytes(device.events, b"%d" % number, packet_id=number))
        assert (await device.read()).packet_id == number
    await device.disconnect()


async def test_what_one_run_stored_the_next_brings_to_the_hub_without_the_device(tmp_path: Path) -> None:
    async with emulated_hub("dev-01") as hub:
        async with gateway_rig(tmp_path, "dev-01", hub=hub) as rig:
            await send_while_the_hub_is_away(rig, 5)
            assert value(rig, "outbox_messages") == 5
            assert rig.gateway.outbox.messages == 5
        hub.hub.faults.clear()
        async with gateway_rig(tmp_path, "dev-01", hub=hub) as rig:
            await hub.hub.ledger.wait_for_count(5)
            assert [one.payload for one in hub.hub.ledger.of("dev-01")] == [b"1", b"2", b"3", b"4", b"5"]
            await rig.until(lambda: value(rig, "outbox_messages") == 0)


async def test_messages_of_a_device_without_a_key_stay_and_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with emulated_hub("dev-01", "dev-02") as hub:
        async with gateway_rig(tmp_path, "dev-01", "dev-02", hub=hub) as rig:
            await send_while_the_hub_is_away(rig, 3, "dev-02")
        hub.hub.faults.clear()
        async with gateway_rig(tmp_path, "dev-01", hub=hub) as rig:
            assert "3 messages in the outbox belong to devices that devices.file does not list" in caplog.text
            assert value(rig, "outbox_messages") == 3
            assert rig.gateway.conductor.session(Identity("dev-02")) is None


async def test_a_damaged_file_is_put_aside_and_the_daemon_is_not_ready_until_somebody_took_it_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database at all" * 1000)
    async with gateway_rig(tmp_path, "dev-01") as rig:
        (damaged,) = damaged_files(tmp_path)
        assert b"no database at all" in damaged.read_bytes()
        assert value(rig, "outbox_quarantines_total") == 1
        assert f"was damaged: it is kept as {damaged}" in caplog.text
        verdict = rig.gateway.status.ready()
        assert not verdict.good
        assert any(str(damaged) in reason for reason in verdict.reasons)
        device = await RawDevice.connect(rig.site, "dev-01")
        await device.publish(b"goes on")
        await device.disconnect()
        damaged.unlink()
        assert rig.gateway.status.ready().good


async def test_neither_a_restart_nor_the_newest_of_two_takes_a_damaged_file_off_the_verdict(
    tmp_path: Path,
) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database at all" * 1000)
    async with gateway_rig(tmp_path, "dev-01"):
        (damaged,) = damaged_files(tmp_path)
    older = tmp_path / "outbox.db.damaged-20200101T000000Z"
    older.write_bytes(b"")
    async with gateway_rig(tmp_path, "dev-01") as rig:
        assert value(rig, "outbox_quarantines_total") == 0
        device = await RawDevice.connect(rig.site, "dev-01")
        for one in (damaged, older):
            assert any(str(one) in reason for reason in rig.gateway.status.ready().reasons)
            one.unlink()
        await device.publish(b"at the hub")
        await device.disconnect()
        assert rig.gateway.status.ready().good


async def test_a_file_of_a_newer_version_ends_the_start_with_the_key_that_names_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as newer:
        newer.execute("PRAGMA user_version = 999")
        newer.commit()
    before = (tmp_path / "outbox.db").read_bytes()
    with pytest.raises(BaseExceptionGroup) as failed:
        async with gateway_rig(tmp_path, "dev-01"):
            pytest.fail("a start with an outbox from the future")
    error = failed.value.exceptions[0]
    assert isinstance(error, ConfigError)
    assert [problem.path for problem in error.problems] == ["outbox.path"]
    assert "999" in str(error)
    assert (tmp_path / "outbox.db").read_bytes() == before


async def test_the_state_of_the_outbox_is_a_metric_with_one_series_at_1(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, "dev-01") as rig:
        assert value(rig, "outbox_state", state="ok") == 1
        assert value(rig, "outbox_state", state="disk_full") == 0
        assert value(rig, "outbox_max_bytes") == 512 << 20
        assert value(rig, "outbox_quarantines_total") == 0
        assert list(rig.gateway.outbox.problems()) == []


async def test_the_policy_is_what_the_configuration_says(tmp_path: Path) -> None:
    lines = 'spill_after = "2s"\nttl = "1h"\nrules = [{topic = "*alarm*", priority = 9, ttl = "2h"}]'
    async with gateway_rig(tmp_path, "dev-01", outbox=lines) as rig:
        policy = custody_policy(load_config(rig.site.toml, {}))
        assert policy.spill_after == 2.0
        assert (policy.rules.of("x").ttl, policy.rules.of("x alarm").ttl) == (3600.0, 7200.0)
        assert policy.rules.of("x alarm").priority == 9
        assert rig.gateway.outbox.custody.policy.spill_after == 2.0


async def test_damage_found_while_running_does_not_send_away_a_device_that_is_here(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, "dev-01", session='linger = "0s"') as rig:
        device = await RawDevice.connect(rig.site, "dev-01")
        await rig.until(lambda: rig.gateway.conductor.state(DEV) is State.UP)
        rig.gateway.outbox._contents_changed(Contents((BacklogCount(DEV, 1, 10, 0),)))
        await device.publish(b"one")
        await device.publish(b"two")
        assert rig.gateway.conductor.state(DEV) is State.UP
        assert not rig.gateway.hub_sessions._lingering
        await device.disconnect()


async def test_contents_of_devices_without_a_key_make_no_lanes(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, "dev-01") as rig:
        stranger = BacklogCount(Identity("stranger"), 1, 10, 0)
        rig.gateway.outbox._contents_changed(Contents((stranger,)))
        assert rig.gateway.dispatch.find(stranger.identity) is None


async def test_a_disk_that_does_not_answer_holds_up_the_end_for_its_share_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = threading.Event()
    async with gateway_rig(tmp_path, "dev-01", more='[shutdown]\ndeadline = "1s"') as rig:
        keeper = rig.gateway.outbox.store._keeper
        closes = keeper.close

        def hang() -> None:
            answers.wait(PATIENCE_SECONDS)
            closes()

        keeper.close = hang  # type: ignore[method-assign]  # a sync that the disk keeps to itself
        try:
            before = rig.clock.monotonic()
            await rig.gateway.drain()
            assert rig.clock.monotonic() - before < 1.0
            assert "the disk of the outbox does not answer" in caplog.text
        finally:
            answers.set()
            thread = rig.gateway.outbox.store._thread
            if thread is not None:
                await asyncio.to_thread(thread.join, PATIENCE_SECONDS)
