"""Commands are values: two with the same words are equal, and nobody changes them on their way."""

from __future__ import annotations

import dataclasses

import pytest

from gatewayd.store.commands import Append, Expire, Lease, Settle
from tests.support.outbox_rig import A


@pytest.mark.parametrize("command", [Append((), print, 0), Lease(A, 1, 1, print), Settle((1,)), Expire(1.0)])
def test_a_command_does_not_change_on_its_way(command: object) -> None:
    names = getattr(command, "_fields", None) or tuple(one.name for one in dataclasses.fields(command))  # type: ignore[arg-type]  # one of both kinds
    with pytest.raises(AttributeError):
        setattr(command, names[0], None)
