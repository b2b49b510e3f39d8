"""Events travel: they are frozen, and the two roles' sets are what the roles can say."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import get_args

import pytest

from gatewayd.protocol.mqtt.events import ClientEvent, Closed, PublishReceived, ServerEvent
from gatewayd.protocol.mqtt.faults import CloseCause
from gatewayd.protocol.mqtt.packets import Publish


def test_an_event_cannot_be_changed() -> None:
    event = PublishReceived(Publish("a", b"x"))
    with pytest.raises(FrozenInstanceError):
        event.joins = True  # type: ignore[misc]  # what the test forbids
    for kind in (*get_args(ServerEvent), *get_args(ClientEvent)):
        assert is_dataclass(kind)
        assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind)
        assert fields(kind)


def test_an_end_is_unplanned_and_without_a_will_unless_it_says_so() -> None:
    assert Closed(CloseCause.EOF, "") == Closed(CloseCause.EOF, "", planned=False, will=None)


def test_both_roles_can_end() -> None:
    assert Closed in get_args(ServerEvent)
    assert Closed in get_args(ClientEvent)
