"""Notices when the token of an open connection, and the grace after it, have ended."""

from __future__ import annotations

from collections.abc import Callable

from gatewayd.emulator.hub_state import HubState
from gatewayd.transport.deadline_wheel import Deadline

# The wheel keeps what is filed until its time; so nothing is filed further ahead than this, and looked at again then.
LOOK_SECONDS = 60.0


class TokenEnd:
    """Of one connection; looks anew whenever `plan` is called."""

    __slots__ = ("_deadline", "_expiry", "_hub", "_on_ended")

    def __init__(self, hub: HubState, expiry: int, on_ended: Callable[[float], None]) -> None:
        """`on_ended` gets the seconds since the end of token and grace."""
        self._hub = hub
        self._expiry = expiry
        self._on_ended = on_ended
        self._deadline = Deadline(self._look)

    def plan(self) -> None:
        """File the moment of the end, as clock and grace are now."""
        left = max(0.0, -self._late())
        self._hub.wheel.set(self._deadline, self._hub.now() + min(left, LOOK_SECONDS))

    def close(self) -> None:
        self._hub.wheel.set(self._deadline, None)

    def _late(self) -> float:
        return self._hub.wall() - self._expiry - self._hub.settings.grace_seconds

    def _look(self, _now: float) -> None:
        late = self._late()
        if late < 0:
            self.plan()
        else:
            self._on_ended(late)
