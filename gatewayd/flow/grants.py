"""SUBSCRIBEs of devices that wait for their answer.

A filter is granted once it is kept (`Subscriptions`) and once the hub has answered our own SUBSCRIBE for it, or when
the hub cannot be asked now, or when it takes longer than `PATIENCE_SECONDS`: then it is asked on the next connection
anyway, and a device that gets no SUBACK gives its session up. What the hub refuses, the device is refused.

How many may wait is bounded by the MQTT core, per device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from gatewayd.message import Identity
from gatewayd.protocol.mqtt.packets import SUBSCRIPTION_REFUSED
from gatewayd.transport.deadline_wheel import Deadline, DeadlineWheel

# Python's SDK gives a SUBSCRIBE 10 s.
PATIENCE_SECONDS: Final = 5.0


class Asker(Protocol):
    """The device session that waits for SUBACK."""

    def grant(self, packet_id: int, codes: tuple[int, ...]) -> None: ...


class HubAnswers(Protocol):
    """What is known of the hub's answers for one identity."""

    def hub_has_answered(self, identity: Identity) -> bool:
        """It has answered all that is wanted, or cannot be asked now."""

    def refused_by_hub(self, identity: Identity) -> frozenset[str]:
        """The filters it refused."""


class _Grant:
    __slots__ = ("asker", "by", "filters", "is_kept", "packet_id")

    def __init__(self, asker: Asker, packet_id: int, filters: tuple[tuple[str, int], ...], by: float) -> None:
        self.asker = asker
        self.packet_id = packet_id
        self.filters = filters
        self.by = by
        self.is_kept = False


class Grants:
    """All SUBSCRIBEs without an answer."""

    def __init__(
        self,
        hub: HubAnswers,
        wheel: DeadlineWheel,
        monotonic: Callable[[], float],
        on_refused: Callable[[Identity, tuple[str, ...]], None],
    ) -> None:
        """`on_refused` hears which filters of a device the hub refused: they are not to be kept."""
        self._hub = hub
        self._wheel = wheel
        self._monotonic = monotonic
        self._on_refused = on_refused
        self._waiting: dict[Identity, list[_Grant]] = {}
        self._deadlines: dict[Identity, Deadline] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def ask(
        self, identity: Identity, asker: Asker, packet_id: int, filters: tuple[tuple[str, int], ...]
    ) -> Callable[[], None]:
        """A device subscribes; call what is returned when its filters are kept."""
        grant = _Grant(asker, packet_id, filters, self._monotonic() + PATIENCE_SECONDS)
        self._waiting.setdefault(identity, []).append(grant)

        def kept() -> None:
            grant.is_kept = True
            self.look(identity)

        return kept

    def look(self, identity: Identity) -> None:
        """Answer what can be answered now."""
        waiting = self._waiting.get(identity)
        if not waiting:
            return
        now = self._monotonic()
        answered = self._hub.hub_has_answered(identity)
        ready = [grant for grant in waiting if grant.is_kept and (answered or now >= grant.by)]
        waiting[:] = [grant for grant in waiting if grant not in ready]
        self._arm(identity, waiting)
        refused = self._hub.refused_by_hub(identity) if ready else frozenset()
        for grant in ready:
            codes = tuple(SUBSCRIPTION_REFUSED if name in refused else qos for name, qos in grant.filters)
            if turned_away := tuple(name for name, _ in grant.filters if name in refused):
                self._on_refused(identity, turned_away)
            grant.asker.grant(grant.packet_id, codes)

    def left(self, identity: Identity) -> None:
        """The device is gone; nobody waits."""
        self._waiting.pop(identity, None)
        self._arm(identity, [])

    def _arm(self, identity: Identity, waiting: list[_Grant]) -> None:
        deadline = self._deadlines.get(identity)
        # One that is kept but for the disk is looked at when it is there.
        by = min((grant.by for grant in waiting if grant.is_kept), default=None)
        if by is None:
            if deadline is not None:
                self._wheel.set(deadline, None)
                del self._deadlines[identity]
            if not waiting:
                self._waiting.pop(identity, None)
            return
        if deadline is None:
            deadline = self._deadlines[identity] = Deadline(lambda _now: self.look(identity))
        self._wheel.set(deadline, by)
