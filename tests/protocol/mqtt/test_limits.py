"""The defaults hold what IoT Hub's own limits need."""

from __future__ import annotations

from gatewayd.protocol.mqtt.limits import MAX_MESSAGE_BYTES, Limits
from tests.support import mqtt_bytes as raw


def test_the_largest_message_of_iot_hub_fits_under_the_longest_topic() -> None:
    largest = raw.publish("t" * 65_535, bytes(MAX_MESSAGE_BYTES), 1, 65_535)
    assert Limits().max_packet_bytes == Limits().max_held_bytes == len(largest)


def test_a_connect_with_the_largest_will_and_a_token_fits() -> None:
    token = b"SharedAccessSignature " + b"x" * 1_000
    largest = raw.connect(
        "d" * 128, username="u" * 1_000, password=token, will=("t" * 1_000, bytes(65_535), 1, False)
    )
    assert len(largest) <= Limits().max_connect_bytes


def test_the_keep_alive_cap_is_the_hubs() -> None:
    assert Limits().max_keep_alive == 29.45 * 60
