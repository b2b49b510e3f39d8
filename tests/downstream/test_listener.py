"""The listener over real sockets: clients we did not write, strangers, limits, expiry, and the end."""

from __future__ import annotations

import asyncio
import logging
import ssl
import warnings
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from asyncio_mqtt.error import MqttConnectError

from gatewayd.clock import SystemClock
from gatewayd.downstream import listener as listener_module
from gatewayd.downstream.admission import HeldBecause
from gatewayd.downstream.device_session import DeviceEnd
from gatewayd.downstream.listener import ListenerPolicy
from gatewayd.errors import LocalProtocolError
from gatewayd.message import Identity
from tests.support.azure_device import SDK_PORT, azure_device, own_loopback_address
from tests.support.hand_tls import HandTls
from tests.support.listener_rig import WALL, Left, Rig, listener_rig
from tests.support.paho_device import paho_client
from tests.support.raw_device import RawDevice, connect_bytes, publish_bytes
from tests.support.sas_keys import HUB, key_of
from tests.support.tls_material import HUB as SERVER_NAME
from tests.support.tls_material import Tls
from tests.support.websocket_rig import BINARY, HandWebSocket

OK = b"\x20\x02\x00\x00"


async def say_connect(
    rig: Rig, identity: str = "dev-01", *, key: bytes | None = None, **more: float
) -> RawDevice:
    """TLS and CONNECT; the answer is not waited for."""
    device = await RawDevice.dial(rig, identity)
    token = rig.token(identity, key=key, **more)
    device.send(connect_bytes(identity, rig.username(identity), token))
    return device


# Clients we did not write


async def test_a_paho_client_sends_and_gets_its_receipts_over_either_tls(
    tls: Tls, version: ssl.TLSVersion
) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        async with paho_client(rig, "dev-01", tls.their_client(version)) as client:
            for n in range(50):
                await client.publish("devices/dev-01/messages/events/", b"%d" % n, qos=1)
        await rig.traffic.until(lambda it: bool(it.left))
        assert [publish.payload for _, _, publish in rig.traffic.messages] == [b"%d" % n for n in range(50)]
        assert rig.traffic.left == [Left("dev-01", True, DeviceEnd.DISCONNECT)]


async def test_a_paho_client_receives_a_cloud_message(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig, paho_client(rig, "dev-01", tls.their_client()) as client:
        await client.subscribe("devices/dev-01/messages/devicebound/#", qos=1)
        rig.traffic.sessions["dev-01"].publish("devices/dev-01/messages/devicebound/a=b", b"turn", 1)
        async with client.messages() as messages, asyncio.timeout(10):
            message = await anext(aiter(messages))
        assert (str(message.topic), message.payload) == ("devices/dev-01/messages/devicebound/a=b", b"turn")
        await rig.traffic.until(lambda it: len(it.deliveries) == 1)


async def test_a_paho_client_with_a_wrong_key_reads_not_authorized(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        rig.keys.keys[Identity("dev-01")] = (key_of("other"),)
        connecting = asyncio.create_task(
            paho_client(rig, "dev-01", tls.their_client()).connect(), name="connect"
        )
        await rig.until(lambda: rig.refusals() == {"bad_signature": 1})
        rig.time.pass_seconds(1.1)
        with pytest.raises(MqttConnectError) as caught:
            await connecting
        assert caught.value.rc == 5


async def test_an_unmodified_device_sdk_sends_and_renews_its_token_through_the_gateway(
    tls: Tls,
) -> None:
    address = own_loopback_address()
    # The SDK signs by the real clock, and renews 120 s before expiry.
    now = SystemClock().wall()
    async with (
        listener_rig(tls, "dev-01", host=address, port=SDK_PORT, wall=now) as rig,
        azure_device(
            HUB,
            "dev-01",
            tls.authority.ca_file.read_text(),
            key=key_of("dev-01").decode(),
            gateway_hostname=address,
            sastoken_ttl=122,
        ) as device,
    ):
        await device.connect()
        for n in range(20):
            await device.send(str(n))
        assert len(rig.traffic.messages) == 20
        await rig.traffic.until(lambda it: len(it.arrivals) == 2)
        assert rig.traffic.left == [Left("dev-01", True, DeviceEnd.DISCONNECT)]
        await device.send("after the renewal")
        await device.stop()
        assert len(rig.traffic.messages) == 21
        assert not rig.refusals()


# The first bytes


async def test_a_connect_in_the_segment_of_the_tls_finished_is_answered(
    tls: Tls, version: ssl.TLSVersion
) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        context = tls.their_client(version)
        connect = connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01"))
        first = await HandTls.connect(rig.port, context, SERVER_NAME)
        # In a full TLS 1.2 handshake the server's Finished is last; in TLS 1.3, and resumed, the client's.
        await first.shake_hands(keep_last_flight=version is ssl.TLSVersion.TLSv1_3)
        await first.send(connect)
        assert await first.read(4) == OK
        second = await HandTls.connect(rig.port, context, SERVER_NAME, first.tls.session)
        await second.shake_hands(keep_last_flight=True)
        await second.send(connect, publish_bytes("devices/dev-01/messages/events/", b"early"))
        assert await second.read(8) == OK + b"\x40\x02\x00\x01"
        assert second.tls.session_reused
        first.close()
        second.close()


async def test_a_client_that_speaks_no_tls_is_counted_and_nobody_notices(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        reader, writer = await asyncio.open_connection(rig.host, rig.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()
        await rig.until(lambda: rig.refusals() == {"tls_handshake": 1})
        await device.publish(b"still here")
        await device.close()


async def test_a_client_with_old_tls_is_refused(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        context = tls.their_client()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python says what this test is about
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(rig.host, rig.port, ssl=context, server_hostname=SERVER_NAME)
        await rig.until(lambda: rig.refusals() == {"tls_handshake": 1})


# Credentials


@pytest.mark.parametrize("which", ["", " secondary"])
async def test_both_keys_of_a_device_open_the_door(tls: Tls, which: str) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await say_connect(rig, key=key_of(f"dev-01{which}"))
        assert await device.connack() == 0
        await device.close()


async def wrong_credentials(rig: Rig) -> AsyncIterator[tuple[str, bytes]]:
    """Every way to be wrong: the reason it is counted under, and the CONNECT."""
    name, token = rig.username("dev-01"), rig.token("dev-01")
    yield "client_id", connect_bytes("a/b/c", name, token)
    yield "client_id", connect_bytes("", name, token, clean=True)
    yield "client_id_mismatch", connect_bytes("dev-02", name, token)
    yield "user_name", connect_bytes("dev-01", "dev-01", token)
    yield "no_credential", connect_bytes("dev-01", None, None)
    yield "no_credential", connect_bytes("dev-01", name, "")
    yield "malformed_token", connect_bytes("dev-01", name, "hunter2")
    yield "malformed_token", connect_bytes("dev-01", name, b"\xff\x00")
    yield "wrong_audience", connect_bytes("dev-01", name, rig.token("dev-02"))
    yield "bad_signature", connect_bytes("dev-01", name, rig.token("dev-01", key=key_of("other")))
    yield "expired", connect_bytes("dev-01", name, rig.token("dev-01", -301.0))
    yield "unknown_device", connect_bytes("dev-99", rig.username("dev-99"), rig.token("dev-99"))


async def test_every_wrong_credential_is_answered_5_and_counted_and_nobody_else_notices(
    tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gatewayd")
    async with listener_rig(tls, "dev-01", "dev-02") as rig:
        other = await RawDevice.connect(rig, "dev-02")
        expected = Counter[str]()
        async for reason, connect in wrong_credentials(rig):
            device = await RawDevice.dial(rig)
            device.send(connect)
            expected[reason] += 1
            await rig.until(lambda: rig.refusals() == expected)
            rig.time.pass_seconds(21.0)
            assert await device.connack() == 5
            await device.ended()
            await other.publish(b"still here")
        assert rig.traffic.arrivals == ["dev-02"]
        await other.close()
    said = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "regenerated" in said
    for secret in ("hunter2", "SharedAccessSignature sr", "sig=", key_of("other").decode()):
        assert secret not in said


async def test_a_refused_device_is_a_warning_once_and_debug_after(
    tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gatewayd")
    async with listener_rig(tls, "dev-01") as rig:
        for attempt in range(1, 4):
            device = await say_connect(rig, key=key_of("other"))
            await rig.until(lambda attempt=attempt: rig.refusals()["bad_signature"] == attempt)  # type: ignore[misc]  # mypy cannot see the default argument's type
            await device.abort()
    levels = [record.levelname for record in caplog.records if "is refused" in record.getMessage()]
    assert levels == ["WARNING", "DEBUG", "DEBUG"]


async def test_a_client_that_comes_back_at_once_cannot_make_a_storm(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        attempts, end = 0, rig.time.clock.monotonic() + 30.0
        while rig.time.clock.monotonic() < end:
            device = await say_connect(rig, key=key_of("other"))
            attempts += 1
            await rig.until(lambda attempts=attempts: rig.refusals()["bad_signature"] == attempts)  # type: ignore[misc]  # mypy cannot see the default argument's type
            while True:
                rig.time.pass_seconds(0.5)
                try:
                    assert await device.connack(within=0.02) == 5
                except TimeoutError:
                    continue
                break
            await device.close()
        # Refused at once it would have been as many as TLS allows: 30 in the first three seconds, seen from Node.
        assert attempts <= 6


# Trouble of ours


async def test_while_keys_are_loaded_devices_wait_and_then_come_in(tls: Tls) -> None:
    names = [f"dev-{n:02}" for n in range(10)]
    async with listener_rig(tls, *names) as rig:
        rig.keys.ready = False
        devices = [await say_connect(rig, name) for name in names]
        await rig.until(lambda: rig.refusals() == {"keys_not_loaded": 10})
        rig.time.pass_seconds(10.0)
        rig.keys.ready = True
        rig.listener.reconsider()
        for device in devices:
            assert await device.connack() == 0
            await device.close()


async def test_many_who_wait_are_asked_again_in_groups(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "RECONSIDER_BATCH", 2)
    names = [f"dev-{n}" for n in range(5)]
    async with listener_rig(tls, *names) as rig:
        rig.keys.ready = False
        devices = [await say_connect(rig, name) for name in names]
        await rig.until(lambda: rig.refusals() == {"keys_not_loaded": 5})
        rig.keys.ready = True
        rig.listener.reconsider()
        let_in = []
        for _ in range(3):
            await asyncio.sleep(0)
            let_in.append(len(rig.traffic.arrivals))
        assert let_in == [2, 4, 5]
        for device in devices:
            assert await device.connack() == 0
            await device.close()


async def test_a_hold_of_zero_answers_3_at_once(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", policy=ListenerPolicy(hold=0.0)) as rig:
        rig.unready["dev-01"] = HeldBecause.PARKED
        device = await say_connect(rig)
        assert await device.connack() == 3
        await device.ended()


async def test_while_the_clock_is_wrong_devices_come_in_and_are_checked_later(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", "dev-02") as rig:
        rig.clock_trusted = False
        late = await say_connect(rig, "dev-01", lifetime=-4000.0)
        assert await late.connack() == 0
        good = await say_connect(rig, "dev-02")
        assert await good.connack() == 0
        rig.time.pass_seconds(60.0)
        assert not rig.traffic.left
        rig.clock_trusted = True
        rig.time.pass_seconds(1.0)
        await late.ended()
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.TOKEN_EXPIRED)]
        await good.publish(b"still here")
        await good.close()


# One session per identity


async def test_a_newer_connection_of_the_same_device_ends_the_older(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        older = await RawDevice.connect(rig, "dev-01")
        newer = await RawDevice.connect(rig, "dev-01")
        assert await older.ended() == b""
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.TAKEOVER)]
        assert rig.traffic.arrivals == ["dev-01", "dev-01"]
        await newer.publish(b"here I am")
        assert len(rig.listener) == 1
        assert rig.listener.session(Identity("dev-01")) is rig.traffic.sessions["dev-01"]
        await newer.close()
        await rig.traffic.until(lambda it: not it.present)
        assert rig.listener.session(Identity("dev-01")) is None


async def test_a_takeover_out_of_the_olders_own_turn_keeps_its_order(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        older = await RawDevice.connect(rig, "dev-01")
        rig.unready["dev-01"] = HeldBecause.PARKED
        newer = await say_connect(rig)
        await rig.until(lambda: rig.refusals() == {"parked_by_hub": 1})
        del rig.unready["dev-01"]
        rig.traffic.on_message = lambda session, publish: rig.listener.reconsider()
        older.send(publish_bytes(older.events, b"x"))
        # The traffic itself asserts that the older leaves before the newer arrives.
        assert await newer.connack() == 0
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.TAKEOVER)]
        await older.ended()
        await newer.publish(b"here I am")
        await newer.close()


async def test_an_impostor_does_not_end_the_devices_session(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01")
        impostor = await say_connect(rig, key=key_of("other"))
        await rig.until(lambda: rig.refusals() == {"bad_signature": 1})
        rig.time.pass_seconds(1.1)
        assert await impostor.connack() == 5
        await impostor.ended()
        await device.publish(b"still here")
        await device.close()


# Limits


async def test_a_device_that_connects_too_often_waits_for_its_place(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", connects_per_device=6) as rig:
        for _ in range(6):
            await (await RawDevice.connect(rig, "dev-01")).disconnect()
        device = await say_connect(rig)
        await rig.until(lambda: rig.refusals() == {"device_connects": 1})
        rig.time.pass_seconds(9.9)
        with pytest.raises(TimeoutError):
            await device.read(within=0.02)
        rig.time.pass_seconds(0.2)
        assert await device.connack() == 0
        await device.close()


async def test_a_device_whose_place_is_too_far_off_is_answered_3_after_the_hold(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", "dev-02", connects_per_device=1) as rig:
        await (await RawDevice.connect(rig, "dev-01")).disconnect()
        device = await say_connect(rig)
        await rig.until(lambda: rig.refusals() == {"device_connects": 1})
        rig.time.pass_seconds(20.1)
        assert await device.connack() == 3
        await device.ended()
        other = await RawDevice.connect(rig, "dev-02")
        await other.close()


async def test_a_fleet_behind_one_address_is_let_in_one_by_one(tls: Tls) -> None:
    names = [f"dev-{n}" for n in range(6)]
    policy = ListenerPolicy(connects_per_address_per_second=2)
    async with listener_rig(tls, *names, policy=policy) as rig:
        devices = [await say_connect(rig, name) for name in names]
        await rig.until(lambda: rig.refusals() == {"address_connects": 4})
        seen = []
        for _ in range(5):
            seen.append(len(rig.traffic.arrivals))
            rig.time.pass_seconds(0.5)
        assert seen == [2, 3, 4, 5, 6]
        for device in devices:
            assert await device.connack() == 0
            await device.close()


async def test_an_address_far_behind_its_limit_is_turned_away_before_any_tls(tls: Tls) -> None:
    policy = ListenerPolicy(connects_per_address_per_second=1, hold=2.0)
    async with listener_rig(tls, "dev-01", policy=policy) as rig:
        waiting = [await RawDevice.dial(rig) for _ in range(3)]
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await RawDevice.dial(rig)
        assert rig.refusals() == {"address_connects": 1}
        rig.time.pass_seconds(5.0)
        device = await RawDevice.connect(rig, "dev-01")
        await device.close()
        for stranger in waiting:
            await stranger.close()


async def test_an_address_without_a_place_within_the_hold_is_answered_3(tls: Tls) -> None:
    policy = ListenerPolicy(connects_per_address_per_second=1, hold=0.5)
    async with listener_rig(tls, "dev-01", "dev-02", policy=policy) as rig:
        # Both are past the first look, which asks before TLS, when the first of them takes the place.
        first = await HandTls.connect(rig.port, tls.their_client(), SERVER_NAME)
        second = await HandTls.connect(rig.port, tls.their_client(), SERVER_NAME)
        await rig.until(lambda: rig.listener._server is not None and rig.listener._server.handshaking == 2)
        await first.shake_hands()
        await second.shake_hands()
        await first.send(connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01")))
        assert await first.read(4) == OK
        await second.send(connect_bytes("dev-02", rig.username("dev-02"), rig.token("dev-02")))
        await rig.until(lambda: rig.refusals() == {"address_connects": 1})
        rig.time.pass_seconds(0.6)
        assert await second.read(4) == b"\x20\x02\x00\x03"
        first.close()
        second.close()


async def test_connections_in_all_are_bounded(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", "dev-02", policy=ListenerPolicy(max_connections=2)) as rig:
        device = await RawDevice.connect(rig, "dev-01")
        stranger = await RawDevice.dial(rig)
        await rig.until(lambda: len(rig.listener._not_in) == 1)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await RawDevice.dial(rig)
        assert rig.refusals() == {"overload": 1}
        await stranger.close()
        await rig.until(lambda: not rig.listener._not_in)
        other = await RawDevice.connect(rig, "dev-02")
        await other.close()
        await device.close()


async def test_new_bounds_hold_for_those_who_come_after(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", "dev-02") as rig:
        before = await RawDevice.connect(rig, "dev-01", keep_alive=1000)
        rig.listener.retune(ListenerPolicy(keep_alive_cap=30.0))
        after = await RawDevice.connect(rig, "dev-02", keep_alive=1000)
        rig.time.pass_seconds(31.0)
        await after.ended()
        await before.publish(b"as before")
        await before.close()


# The devices' own tokens


async def test_a_device_whose_token_ran_out_stays_for_the_grace_and_is_then_closed(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01", lifetime=60.0, keep_alive=1000)
        rig.time.pass_seconds(60.0 + 598.0)
        await device.publish(b"in the grace")
        rig.time.pass_seconds(3.0)
        await device.ended()
        assert rig.traffic.left == [Left("dev-01", False, DeviceEnd.TOKEN_EXPIRED)]


async def test_a_grace_is_never_shorter_than_the_skew_that_lets_a_token_in(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", policy=ListenerPolicy(expired_token_grace=0.0)) as rig:
        device = await RawDevice.connect(rig, "dev-01", lifetime=-200.0, keep_alive=1000)
        rig.time.pass_seconds(98.0)
        await device.publish(b"within the skew")
        rig.time.pass_seconds(3.0)
        await device.ended()


async def test_tokens_that_run_out_together_are_closed_at_a_pace(tls: Tls) -> None:
    names = [f"dev-{n}" for n in range(7)]
    policy = ListenerPolicy(expired_closes_per_second=3)
    async with listener_rig(tls, *names, policy=policy) as rig:
        devices = [await RawDevice.connect(rig, name, lifetime=60.0, keep_alive=1000) for name in names]
        rig.time.pass_seconds(659.0)
        assert not rig.traffic.left
        gone = []
        for _ in range(5):
            rig.time.pass_seconds(1.0)
            gone.append(len(rig.traffic.left))
        assert gone == [3, 6, 7, 7, 7]
        for device in devices:
            await device.close()


async def test_a_device_that_came_back_with_a_new_token_is_not_closed_for_the_old_one(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        await (await RawDevice.connect(rig, "dev-01", lifetime=60.0)).disconnect()
        device = await RawDevice.connect(rig, "dev-01", lifetime=3600.0, keep_alive=1000)
        rig.time.pass_seconds(700.0)
        await device.publish(b"still here")
        await device.close()


async def test_a_step_of_the_clock_back_gives_time_and_forward_takes_it(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.connect(rig, "dev-01", lifetime=60.0, keep_alive=1700)
        rig.time.clock.step(-3600.0)
        rig.time.pass_seconds(700.0)
        await device.publish(b"still here")
        rig.time.clock.step(3600.0)
        rig.time.pass_seconds(1.0)
        await device.ended()
        assert rig.time.clock.wall() > WALL


# The end


async def test_draining_lets_nobody_in_answers_who_waits_and_closes_the_rest(tls: Tls) -> None:
    names = [f"dev-{n}" for n in range(10)]
    async with listener_rig(tls, *names) as rig:
        present = [await RawDevice.connect(rig, name) for name in names[:8]]
        rig.unready["dev-8"] = HeldBecause.PARKED
        held = await say_connect(rig, "dev-8")
        await rig.until(lambda: rig.refusals() == {"parked_by_hub": 1})
        silent = await RawDevice.dial(rig)
        await rig.until(lambda: len(rig.listener._not_in) == 2)
        await rig.listener.drain(0.2)
        assert await held.connack() == 3
        for device in (*present, held, silent):
            assert await device.ended() == b""
        assert {left.end for left in rig.traffic.left} == {DeviceEnd.SHUTDOWN}
        assert len(rig.listener) == 0
        with pytest.raises(ConnectionError):
            await RawDevice.dial(rig)


async def test_a_connect_that_comes_while_draining_is_held(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        device = await RawDevice.dial(rig)
        await rig.until(lambda: len(rig.listener._not_in) == 1)
        rig.listener.stop_accepting()
        device.send(connect_bytes("dev-01", rig.username("dev-01"), rig.token("dev-01")))
        await rig.until(lambda: rig.refusals() == {"draining": 1})
        await rig.listener.drain(0.0)
        assert await device.connack() == 3
        await device.ended()
        assert not rig.traffic.arrivals


async def test_draining_is_spread_over_its_time(tls: Tls) -> None:
    names = [f"dev-{n}" for n in range(8)]
    async with listener_rig(tls, *names) as rig:
        devices = [await RawDevice.connect(rig, name) for name in names]
        draining = asyncio.create_task(rig.listener.drain(0.4), name="drain")
        await rig.traffic.until(lambda it: bool(it.left))
        assert len(rig.traffic.left) == 1
        async with asyncio.timeout(10):
            await draining
        assert len(rig.traffic.left) == 8
        for device in devices:
            await device.close()


async def test_who_is_present_can_be_listed_and_counted(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", "dev-02") as rig:
        devices = [await RawDevice.connect(rig, name) for name in ("dev-01", "dev-02")]
        assert {str(session.identity) for session in rig.listener} == {"dev-01", "dev-02"}
        assert rig.registry.get_sample_value("gatewayd_devices_connected") == 2.0
        for device in devices:
            await device.close()
        await rig.traffic.until(lambda it: not it.present)
        assert rig.registry.get_sample_value("gatewayd_devices_connected") == 0.0


async def test_every_refusal_is_a_series_from_the_start(tls: Tls) -> None:
    async with listener_rig(tls) as rig:
        reasons = {
            sample.labels["reason"]
            for family in rig.registry.collect()
            for sample in family.samples
            if sample.name == "gatewayd_device_refusals_total"
        }
        assert {because.value for because in HeldBecause} <= reasons
        assert {"bad_signature", "connect_timeout", "tls_handshake", "websocket_upgrade"} <= reasons


async def test_a_listener_has_no_port_before_it_is_started(tls: Tls) -> None:
    async with listener_rig(tls) as rig:
        server, rig.listener._server = rig.listener._server, None
        with pytest.raises(LocalProtocolError, match="started"):
            _ = rig.listener.port
        rig.listener._server = server


# The other door


async def web_dialled(rig: Rig) -> HandWebSocket:
    """An upgraded connection on the WebSocket port, nothing of MQTT said."""
    if rig.listener.websocket_port is None:
        await rig.listener.start_websockets(rig.host, 0)
    assert rig.listener.websocket_port is not None
    hand = await HandWebSocket.connect(rig.listener.websocket_port, rig.client_context())
    assert hand.status == 101
    return hand


async def web_connected(rig: Rig, identity: str) -> HandWebSocket:
    hand = await web_dialled(rig)
    hand.send(BINARY, connect_bytes(identity, rig.username(identity), rig.token(identity)))
    assert await hand.receive() == (BINARY, OK)
    return hand


async def test_a_device_over_websocket_is_a_device_like_any_other(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        hand = await web_connected(rig, "dev-01")
        assert rig.traffic.present == {"dev-01"}
        hand.send(BINARY, publish_bytes("devices/dev-01/messages/events/", b"framed", packet_id=7))
        assert await hand.receive() == (BINARY, b"\x40\x02\x00\x07")
        assert rig.traffic.messages[0][2].payload == b"framed"
        hand.send(BINARY, b"\xe0\x00")
        assert await hand.close_code() == 1000
        await hand.leave()
        assert [(left.end, left.planned) for left in rig.traffic.left] == [(DeviceEnd.DISCONNECT, True)]


async def test_a_device_is_one_device_whichever_door_it_takes(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        older = await RawDevice.connect(rig, "dev-01")
        newer = await web_connected(rig, "dev-01")
        assert await older.ended() == b""
        again = await RawDevice.connect(rig, "dev-01")
        assert await newer.close_code() == 1000
        await newer.leave()
        await again.close()
        await rig.traffic.until(lambda it: not it.present)
        assert [left.end for left in rig.traffic.left[:2]] == [DeviceEnd.TAKEOVER] * 2


async def test_a_wrong_credential_is_answered_in_frames_too(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        hand = await web_dialled(rig)
        token = rig.token("dev-01", key=b"k" * 32)
        hand.send(BINARY, connect_bytes("dev-01", rig.username("dev-01"), token))
        await rig.until(lambda: rig.refusals() == {"bad_signature": 1})
        rig.time.pass_seconds(30.0)
        assert await hand.receive() == (BINARY, b"\x20\x02\x00\x05")
        await hand.leave()


async def test_who_asks_for_something_else_is_answered_by_http_and_counted(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01") as rig:
        await rig.listener.start_websockets(rig.host, 0)
        assert rig.listener.websocket_port is not None
        hand = await HandWebSocket.connect(
            rig.listener.websocket_port, rig.client_context(), request="GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        assert hand.status == 400
        await hand.ended()
        await hand.leave()
        assert rig.refusals() == {"websocket_upgrade": 1}


async def test_connections_in_the_doorway_count_against_the_bound(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", policy=ListenerPolicy(max_connections=1)) as rig:
        await rig.listener.start_websockets(rig.host, 0)
        _, writer = await asyncio.open_connection(
            rig.host, rig.listener.websocket_port, ssl=rig.client_context(), server_hostname=SERVER_NAME
        )
        await rig.until(lambda: len(rig.listener._door) == 1)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await RawDevice.dial(rig)
        assert rig.refusals() == {"overload": 1}
        writer.close()
        await rig.until(lambda: len(rig.listener._door) == 0)


async def test_draining_closes_both_doors(tls: Tls) -> None:
    async with listener_rig(tls, "dev-01", "dev-02") as rig:
        hand = await web_connected(rig, "dev-01")
        device = await RawDevice.connect(rig, "dev-02")
        reader, writer = await asyncio.open_connection(
            rig.host, rig.listener.websocket_port, ssl=rig.client_context(), server_hostname=SERVER_NAME
        )
        await rig.until(lambda: len(rig.listener._door) == 1)
        await rig.listener.drain(0.05)
        assert await hand.close_code() == 1000
        assert await device.ended() == b""
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionError):
            await web_dialled(rig)
        writer.close()
        await hand.leave()


async def test_new_bounds_hold_at_both_doors(tls: Tls) -> None:
    async with listener_rig(tls) as rig:
        await rig.listener.start_websockets(rig.host, 0)
        rig.listener.retune(ListenerPolicy(handshake_deadline=3.0, connect_deadline=4.0))
        assert [server.handshake_timeout for server in rig.listener._servers] == [3.0, 3.0]
        assert rig.listener._door.upgrade_timeout == 4.0
