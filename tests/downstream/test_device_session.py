"""One device's session over a real socket. The device is put together by hand from the text of MQTT 3.1.1."""

from __future__ import annotations

import asyncio
import struct

import pytest

from gatewayd.downstream.admission import HeldBecause
from gatewayd.downstream.device_session import DeviceEnd, DeviceSession, Phase
from gatewayd.downstream.listener import ListenerPolicy
from gatewayd.errors import LocalProtocolError
from gatewayd.message import Identity
from gatewayd.protocol.mqtt.packets import Publish
from tests.support.listener_rig import Left, listener_rig
from tests.support.raw_device import (
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    Gone,
    RawDevice,
    connect_bytes,
    frame,
    publish_bytes,
    subscribe_bytes,
    text,
)
from tests.support.sas_keys import key_of
from tests.support.tls_material import Tls

PINGREQ = b"\xc0\x00"
KIBI = 1024


async def test_a_device_is_let_in_and_heard(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        await device.publish(b"hello", "a=b")
        ((who, packet_id, publish),) = rig.traffic.messages
        assert (who, packet_id) == ("dev-01", 1)
        assert (publish.topic, publish.payload) == ("devices/dev-01/messages/events/a=b", b"hello")
        await device.close()


async def test_a_module_is_let_in_with_its_own_key(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01/mod") as rig:
        device = await RawDevice.connect(rig, "dev-01/mod")
        await device.publish(b"hello")
        assert rig.traffic.messages[0][0] == "dev-01/mod"
        await device.close()


async def test_qos_0_is_heard_and_gets_no_receipt(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        device.send(publish_bytes(device.events, b"x", qos=0) + PINGREQ)
        assert (await device.read()).kind == PINGRESP
        assert [packet_id for _, packet_id, _ in rig.traffic.messages] == [0]
        await device.close()


async def test_what_came_behind_connect_is_heard_after_connack(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.dial(rig, "dev-01")
        device.send(
            connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01"))
            + publish_bytes(device.events, b"early", packet_id=7)
        )
        assert await device.connack() == 0
        packet = await device.read()
        assert (packet.kind, packet.packet_id) == (PUBACK, 7)
        await device.close()


async def test_receipts_leave_in_the_order_of_the_messages(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.traffic.receipts_at_once = False
        device = await RawDevice.connect(rig, "dev-01")
        device.send(b"".join(publish_bytes(device.events, b"x", packet_id=n) for n in (3, 1, 2)))
        await rig.traffic.until(lambda it: len(it.messages) == 3)
        session = rig.traffic.sessions["dev-01"]
        for packet_id in (2, 1, 3):
            session.receipt(packet_id)
        assert [(await device.read()).packet_id for _ in range(3)] == [3, 1, 2]
        await device.close()


async def test_a_resend_of_a_message_that_is_held_is_not_heard_twice(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.traffic.receipts_at_once = False
        device = await RawDevice.connect(rig, "dev-01")
        device.send(
            publish_bytes(device.events, b"x", packet_id=5)
            + publish_bytes(device.events, b"x", packet_id=5, dup=True)
            + PINGREQ
        )
        assert (await device.read()).kind == PINGRESP
        assert len(rig.traffic.messages) == 1
        await device.close()


async def test_a_receipt_after_the_end_is_nobodys_trouble(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.traffic.receipts_at_once = False
        device = await RawDevice.connect(rig, "dev-01")
        device.send(publish_bytes(device.events, b"x"))
        await rig.traffic.until(lambda it: bool(it.messages))
        await device.disconnect()
        rig.traffic.sessions["dev-01"].receipt(1)
        assert rig.traffic.left == [Left("dev-01", True, DeviceEnd.DISCONNECT)]


@pytest.mark.parametrize(
    ("ending", "planned", "end"),
    [
        (b"\xe0\x00", True, DeviceEnd.DISCONNECT),
        (b"", False, DeviceEnd.CLOSED),
        (b"\xe0\x01\x00", False, DeviceEnd.MALFORMED),
        (b"\x00\x00", False, DeviceEnd.MALFORMED),
        (b"\x30\xff\xff\xff\xff\x01", False, DeviceEnd.MALFORMED),
        (b"\x10\x00", False, DeviceEnd.MALFORMED),
        (connect_bytes("dev-01", None, None), False, DeviceEnd.PROTOCOL_VIOLATION),
        (frame(0x90, b"\x00\x01\x00"), False, DeviceEnd.PROTOCOL_VIOLATION),
        (publish_bytes("devices/dev-01/messages/events/", b"x", qos=2), False, DeviceEnd.QOS2),
        (publish_bytes("devices/dev-01/messages/events/", b"x", qos=3), False, DeviceEnd.MALFORMED),
        (publish_bytes("devices/dev-02/messages/events/", b"x"), False, DeviceEnd.FOREIGN_TOPIC),
        (publish_bytes("devices/dev-01/modules/m/messages/events/", b"x"), False, DeviceEnd.FOREIGN_TOPIC),
        (publish_bytes("factory/line/1", b"x", qos=0), False, DeviceEnd.FOREIGN_TOPIC),
        (publish_bytes("devices/dev-01/#", b"x"), False, DeviceEnd.MALFORMED),
        (frame(0x82, b"\x00\x01" + text("a/#/b") + b"\x00"), False, DeviceEnd.MALFORMED),
    ],
)
async def test_an_end_is_told_with_its_reason_and_nobody_else_notices(
    tls: Tls, ending: bytes, planned: bool, end: DeviceEnd
) -> None:
    async with listener_rig(tls, "dev-01", "dev-02") as rig:
        other = await RawDevice.connect(rig, "dev-02")
        device = await RawDevice.connect(rig, "dev-01")
        device.send(ending)
        if ending:
            assert await device.ended() == b""
        else:
            await device.close()
        await rig.traffic.until(lambda it: bool(it.left))
        assert rig.traffic.left == [Left("dev-01", planned, end)]
        assert not rig.traffic.messages
        await other.publish(b"still here")
        assert rig.disconnects() == {end.value: 1}
        await other.close()


async def test_the_largest_message_of_the_hub_passes_and_one_byte_more_ends_the_session(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", "dev-02") as rig:
        other = await RawDevice.connect(rig, "dev-02")
        device = await RawDevice.connect(rig, "dev-01")
        await device.publish(bytes(256 * KIBI - 3), "a=b")
        assert len(rig.traffic.messages) == 1
        device.send(publish_bytes(device.events + "a=b", bytes(256 * KIBI - 2), packet_id=2))
        await device.ended()
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.TOO_LARGE)]
        await other.publish(b"still here")
        await other.close()


async def test_a_packet_far_too_large_ends_the_session_before_it_is_here(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        # The fixed header of a packet of 256 MiB, and nothing of it.
        device.send(b"\x32\xff\xff\xff\x7f")
        await device.ended()
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.TOO_LARGE)]


@pytest.mark.parametrize(
    "topic",
    [
        "$iothub/twin/GET/?$rid=1",
        "$iothub/twin/PATCH/properties/reported/?$rid=2",
        "$iothub/methods/res/200/?$rid=3",
        "devices/dev-01/messages/events",
    ],
)
async def test_every_operation_of_the_device_reaches_the_traffic(tls: Tls, topic: str) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        device.send(publish_bytes(topic, b"{}"))
        assert (await device.read()).kind == PUBACK
        assert rig.traffic.messages[0][2].topic == topic
        await device.close()


async def test_only_the_documented_filters_of_the_device_are_granted(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        codes = await device.subscribe(
            "devices/dev-01/messages/devicebound/#",
            "$iothub/methods/POST/#",
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
            "devices/dev-02/messages/devicebound/#",
            "#",
            "$SYS/#",
            "devices/dev-01/#",
        )
        assert codes == [1, 1, 1, 1, 0x80, 0x80, 0x80, 0x80]
        assert len(rig.traffic.granted) == 4
        await device.publish(b"still here")
        await device.close()


async def test_a_subscription_is_answered_when_the_traffic_says_so_and_reading_goes_on_meanwhile(
    tls: Tls,
) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.traffic.grants_at_once = False
        device = await RawDevice.connect(rig, "dev-01")
        device.send(subscribe_bytes("$iothub/twin/res/#", "#", "$iothub/methods/POST/#", packet_id=7))
        await device.publish(b"before the answer", packet_id=1)
        ((_, packet_id, filters),) = rig.traffic.subscribing
        assert (packet_id, filters) == (7, (("$iothub/twin/res/#", 1), ("$iothub/methods/POST/#", 1)))
        rig.traffic.grant()
        suback = await device.read()
        assert (suback.kind, suback.packet_id, list(suback.body[2:])) == (SUBACK, 7, [1, 0x80, 1])
        await device.close()


async def test_an_answer_to_a_subscription_of_a_device_that_has_gone_goes_nowhere(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.traffic.grants_at_once = False
        device = await RawDevice.connect(rig, "dev-01")
        device.send(subscribe_bytes("$iothub/twin/res/#", "#"))
        await rig.traffic.until(lambda it: len(it.subscribing) == 1)
        await device.close()
        await rig.traffic.until(lambda it: len(it.left) == 1)
        rig.traffic.grant()


async def test_what_a_device_did_not_acknowledge_comes_again_with_dup_and_its_id(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        topic = "devices/dev-01/messages/devicebound/"
        ids = [rig.traffic.sessions["dev-01"].publish(topic, body, 1) for body in (b"one", b"two")]
        assert [(await device.read()).payload for _ in ids] == [b"one", b"two"]
        await device.abort()
        await rig.traffic.until(lambda it: len(it.left) == 1)
        again = await RawDevice.connect(rig, "dev-01")
        packets = [await again.read() for _ in ids]
        assert [(packet.payload, packet.packet_id, bool(packet.first & 8)) for packet in packets] == [
            (b"one", ids[0], True),
            (b"two", ids[1], True),
        ]
        for packet_id in ids:
            again.acknowledge(packet_id)
        await rig.traffic.until(lambda it: it.deliveries == ids)
        await again.close()


async def test_a_clean_session_gets_nothing_again(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        rig.traffic.sessions["dev-01"].publish("devices/dev-01/messages/devicebound/", b"one", 1)
        await device.read()
        await device.disconnect()
        again = await RawDevice.connect(rig, "dev-01", clean=True)
        again.send(PINGREQ)
        assert (await again.read()).kind == PINGRESP
        await again.close()


async def test_the_traffic_hears_that_a_device_takes_bytes_again(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        session = rig.traffic.sessions["dev-01"]
        sent = 0
        while not session.congested:
            session.publish("devices/dev-01/messages/devicebound/", bytes(60_000), 0)
            sent += 1
        for _ in range(sent):
            await device.read()
        await rig.traffic.until(lambda it: it.became_writable == ["dev-01"])
        assert not session.congested
        await device.close()


async def test_qos_2_of_a_filter_is_granted_as_1_and_0_as_0(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        assert await device.subscribe("$iothub/methods/POST/#", qos=2) == [1]
        assert await device.subscribe("$iothub/twin/res/#", qos=0) == [0]
        await device.close()


async def test_more_than_fifty_filters_in_one_packet_end_the_session(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        assert len(await device.subscribe(*(f"f{n}" for n in range(50)))) == 50
        with pytest.raises(Gone):
            await device.subscribe(*(f"f{n}" for n in range(51)))
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.TOO_LARGE)]


async def test_a_filter_is_given_up(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        await device.subscribe("$iothub/methods/POST/#")
        device.send(frame(0xA2, struct.pack("!H", 9) + text("$iothub/methods/POST/#")))
        packet = await device.read()
        assert (packet.first, packet.packet_id) == (0xB0, 9)
        assert rig.traffic.given_up == ["$iothub/methods/POST/#"]
        await device.close()


async def test_a_message_to_the_device_and_its_acknowledgement(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        topic = "devices/dev-01/messages/devicebound/"
        packet_id = rig.traffic.sessions["dev-01"].publish(topic, b"turn left", 1)
        packet = await device.read()
        assert (packet.kind, packet.topic, packet.payload, packet.packet_id) == (
            PUBLISH,
            topic,
            b"turn left",
            packet_id,
        )
        device.acknowledge(packet_id)
        await rig.traffic.until(lambda it: it.deliveries == [packet_id])
        await device.close()


async def test_kept_subscriptions_are_said_in_connack_unless_the_session_is_clean(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.traffic.kept.add("dev-01")
        for clean, expected in ((False, True), (True, False)):
            device = await RawDevice.dial(rig, "dev-01")
            device.send(connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01"), clean=clean))
            assert await device.connack() == 0
            assert device.session_present is expected
            await device.disconnect()


async def test_a_will_on_the_own_telemetry_topic_is_owed_after_a_loss_only(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        will = ("devices/dev-01/messages/events/", b"gone")
        device = await RawDevice.connect(rig, "dev-01", will=will)
        await device.disconnect()
        assert rig.traffic.wills == []
        device = await RawDevice.connect(rig, "dev-01", will=will)
        await device.abort()
        await rig.traffic.until(lambda it: len(it.left) == 2)
        assert rig.traffic.wills == [will]


async def test_a_will_on_another_topic_is_not_done(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01", will=("devices/dev-02/messages/events/", b"gone"))
        await device.abort()
        await rig.traffic.until(lambda it: bool(it.left))
        assert rig.traffic.wills == []


async def test_a_silent_device_is_ended_after_one_and_a_half_keep_alives(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01", keep_alive=60)
        rig.time.pass_seconds(89.0)
        await device.publish(b"alive")
        rig.time.pass_seconds(89.9)
        assert not rig.traffic.left
        rig.time.pass_seconds(0.2)
        await device.ended()
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.KEEP_ALIVE)]


async def test_a_device_without_keep_alive_gets_the_cap(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01", keep_alive=0)
        rig.time.pass_seconds(1766.0)
        assert not rig.traffic.left
        rig.time.pass_seconds(2.0)
        await device.ended()
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.KEEP_ALIVE)]


async def test_a_device_that_is_not_read_is_not_called_silent_and_loses_nothing(tls: Tls) -> None:
    window = 5

    def pause_when_full(session: DeviceSession, publish: Publish) -> None:
        if len(rig.traffic.messages) == window:
            session.pause_reading()

    async with listener_rig(tls, "dev-01") as rig:
        rig.traffic.receipts_at_once = False
        rig.traffic.on_message = pause_when_full
        device = await RawDevice.connect(rig, "dev-01", keep_alive=10)
        device.send(b"".join(publish_bytes(device.events, b"%d" % n, packet_id=n) for n in range(1, 21)))
        await rig.traffic.until(lambda it: len(it.messages) == window)
        rig.time.pass_seconds(3600.0)
        assert len(rig.traffic.messages) == window
        assert not rig.traffic.left
        session = rig.traffic.sessions["dev-01"]
        session.resume_reading()
        await rig.traffic.until(lambda it: len(it.messages) == 20)
        assert [publish.payload for _, _, publish in rig.traffic.messages] == [
            b"%d" % n for n in range(1, 21)
        ]
        for packet_id in range(1, 21):
            session.receipt(packet_id)
        assert [(await device.read()).packet_id for _ in range(20)] == list(range(1, 21))
        # From the resume on the device has a whole period again.
        rig.time.pass_seconds(14.9)
        assert not rig.traffic.left
        rig.time.pass_seconds(0.2)
        await device.ended()
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.KEEP_ALIVE)]


async def test_messages_without_receipts_are_bounded_even_if_nobody_pauses(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", policy=ListenerPolicy(max_unreceipted_messages=10)) as rig:
        rig.traffic.receipts_at_once = False
        device = await RawDevice.connect(rig, "dev-01")
        device.send(b"".join(publish_bytes(device.events, b"x", packet_id=n) for n in range(1, 31)))
        await rig.traffic.until(lambda it: len(it.messages) == 10)
        session = rig.traffic.sessions["dev-01"]
        for packet_id in range(1, 31):
            await rig.traffic.until(lambda it, heard=packet_id: len(it.messages) >= heard)  # type: ignore[misc]  # mypy cannot see the default argument's type
            assert len(rig.traffic.messages) <= packet_id - 1 + 10
            session.receipt(packet_id)
        assert [(await device.read()).packet_id for _ in range(30)] == list(range(1, 31))
        await device.close()


async def test_a_device_that_does_not_take_our_bytes_is_ended_at_the_bound(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", "dev-02") as rig:
        other = await RawDevice.connect(rig, "dev-02")
        device = await RawDevice.connect(rig, "dev-01")
        assert isinstance(device._writer.transport, asyncio.Transport)
        device._writer.transport.pause_reading()
        session = rig.traffic.sessions["dev-01"]
        # The kernel's buffers on both sides take some MiB before ours begin to fill.
        for _ in range(256):
            if session.phase is Phase.OVER:
                break
            session.publish("devices/dev-01/messages/devicebound/", bytes(60 * KIBI), 0)
            await other.publish(b"undisturbed")
        await rig.traffic.until(lambda it: bool(it.left))
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.TOO_SLOW)]
        await device.abort()
        await other.close()


async def test_a_session_can_be_closed_from_inside_a_message(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.traffic.receipts_at_once = False
        rig.traffic.on_message = lambda session, publish: session.close(DeviceEnd.OURS, "enough")
        device = await RawDevice.connect(rig, "dev-01")
        device.send(publish_bytes(device.events, b"x") + publish_bytes(device.events, b"y", packet_id=2))
        await device.ended()
        assert len(rig.traffic.messages) == 1
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.OURS)]


async def test_a_fault_of_the_traffic_ends_that_session_alone_and_is_not_hidden(tls: Tls) -> None:
    def fail(session: DeviceSession, publish: Publish) -> None:
        if publish.payload == b"trip":
            raise ZeroDivisionError

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    async with listener_rig(tls, "dev-01", "dev-02") as rig:
        rig.traffic.on_message = fail
        other = await RawDevice.connect(rig, "dev-02")
        device = await RawDevice.connect(rig, "dev-01")
        device.send(publish_bytes(device.events, b"trip"))
        await device.ended()
        await rig.traffic.until(lambda it: bool(it.left))
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.CLOSED)]
        assert [type(error) for error in told] == [ZeroDivisionError]
        await other.publish(b"still here")
        await other.close()


async def test_verbs_on_a_session_that_is_over_do_nothing(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        await device.disconnect()
        session = rig.traffic.sessions["dev-01"]
        for verb in (session.pause_reading, session.resume_reading, session.reconsider, session.give_up_hold):
            verb()
        session.close(DeviceEnd.SHUTDOWN)
        assert session.phase is Phase.OVER
        assert not session.congested
        assert len(rig.traffic.left) == 1
        with pytest.raises(LocalProtocolError):
            session.publish("devices/dev-01/messages/devicebound/", b"x", 0)


async def test_a_slow_connect_is_ended_at_its_deadline_and_counted(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.dial(rig)
        whole = connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01"))
        device.send(whole[:20])
        await rig.until(lambda: len(rig.listener._not_in) == 1)
        rig.time.pass_seconds(14.9)
        assert not rig.refusals()
        rig.time.pass_seconds(0.2)
        assert await device.ended() == b""
        assert rig.refusals() == {"connect_timeout": 1}


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (publish_bytes("devices/dev-01/messages/events/", b"x"), "protocol_violation"),
        (PINGREQ, "protocol_violation"),
        (b"\x10\xff\xff\xff\x7f", "too_large"),
        (frame(0x10, text("MQIsdp") + b"\x03\x02\x00\x3c" + text("dev-01")), "malformed"),
    ],
)
async def test_a_first_packet_that_is_no_connect_is_counted_by_what_is_wrong(
    tls: Tls, first: bytes, reason: str
) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.dial(rig)
        device.send(first)
        await device.ended()
        assert rig.refusals() == {reason: 1}
        assert not rig.traffic.arrivals


async def test_another_protocol_level_is_answered_1(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.dial(rig)
        device.send(connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01"), level=5))
        assert await device.connack() == 1
        assert await device.ended() == b""
        assert rig.refusals() == {"refused": 1}


async def test_a_wrong_key_is_answered_5_slower_each_time(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        for attempt, delay in enumerate((1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0), 1):
            device = await RawDevice.dial(rig)
            token = rig.token("dev-01", key=key_of("wrong"))
            device.send(connect_bytes("dev-01", rig.username("dev-01"), token))
            await rig.until(lambda attempt=attempt: rig.refusals()["bad_signature"] == attempt)  # type: ignore[misc]  # mypy cannot see the default argument's type
            rig.time.pass_seconds(delay - 0.01)
            with pytest.raises(TimeoutError):
                await device.read(within=0.02)
            rig.time.pass_seconds(0.02)
            assert await device.connack() == 5
            await device.ended()
        assert not rig.traffic.arrivals


@pytest.mark.parametrize("because", [HeldBecause.PARKED, HeldBecause.OVERLOAD])
async def test_a_device_held_for_no_fault_of_its_own_is_answered_3_when_the_hold_is_over(
    tls: Tls, because: HeldBecause
) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.unready["dev-01"] = because
        device = await RawDevice.dial(rig)
        device.send(connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01")))
        await rig.until(lambda: rig.refusals() == {because.value: 1})
        rig.time.pass_seconds(19.9)
        with pytest.raises(TimeoutError):
            await device.read(within=0.02)
        rig.time.pass_seconds(0.2)
        assert await device.connack() == 3
        await device.ended()
        assert rig.refusals() == {because.value: 1}


async def test_a_held_device_that_may_come_in_at_the_end_of_its_hold_does(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.unready["dev-01"] = HeldBecause.PARKED
        device = await RawDevice.dial(rig)
        device.send(connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01")))
        await rig.until(lambda: rig.refusals() == {"parked_by_hub": 1})
        del rig.unready["dev-01"]
        rig.time.pass_seconds(20.1)
        assert await device.connack() == 0
        await device.close()


async def test_a_fault_at_the_end_of_a_hold_ends_that_session_and_is_not_hidden(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.unready["dev-01"] = HeldBecause.PARKED
        device = await RawDevice.dial(rig)
        device.send(connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01")))
        await rig.until(lambda: rig.refusals() == {"parked_by_hub": 1})
        rig.keys.keys[Identity("dev-01")] = (b"no",)
        with pytest.raises(ValueError, match="padding"):
            rig.time.pass_seconds(20.1)
        assert await device.ended() == b""
        await rig.until(lambda: not rig.listener._not_in)


async def test_a_held_device_that_gives_up_leaves_nothing_behind(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.unready["dev-01"] = HeldBecause.PARKED
        device = await RawDevice.dial(rig)
        device.send(connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01")))
        await rig.until(lambda: rig.refusals() == {"parked_by_hub": 1})
        await device.abort()
        await rig.until(lambda: not rig.listener._not_in)
        rig.time.pass_seconds(60.0)
        assert not rig.traffic.arrivals


async def test_a_session_has_no_identity_before_it_is_let_in(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.dial(rig)
        await rig.until(lambda: len(rig.listener._not_in) == 1)
        (session,) = rig.listener._not_in
        with pytest.raises(LocalProtocolError, match="identity"):
            _ = session.identity
        await device.close()
