"""Values that exist are valid, and never show a payload."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.message import Identity, Telemetry


@pytest.mark.parametrize("client_id", ["device-1", "device-1/mod-a", "a+b#c%d@e'f*"])
def test_an_identity_is_its_client_id(client_id: str) -> None:
    assert str(Identity.parse(client_id)) == client_id


@pytest.mark.parametrize("client_id", ["", "/", "device/", "/module", "a/b/c"])
def test_what_is_no_client_id_is_refused(client_id: str) -> None:
    with pytest.raises(ValueError, match="id"):
        Identity.parse(client_id)


def test_a_message_counts_topic_and_payload_and_shows_neither() -> None:
    message = Telemetry(Identity("d"), "devices/d/messages/events/", b"s3cret", 1)
    assert message.size == 26 + 6
    assert "s3cret" not in repr(message)


def test_equal_identities_are_one_key() -> None:
    table = {Identity("dev-1"): 1, Identity("dev-1", "mod-a"): 2}
    assert table[Identity.parse("dev-1")] == 1
    assert table[Identity.parse("dev-1/mod-a")] == 2
    assert replace(Identity("dev-1"), module_id="mod-a") == Identity("dev-1", "mod-a")
    assert table[replace(Identity("dev-1"), module_id="mod-a")] == 2
