"""One fault, two faces: who must act is in the class."""

from __future__ import annotations

from gatewayd.errors import Actor, LocalProtocolError, RemoteProtocolError
from gatewayd.protocol.mqtt.faults import CloseCause, ConnackCode, InvalidPacket, PeerFault


def test_a_packet_we_cannot_make_is_ours_to_mend() -> None:
    error = InvalidPacket("topic is empty", clause="MQTT-4.7.3-1")
    assert isinstance(error, LocalProtocolError)
    assert error.acts is Actor.WE
    assert str(error) == "topic is empty [MQTT-4.7.3-1]"


def test_what_the_peer_sent_is_the_peers() -> None:
    error = PeerFault("level is 5", clause="MQTT-3.1.2-2", answer=ConnackCode.UNACCEPTABLE_PROTOCOL_VERSION)
    assert isinstance(error, RemoteProtocolError)
    assert error.acts is Actor.PEER
    assert error.cause is CloseCause.MALFORMED
    assert error.answer == 1
    assert str(error) == "level is 5 [MQTT-3.1.2-2]"


def test_the_causes_can_label_a_metric() -> None:
    assert all(cause.value == cause.name.lower() for cause in CloseCause)
