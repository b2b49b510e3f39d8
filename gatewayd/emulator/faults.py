"""Fault switches: what can be made to go wrong at the hub, for whom, how often and for how long. Pure.

A fault is armed for one identity or for all, with a count of uses, a duration, or both; without either it ends by
itself after an hour, so that no fault outlives the test that forgot it. Who meets a fault asks `take`, which uses it
up by one. What acts at once or on the listening socket (restart, blackhole, drop, certificate rotation) and settings
(grace, skew, throttle) are verbs of the hub, not switches.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MAX_ARMED = 256
LONGEST_SECONDS = 3600.0
MAX_VALUE = 600.0


class FaultKind(StrEnum):
    """Each is something the service, or the network in front of it, really does."""

    CONNACK_3 = "connack_3"  # server unavailable, for a CONNECT that is otherwise good
    CONNACK_5 = "connack_5"  # not authorized, for a CONNECT that is otherwise good
    NO_CONNACK = "no_connack"  # TLS and CONNECT are taken, nothing is ever answered
    REFUSE_ALL = "refuse_all"  # TCP is accepted and closed at once
    PUBACK_DELAY = "puback_delay"  # PUBACKs leave `value` seconds late: traffic shaping
    PUBACK_DROP = "puback_drop"  # the message is taken, its PUBACK never sent
    DROP_ON_PUBLISH = "drop_on_publish"  # the socket is closed without a packet when telemetry comes
    LOSE_SUBSCRIPTIONS = "lose_subscriptions"  # the stored session is gone: session-present 0
    LIE_SESSION_PRESENT = "lie_session_present"  # the stored session is gone, yet session-present 1
    SUBACK_REFUSE = "suback_refuse"  # 0x80 for a filter that is otherwise good
    TWIN_STATUS = "twin_status"  # twin requests are answered with status `value` and change nothing
    TWIN_SILENCE = "twin_silence"  # twin requests are never answered
    INPUT_DELAY = "input_delay"  # what comes in, CONNECT included, is processed `value` seconds late
    OLD_FLOW_DELAY = "old_flow_delay"  # the same for connections that are already open, to their end


# Met before anybody has said who they are.
NAMELESS_KINDS = frozenset({FaultKind.REFUSE_ALL})


@dataclass(frozen=True, slots=True)
class Fault:
    """One armed switch. `left` is None when only time ends it; `identity` None means everyone."""

    number: int
    kind: FaultKind
    identity: str | None
    left: int | None
    until: float
    value: float


class FaultBoard:
    """The armed switches."""

    __slots__ = ("_armed", "_number")

    def __init__(self) -> None:
        self._armed: dict[int, Fault] = {}
        self._number = 0

    def arm(
        self,
        kind: FaultKind,
        *,
        now: float,
        identity: str | None = None,
        count: int | None = None,
        seconds: float = LONGEST_SECONDS,
        value: float = 0.0,
    ) -> Fault:
        """Switch a fault on. `value` is the delay in seconds of the kinds that delay, the status of TWIN_STATUS."""
        if not 0 < seconds <= LONGEST_SECONDS:
            raise ValueError(f"seconds={seconds}: allowed above 0, up to {LONGEST_SECONDS}")
        if count is not None and count < 1:
            raise ValueError(f"count={count}: at least 1")
        if not 0 <= value <= MAX_VALUE:
            raise ValueError(f"value={value}: allowed 0 to {MAX_VALUE}")
        if kind is FaultKind.TWIN_STATUS and not (400 <= value < 600 and value == int(value)):
            raise ValueError(f"value={value}: a twin status is 400 to 599")
        if kind in NAMELESS_KINDS and identity is not None:
            raise ValueError(f"{kind} is for everyone: it is met before anybody has said who they are")
        self._expire(now)
        if len(self._armed) >= MAX_ARMED:
            raise ValueError(f"{MAX_ARMED} armed faults is the bound")
        self._number += 1
        fault = Fault(self._number, kind, identity, count, now + seconds, value)
        self._armed[fault.number] = fault
        return fault

    def disarm(self, number: int) -> bool:
        return self._armed.pop(number, None) is not None

    def clear(self) -> None:
        self._armed.clear()

    def armed(self, now: float) -> list[Fault]:
        self._expire(now)
        return list(self._armed.values())

    def find(self, kind: FaultKind, identity: str | None, now: float) -> Fault | None:
        """The armed fault of this kind that concerns `identity`, not used up by asking."""
        if not self._armed:
            return None
        self._expire(now)
        for fault in self._armed.values():
            if fault.kind is kind and fault.identity in {None, identity}:
                return fault
        return None

    def take(self, kind: FaultKind, identity: str | None, now: float) -> Fault | None:
        """Like `find`, and counts one use."""
        fault = self.find(kind, identity, now)
        if fault is None or fault.left is None:
            return fault
        if fault.left == 1:
            del self._armed[fault.number]
        else:
            self._armed[fault.number] = Fault(
                fault.number, fault.kind, fault.identity, fault.left - 1, fault.until, fault.value
            )
        return fault

    def _expire(self, now: float) -> None:
        for number in [number for number, fault in self._armed.items() if fault.until <= now]:
            del self._armed[number]
