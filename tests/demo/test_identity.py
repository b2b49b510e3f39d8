"""A device of the demo says of itself what azure-iot-device says; judged by azure-iot-device."""

from __future__ import annotations

import base64
import importlib
from typing import Any
from urllib.parse import quote

import pytest

from gatewayd.demo.identity import (
    API_VERSION,
    USER_AGENT,
    device_name,
    message_id,
    telemetry_topic,
    token,
    user_name,
)

HUB = "demo.azure-devices.net"
KEY = bytes(range(32))

# The SDK has no types; its parts are taken as they come.
SDK: Any = importlib.import_module("azure.iot.device")
SDK_TOKEN: Any = importlib.import_module("azure.iot.device.common.auth.sastoken")
SDK_SIGNING: Any = importlib.import_module("azure.iot.device.common.auth.signing_mechanism")
SDK_CONSTANT: Any = importlib.import_module("azure.iot.device.constant")
SDK_TOPIC: Any = importlib.import_module("azure.iot.device.iothub.pipeline.mqtt_topic_iothub")
SDK_AGENT: Any = importlib.import_module("azure.iot.device.user_agent")


@pytest.mark.parametrize("device", ["device-00000", "pump 7+a", "x'y(z)*"])
def test_the_token_is_the_one_the_sdk_makes(device: str) -> None:
    signing = SDK_SIGNING.SymmetricKeySigningMechanism(base64.b64encode(KEY).decode())
    theirs = SDK_TOKEN.RenewableSasToken(f"{HUB}/devices/{device}", signing, ttl=30)
    assert token(HUB, device, KEY, theirs.expiry_time) == str(theirs)


def test_the_user_name_is_the_one_the_sdk_sends() -> None:
    assert API_VERSION == SDK_CONSTANT.IOTHUB_API_VERSION
    assert SDK_AGENT.get_iothub_user_agent() == USER_AGENT
    agent = quote(SDK_AGENT.get_iothub_user_agent())
    assert (
        user_name(HUB, "d1")
        == f"{HUB}/d1/?api-version={SDK_CONSTANT.IOTHUB_API_VERSION}&DeviceClientType={agent}"
    )


def test_the_topic_is_the_one_the_sdk_publishes_to() -> None:
    message = SDK.Message("{}", message_id="d1.7", content_encoding="utf-8", content_type="application/json")
    base = SDK_TOPIC.get_telemetry_topic_for_publish("d1", None)
    theirs = SDK_TOPIC.encode_message_properties_in_topic(message, base)
    assert telemetry_topic("d1", message_id("d1", 7)) == theirs


def test_names_sort_as_their_numbers() -> None:
    assert device_name(7) == "device-00007"
    assert sorted(map(device_name, range(1200))) == [device_name(number) for number in range(1200)]
