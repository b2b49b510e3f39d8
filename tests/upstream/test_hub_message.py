"""What a message of the hub may show of itself."""

from __future__ import annotations

from gatewayd.upstream.hub_message import HubMessage


def test_no_payload_and_no_property_is_in_the_repr() -> None:
    message = HubMessage("devices/d/messages/devicebound/code=1234", b"secret", 1, packet_id=7)
    assert repr(message) == "HubMessage(6 bytes, qos=1, packet_id=7)"
