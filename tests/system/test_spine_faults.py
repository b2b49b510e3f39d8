"""The whole daemon against what rarely comes together: faults that once broke a promise, each with its own case."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gatewayd.daemon.config import Config
from gatewayd.daemon.config_load import load_config
from gatewayd.daemon.tuning import mqtt_settings, session_policy
from gatewayd.emulator.faults import FaultKind
from gatewayd.message import Identity
from gatewayd.protocol.mqtt.client import ClientConnection, ClientSession
from gatewayd.protocol.mqtt.events import PublishAcknowledged
from gatewayd.protocol.mqtt.faults import ConnackCode
from gatewayd.protocol.mqtt.packets import Connack, Connect, Puback, Publish, encode
from gatewayd.transport.tls_stream import StreamLimits
from gatewayd.upstream.mqtt_session import MqttHubSession
from gatewayd.upstream.outcome import SignedToken
from gatewayd.upstream.session import SessionPolicy, State
from tests.support.emulated_hub import emulated_hub
from tests.support.gateway_files import GatewaySite
from tests.support.gateway_rig import GatewayRig, gateway_rig
from tests.support.hub_fleet_rig import hub_fleet_rig
from tests.support.hub_session_rig import hub_session_rig
from tests.support.raw_device import RawDevice, publish_bytes

DEV = Identity("dev-01")
# After this long an attempt that nobody ended has been given up, and the one after it has begun.
POLICY_LIMITS = SessionPolicy().attempt_limit + SessionPolicy().retry.ceiling


async def settings_with(folder: Path, tokens: str = "") -> Config:
    async with emulated_hub("dev-01") as hub:
        return load_config(GatewaySite.make(folder, hub, ["dev-01"], tokens=tokens).toml, {})


async def at_the_hub(rig: GatewayRig, identity: Identity = DEV) -> None:
    await rig.until(lambda: rig.gateway.conductor.state(identity) is State.UP)


async def test_more_unacknowledged_bytes_than_a_stream_buffers_are_resent_and_receipted(
    tmp_path: Path,
) -> None:
    async with gateway_rig(tmp_path, "dev-01") as rig:
        device = await RawDevice.connect(rig.site, "dev-01")
        await at_the_hub(rig)
        rig.hub.hub.arm(FaultKind.PUBACK_DROP, count=5)
        big = bytes(256_000)
        assert 5 * len(big) > StreamLimits().write_cap
        for packet_id in range(1, 6):
            device.send(publish_bytes(device.events, big, packet_id=packet_id))
        await rig.until(lambda: len(rig.hub.hub.ledger.of("dev-01")) == 5)
        rig.hub.hub.drop()
        assert [(await device.read()).packet_id for _ in range(5)] == [1, 2, 3, 4, 5]


async def test_a_close_is_given_up_later_than_a_session_may_take_for_it(tmp_path: Path) -> None:
    config = await settings_with(tmp_path, tokens='handover_patience = "30s"')
    longest = mqtt_settings(config).timeouts.close + StreamLimits().linger
    assert session_policy(config).close_limit > longest


async def test_a_handover_that_may_not_wait_for_messages_is_a_good_configuration(tmp_path: Path) -> None:
    config = await settings_with(tmp_path, tokens='handover_drain = "0s"')
    assert mqtt_settings(config).timeouts.drain > 0


async def test_a_step_of_the_clock_while_connect_is_answered_shortens_that_token(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, "dev-01", deadlines='connack = "5s"') as rig:
        rig.hub.hub.arm(FaultKind.INPUT_DELAY, value=1.5, count=1)
        device = await RawDevice.connect(rig.site, "dev-01")
        await rig.until(lambda: (s := rig.gateway.conductor.session(DEV)) is not None and s.connecting)
        rig.clock.shift += 1800.0
        await at_the_hub(rig)
        session = rig.gateway.conductor.session(DEV)
        assert session is not None
        left = session.expires - rig.clock.monotonic()
        assert 1790.0 < left < 1801.0, "the token was signed for an hour, half of which the step has taken"
        await device.close()


async def test_a_fault_nobody_foresaw_ends_one_attempt_and_not_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_rig(tmp_path, "dev-01", "dev-02") as rig:
        sign, faults = rig.gateway.hub_sessions.sign, [True]

        def sign_badly(session: Any) -> SignedToken:
            if str(session.identity) == "dev-01" and faults:
                faults.pop()
                raise ZeroDivisionError
            return sign(session)

        monkeypatch.setattr(
            type(rig.gateway.hub_sessions), "sign", lambda _self, session: sign_badly(session)
        )
        broken = await RawDevice.connect(rig.site, "dev-01")
        fine = await RawDevice.connect(rig.site, "dev-02")
        await fine.publish(b"1")
        await broken.publish(b"2")
        assert "this is a fault of gatewayd" in caplog.text


async def test_one_identity_that_the_hub_turns_away_again_and_again_slows_down_nobody_else() -> None:
    async with hub_fleet_rig("dev-01", "dev-02") as rig:
        rig.hub.arm(FaultKind.CONNACK_3, identity="dev-01")
        await rig.at_hub("dev-02")
        rig.arrive("dev-01")
        strains = []
        for _ in range(40):
            await rig.live_through(5.0)
            strains.append(rig.budget.strain)
        assert max(strains) == 1
        assert strains[-1] == 0
        assert rig.errors()["503001", "busy"] > 4


async def test_cloud_messages_nobody_takes_do_not_stop_the_acknowledgements_of_telemetry(
    tmp_path: Path,
) -> None:
    limits = mqtt_settings(await settings_with(tmp_path)).limits
    link = ClientConnection(ClientSession(), limits)
    link.connect(Connect("dev-01", 60, False, "user", b"token", None), 0.0)
    link.receive(encode(Connack(False, ConnackCode.ACCEPTED)), 0.0)
    while link.next_event() is not None:
        pass
    packet_id = link.publish("devices/dev-01/messages/events/", b"x", 1, 0.0)
    # 50 wait at most, and the hub gives each up after 10 deliveries.
    for cloud_id in range(1, 501):
        link.receive(
            encode(Publish("devices/dev-01/messages/devicebound/", b"c", 1, cloud_id, False, False)), 0.0
        )
    link.receive(encode(Puback(packet_id)), 0.0)
    events = []
    while (event := link.next_event()) is not None:
        events.append(event)
    assert events[-1] == PublishAcknowledged(packet_id)


async def test_a_command_that_fails_harms_one_identity_which_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_session, faults = MqttHubSession.open, [True]

    def fail_once(session: MqttHubSession) -> None:
        if faults:
            faults.pop()
            raise ZeroDivisionError
        open_session(session)

    monkeypatch.setattr(MqttHubSession, "open", fail_once)
    async with hub_fleet_rig("dev-01", "dev-02") as rig:
        rig.arrive("dev-01")
        await rig.at_hub("dev-02")
        assert "this is a fault of gatewayd" in caplog.text
        await rig.live_through(POLICY_LIMITS, step=5.0)
        await rig.until_state(State.UP, "dev-01", "dev-02")


async def test_everything_a_device_says_is_received_and_then_sent_or_dropped(tmp_path: Path) -> None:
    async with gateway_rig(tmp_path, "dev-01") as rig:
        device = await RawDevice.connect(rig.site, "dev-01")
        await at_the_hub(rig)
        await device.publish(b"telemetry", packet_id=1)
        device.send(publish_bytes("$iothub/methods/res/200/?$rid=1", b"", packet_id=2))
        assert (await device.read()).packet_id == 2

        def value(name: str, **labels: str) -> float:
            return rig.gateway.registry.get_sample_value(name, labels) or 0.0

        stage = partial(value, "gatewayd_messages_total", direction="device_to_cloud")
        dropped = value("gatewayd_messages_dropped_total", reason="method_reply_late")
        assert stage(stage="received") == stage(stage="sent") + dropped == 2
        await device.close()


async def test_a_cut_near_the_end_of_a_token_of_seconds_is_not_taken_for_its_expiry() -> None:
    async with hub_session_rig() as rig:
        rig.owner.lifetime = 12.0
        await rig.open()
        rig.pass_seconds(9.0)
        rig.hub.drop()
        await rig.until_told("lost")
        assert [end.code for end in rig.owner.ends] == [404104]
