"""The hub's side of a device connection, met by a device made of bytes."""

from __future__ import annotations

import asyncio
import struct

import pytest

from gatewayd.emulator import token_end
from gatewayd.emulator.event_log import HubCode, HubEvent, Operation
from tests.support.emulated_hub import POLICY_KEY, DeskHub, device_key, emulated_hub, sas_token
from tests.support.raw_device import (
    PINGRESP,
    UNSUBACK,
    Gone,
    RawDevice,
    connect_bytes,
    frame,
    publish_bytes,
    text,
)


async def end_of(desk: DeskHub, identity: str = "dev-01") -> HubEvent:
    """The event with which the hub logs the end of a connection."""
    return await desk.hub.events.wait_for(
        lambda event: event.operation is Operation.DISCONNECT and event.identity == identity
    )


async def refused(
    desk: DeskHub, password: str | None, *, client_id: str = "dev-01", username: str | None = None
) -> tuple[int, HubEvent]:
    """The CONNACK code, and the event that says why."""
    device = await RawDevice.dial(desk)
    device.send(connect_bytes(client_id, username or desk.username(client_id), password))
    code = await device.connack()
    assert await device.ended() == b""
    return code, desk.hub.events.since()[-1]


# CONNECT


async def test_telemetry_of_a_connected_device_is_kept_as_it_was_sent() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.publish(b"\x00body", "%24.mid=a%20b&x=1", packet_id=7)
        device.send(publish_bytes(device.events, b"second", qos=0))
        await desk.hub.ledger.wait_for_count(2)
        first, second = desk.hub.ledger.of("dev-01")
        assert (first.bag, first.payload, first.qos, first.dup) == (
            "%24.mid=a%20b&x=1",
            b"\x00body",
            1,
            False,
        )
        assert (second.bag, second.payload, second.qos) == ("", b"second", 0)
        assert first.message_id == "a b"
        await device.disconnect()


async def test_a_module_connects_with_its_own_key_and_name() -> None:
    async with emulated_hub("dev-01", "dev-01/mod") as desk:
        device = await RawDevice.connect(desk, "dev-01/mod")
        await device.publish(b"x")
        assert desk.hub.ledger.of("dev-01/mod")[0].payload == b"x"
        await device.disconnect()


async def test_the_secondary_key_and_a_policy_open_the_hub_too() -> None:
    async with emulated_hub("dev-01") as desk:
        for token in (
            desk.token("dev-01", key=device_key("dev-01:2")),
            desk.token("dev-01", key=POLICY_KEY, skn="device"),
        ):
            device = await RawDevice.connect(desk, "dev-01", token=token)
            await device.disconnect()


@pytest.mark.parametrize(
    ("client_id", "password", "cause", "sentence"),
    [
        ("dev-01", None, "no_authorization_header", "Authorization header missing"),
        ("nobody", "good", "unknown_device", "IotHub 'hub' does not contain the specified device 'nobody'"),
        (
            "dev-01",
            "service",
            "rule_without_right",
            "Authorization rule 'service' does not allow access for 'hub.test/devices/dev-01'",
        ),
        (
            "dev-01",
            "wrong key",
            "bad_token",
            "Authentication failed for this device, renew token or certificate and reconnect",
        ),
        (
            "dev-01",
            "expired",
            "expired",
            "Authentication failed for this device, renew token or certificate and reconnect",
        ),
    ],
)
async def test_each_cause_of_401003_is_a_connack_5_and_the_service_s_own_sentence(
    client_id: str, password: str | None, cause: str, sentence: str
) -> None:
    async with emulated_hub("dev-01") as desk:
        token = {
            None: None,
            "good": desk.token(client_id),
            "service": desk.token(client_id, key=POLICY_KEY, skn="service"),
            "wrong key": desk.token(client_id, key=bytes(32)),
            "expired": desk.token(client_id, -1.0),
        }[password]
        code, event = await refused(desk, token, client_id=client_id)
        assert code == 5
        assert (event.code, event.cause, event.text) == (401003, cause, sentence)
        assert event.identity == client_id
        assert desk.hub.summary().hub_errors == {"401003": 1}


async def test_a_disabled_device_is_refused_with_its_own_code() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.registry.enable("dev-01", enabled=False)
        code, event = await refused(desk, desk.token("dev-01"))
        assert (code, event.code) == (5, HubCode.DEVICE_DISABLED)


async def test_a_client_id_other_than_the_user_name_s_is_refused() -> None:
    async with emulated_hub("dev-01", "dev-02") as desk:
        code, event = await refused(
            desk, desk.token("dev-01"), client_id="dev-02", username=desk.username("dev-01")
        )
        assert (code, event.code, event.cause) == (5, HubCode.UNAUTHORIZED_FORM, "client_id_mismatch")


async def test_a_token_within_the_skew_still_opens_a_new_connection() -> None:
    async with emulated_hub("dev-01", skew=300.0, grace=600.0) as desk:
        device = await RawDevice.connect(desk, "dev-01", lifetime=-290.0)
        await device.disconnect()
        code, event = await refused(desk, desk.token("dev-01", -301.0))
        assert (code, event.cause) == (5, "expired")


async def test_another_protocol_level_gets_connack_1() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.dial(desk)
        device.send(connect_bytes("dev-01", desk.username("dev-01"), desk.token("dev-01"), level=5))
        assert await device.connack() == 1
        await device.ended()


async def test_bytes_that_are_no_connect_are_a_logged_protocol_error() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.dial(desk)
        device.send(b"GET / HTTP/1.1\r\n\r\n")
        assert await device.ended() == b""
        assert desk.hub.summary().hub_errors == {"400000": 1}


async def test_a_connection_that_leaves_before_connect_is_counted_and_no_error() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.dial(desk)
        await device.close()
        follower = await RawDevice.connect(desk, "dev-01")
        await follower.disconnect()
        summary = desk.hub.summary()
        assert (summary.connections_without_connect, summary.hub_errors) == (1, {})


# Ends


async def test_a_disconnect_that_is_read_before_the_end_is_planned() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.disconnect()
        event = await end_of(desk)
        assert (event.planned, event.code) == (True, HubCode.NONE)
        summary = desk.hub.summary()
        assert (summary.planned_disconnects, summary.unplanned_disconnects, summary.hub_errors) == (1, 0, {})


async def test_a_socket_that_closes_without_disconnect_is_an_unplanned_404104() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.close()
        event = await end_of(desk)
        assert (event.planned, event.code, event.cause) == (False, 404104, "closed_without_disconnect")


async def test_a_reset_is_an_unplanned_404104() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.abort()
        event = await end_of(desk)
        assert (event.planned, event.code) == (False, 404104)


async def test_an_error_before_disconnect_makes_the_end_unplanned() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        device.send(publish_bytes("devices/other/messages/events/", b"") + b"\xe0\x00")
        assert await device.ended() == b""
        event = await end_of(desk)
        assert (event.planned, event.code, event.cause) == (False, HubCode.ARGUMENT_INVALID, "foreign_topic")


async def test_a_token_that_ends_on_an_open_connection_is_a_401003_and_then_a_404104_within_100_ms() -> None:
    async with emulated_hub("dev-01") as desk:
        expiry = int(desk.clock.wall()) + 2
        token = sas_token(desk.hostname, "dev-01", device_key("dev-01"), expiry)
        device = await RawDevice.connect(desk, "dev-01", token=token)
        assert await device.ended() == b""  # no packet comes before the end
        seen = desk.clock.wall()
        authorization, disconnect = desk.hub.events.since()[-2:]
        assert (authorization.code, authorization.cause) == (401003, "expired")
        assert (disconnect.code, disconnect.cause, disconnect.planned) == (404104, "token_expired", False)
        for moment in (authorization.wall, disconnect.wall, seen):
            assert 0.0 <= moment - expiry < 0.1


async def test_forty_tokens_that_end_in_one_instant_are_all_cut_within_100_ms() -> None:
    names = [f"dev-{number}" for number in range(40)]
    async with emulated_hub(*names) as desk:
        expiry = int(desk.clock.wall()) + 3
        devices = [
            await RawDevice.connect(
                desk, name, token=sas_token(desk.hostname, name, device_key(name), expiry)
            )
            for name in names
        ]
        assert await asyncio.gather(*(device.ended() for device in devices)) == [b""] * 40
        cuts = [event for event in desk.hub.events.since() if event.cause == "token_expired"]
        assert len(cuts) == 40
        assert all(0.0 <= event.wall - expiry < 0.1 for event in cuts)


async def test_a_far_expiry_is_looked_at_again_and_again_until_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_end, "LOOK_SECONDS", 0.05)
    async with emulated_hub("dev-01") as desk:
        expiry = int(desk.clock.wall()) + 2
        token = sas_token(desk.hostname, "dev-01", device_key("dev-01"), expiry)
        device = await RawDevice.connect(desk, "dev-01", token=token)
        assert await device.ended() == b""
        assert 0.0 <= (await end_of(desk)).wall - expiry < 0.1


async def test_the_grace_moves_the_cut_and_may_be_changed_while_connections_are_open() -> None:
    async with emulated_hub("dev-01", grace=600.0, skew=300.0) as desk:
        device = await RawDevice.connect(desk, "dev-01", lifetime=-1.0)
        await device.publish(b"still here")
        began = desk.clock.wall()
        desk.hub.set_grace(0.0)
        assert await device.ended() == b""
        assert desk.clock.wall() - began < 0.1
        assert (await end_of(desk)).cause == "token_expired"


async def test_a_hub_whose_clock_is_ahead_cuts_earlier() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01", lifetime=1800.0)
        desk.hub.set_clock_offset(1000.0)
        await device.publish(b"still here")
        desk.hub.set_clock_offset(2000.0)
        assert await device.ended() == b""
        assert (await end_of(desk)).cause == "token_expired"


async def test_a_second_connection_wins_and_the_first_is_closed_with_400027() -> None:
    async with emulated_hub("dev-01") as desk:
        first = await RawDevice.connect(desk, "dev-01")
        second = await RawDevice.connect(desk, "dev-01")
        assert await first.ended() == b""
        event = await end_of(desk)
        assert (event.code, event.planned, event.connection) == (400027, False, 1)
        await second.publish(b"x")
        await second.disconnect()
        assert desk.hub.summary().hub_errors == {"400027": 1}


async def test_a_refused_second_connection_leaves_the_first_alone() -> None:
    async with emulated_hub("dev-01") as desk:
        first = await RawDevice.connect(desk, "dev-01")
        await refused(desk, desk.token("dev-01", key=bytes(32)))
        await first.publish(b"x")
        await first.disconnect()


async def test_silence_of_one_and_a_half_keep_alives_is_a_404104_with_its_cause() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01", keep_alive=1)
        assert await device.ended() == b""
        event = await end_of(desk)
        assert (event.code, event.cause, event.planned) == (404104, "keep_alive", False)


async def test_a_ping_is_answered() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        device.send(b"\xc0\x00")
        assert (await device.read()).kind == PINGRESP
        await device.disconnect()


# What the hub objects to


@pytest.mark.parametrize(
    ("packet", "code", "cause"),
    [
        (publish_bytes("devices/dev-01/messages/events/", b"x", qos=2), 400011, "qos2"),
        (publish_bytes("devices/other/messages/events/", b"x"), 400004, "foreign_topic"),
        (publish_bytes("devices/dev-01/messages/events/a=b", bytes(262142)), 413001, "message_too_large"),
        (connect_bytes("dev-01", "u", "p"), 400000, "protocol_violation"),
        (b"\x00\x00", 400000, "malformed"),
    ],
)
async def test_what_the_hub_objects_to_closes_without_a_packet(packet: bytes, code: int, cause: str) -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        device.send(packet)
        assert await device.ended() == b""
        event = await end_of(desk)
        assert (event.code, event.cause, event.planned) == (code, cause, False)
        assert desk.hub.ledger.received == 0


async def test_a_message_of_just_256_kb_is_taken() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.publish(bytes(262141), "a=b")
        assert len(desk.hub.ledger.of()[0].payload) == 262141
        await device.disconnect()


async def test_retain_becomes_a_property() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        device.send(publish_bytes(device.events + "a=b", b"x", retain=True))
        message = await desk.hub.ledger.wait_for(lambda message: True)
        assert message.bag == "a=b&mqtt-retain=true"
        await device.disconnect()


async def test_a_will_is_telemetry_when_the_end_was_not_planned() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01", will=("devices/dev-01/messages/events/a=b", b"gone"))
        await device.abort()
        message = await desk.hub.ledger.wait_for(lambda message: True)
        assert (message.bag, message.payload) == ("a=b&iothub-MessageType=Will", b"gone")


async def test_a_will_is_forgotten_when_the_end_was_planned() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01", will=("devices/dev-01/messages/events/", b"gone"))
        await device.disconnect()
        assert desk.hub.ledger.received == 0


async def test_a_will_for_someone_else_s_topic_is_refused() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.dial(desk)
        will = ("devices/other/messages/events/", b"gone")
        device.send(connect_bytes("dev-01", desk.username("dev-01"), desk.token("dev-01"), will=will))
        assert await device.connack() == 5
        await device.ended()
        assert desk.hub.events.since()[-1].cause == "foreign_will_topic"


# Sessions and what the hub sends


async def test_a_subscription_is_granted_at_most_qos_1_and_foreign_ones_not_at_all() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        commands = "devices/dev-01/messages/devicebound/#"
        assert await device.subscribe(commands, "$iothub/methods/POST/#", "#", qos=2) == [1, 1, 0x80]
        assert await device.subscribe("$iothub/twin/res/#", qos=0) == [0]
        await device.disconnect()


async def test_a_foreign_filter_may_be_made_to_close() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.settings.close_on_foreign_filter = True
        device = await RawDevice.connect(desk, "dev-01")
        with pytest.raises(Gone):
            await device.subscribe("#")
        await device.close()
        assert (await end_of(desk)).cause == "foreign_filter"


async def test_a_kept_session_is_present_and_its_subscriptions_live_on() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("devices/dev-01/messages/devicebound/#")
        await device.disconnect()
        desk.hub.send_to_device("dev-01", b"waiting", "%24.mid=1")
        device = await RawDevice.connect(desk, "dev-01")
        assert device.session_present
        packet = await device.read()
        assert (packet.topic, packet.payload) == ("devices/dev-01/messages/devicebound/%24.mid=1", b"waiting")
        await device.disconnect()


async def test_a_clean_session_discards_subscriptions() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("devices/dev-01/messages/devicebound/#")
        await device.disconnect()
        device = await RawDevice.connect(desk, "dev-01", clean=True)
        assert not device.session_present
        assert desk.hub.state.session("dev-01").subscriptions == {}
        await device.disconnect()


async def test_an_unsubscribed_filter_is_given_up() -> None:
    async with emulated_hub("dev-01") as desk:
        device = await RawDevice.connect(desk, "dev-01")
        await device.subscribe("$iothub/twin/res/#")
        device.send(frame(0xA2, struct.pack("!H", 9) + text("$iothub/twin/res/#")))
        packet = await device.read()
        assert (packet.kind, packet.packet_id) == (UNSUBACK, 9)
        assert desk.hub.state.session("dev-01").subscriptions == {}
        await device.disconnect()
