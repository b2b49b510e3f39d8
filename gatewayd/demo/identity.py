"""What a device says of itself, as azure-iot-device 2.14 says it: user name, token, topic. Pure.

Signed with the standard library, not with gatewayd's own signer: the devices of the demo share no code with what they
talk to.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import platform
from urllib.parse import quote

API_VERSION = "2019-10-01"  # azure/iot/device/constant.py, 2.14.0
USER_AGENT = (
    f"azure-iot-device-iothub-py/2.14.0({platform.python_version()};"
    f"{platform.system()} {platform.version()};{platform.machine()})"
)


def device_name(number: int) -> str:
    return f"device-{number:05d}"


def user_name(hub: str, device: str) -> str:
    return f"{hub}/{device}/?api-version={API_VERSION}&DeviceClientType={quote(USER_AGENT, safe='/')}"


def token(hub: str, device: str, key: bytes, expiry: int) -> str:
    audience = quote(f"{hub}/devices/{device}", safe="")
    digest = hmac.digest(key, f"{audience}\n{expiry}".encode(), hashlib.sha256)
    signature = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={audience}&sig={signature}&se={expiry}"


def telemetry_topic(device: str, message_id: str) -> str:
    mid = quote(message_id, safe="")
    return f"devices/{device}/messages/events/%24.mid={mid}&%24.ct=application%2Fjson&%24.ce=utf-8"


def message_id(device: str, number: int) -> str:
    """Unique in the run: the device and the number of its message."""
    return f"{device}.{number}"
