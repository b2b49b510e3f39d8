"""What the hub's diagnostic log would say: one event per connect, refusal, error and end of a connection.

Codes and texts are those of "Understand and resolve Azure IoT Hub errors" (Microsoft). Every connection that was
accepted ends with exactly one `deviceDisconnect`: planned without a code, or unplanned with one. Events are kept in
memory up to a bound, oldest forgotten first, while the counts go on; they may also be written as JSON lines, up to a
bound of bytes.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TextIO

from gatewayd.emulator.watch import Watch

KEPT_EVENTS = 100_000
MAX_FILE_BYTES = 256 * 1024 * 1024


class HubCode(IntEnum):
    """The error codes the emulator uses; 0 is no error."""

    NONE = 0
    PROTOCOL_ERROR = (
        400000  # the 400xxx family; the service documents no code of its own for a malformed packet
    )
    INVALID_PUBACK_ORDER = 400001  # 400001, 400011, 400013: ErrorCode.cs of azure-iot-protocol-gateway
    ARGUMENT_INVALID = 400004
    EXACTLY_ONCE_NOT_SUPPORTED = 400011
    DUPLICATE_CONNECT = 400013
    TAKEN_OVER = 400027  # ConnectionForcefullyClosedOnNewConnection
    HUB_MOVED = 400030
    UNAUTHORIZED_FORM = 401000
    UNAUTHORIZED = 401003  # IoTHubUnauthorized
    DEVICE_DISABLED = 403012
    CONNECTION_CLOSED = 404104  # DeviceConnectionClosedRemotely
    LOCK_LOST = 412002
    TOO_LARGE = 413001
    THROTTLED = 429001
    INTERNAL = 500001
    UNAVAILABLE = 503001


NAMES = {
    HubCode.NONE: "",
    HubCode.PROTOCOL_ERROR: "BadRequest",
    HubCode.INVALID_PUBACK_ORDER: "InvalidPubAckOrder",
    HubCode.ARGUMENT_INVALID: "ArgumentInvalid",
    HubCode.EXACTLY_ONCE_NOT_SUPPORTED: "ExactlyOnceQosNotSupported",
    HubCode.DUPLICATE_CONNECT: "DuplicateConnectReceived",
    HubCode.TAKEN_OVER: "ConnectionForcefullyClosedOnNewConnection",
    HubCode.HUB_MOVED: "ConnectionForcefullyClosed",
    HubCode.UNAUTHORIZED_FORM: "Unauthorized",
    HubCode.UNAUTHORIZED: "IoTHubUnauthorized",
    HubCode.DEVICE_DISABLED: "DeviceDisabled",
    HubCode.CONNECTION_CLOSED: "DeviceConnectionClosedRemotely",
    HubCode.LOCK_LOST: "DeviceMessageLockLost",
    HubCode.TOO_LARGE: "MessageTooLarge",
    HubCode.THROTTLED: "ThrottlingException",
    HubCode.INTERNAL: "ServerError",
    HubCode.UNAVAILABLE: "ServiceUnavailable",
}


class Operation(StrEnum):
    """What the event is about; the first two are the names of the service's connection events."""

    CONNECT = "deviceConnect"
    DISCONNECT = "deviceDisconnect"
    AUTHORIZATION = "authorization"
    OPERATION = "deviceOperation"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class HubEvent:
    """One line of the log. `planned` is None unless the event is the end of a connection."""

    sequence: int
    operation: Operation
    code: HubCode
    cause: str
    identity: str
    text: str
    detail: str
    planned: bool | None
    connection: int
    wall: float
    monotonic: float

    @property
    def name(self) -> str:
        return NAMES[self.code]

    def as_json(self) -> str:
        # Field by field: dataclasses.asdict copies deeply, which costs ten times as much.
        fields = {name: getattr(self, name) for name in _LINE}
        return json.dumps(fields, separators=(",", ":"))


_LINE = (*HubEvent.__dataclass_fields__, "name")


class EventLog:
    """Appends, counts, keeps, writes and lets others wait for events."""

    def __init__(self, *, kept: int = KEPT_EVENTS, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._kept: deque[HubEvent] = deque(maxlen=kept)
        self._watch: Watch[HubEvent] = Watch()
        self._sequence = 0
        self._file: TextIO | None = None
        self._room = max_file_bytes
        self._later: Callable[[Callable[[], None]], object] = lambda flush: flush()
        self._flush_is_planned = False
        self.errors: Counter[HubCode] = Counter()
        self.causes: Counter[tuple[HubCode, str]] = Counter()
        self.planned = 0
        self.unplanned = 0

    def __len__(self) -> int:
        """How many events there were, forgotten ones included."""
        return self._sequence

    def write_to(
        self, file: TextIO | None, later: Callable[[Callable[[], None]], object] = lambda flush: flush()
    ) -> None:
        """Write every later event to `file` as one JSON line; None stops it. The caller closes the file.

        `later` runs the flush, such as an event loop's `call_soon`: then a burst of events is flushed once.
        """
        self._file = file
        self._later = later

    def append(
        self,
        operation: Operation,
        code: HubCode = HubCode.NONE,
        *,
        cause: str = "",
        identity: str = "",
        text: str = "",
        detail: str = "",
        planned: bool | None = None,
        connection: int = 0,
        wall: float,
        monotonic: float,
    ) -> HubEvent:
        """Add one event; `code` other than 0 makes it an error that is counted."""
        event = HubEvent(
            self._sequence,
            operation,
            code,
            cause,
            identity,
            text,
            detail,
            planned,
            connection,
            wall,
            monotonic,
        )
        self._sequence += 1
        self._kept.append(event)
        if code is not HubCode.NONE:
            self.errors[code] += 1
            self.causes[code, cause] += 1
        if planned is not None:
            self.planned += planned
            self.unplanned += not planned
        self._write(event)
        self._watch.tell(event)
        return event

    def since(self, sequence: int = 0) -> list[HubEvent]:
        """The kept events from `sequence` on."""
        return [event for event in self._kept if event.sequence >= sequence]

    def matching(self, code: HubCode | int | None = None, identity: str | None = None) -> list[HubEvent]:
        """The kept events of one code, one identity, or both."""
        return [
            event
            for event in self._kept
            if (code is None or event.code == code) and (identity is None or event.identity == identity)
        ]

    async def wait_for(
        self, predicate: Callable[[HubEvent], bool], *, since: int = 0, within: float = 10.0
    ) -> HubEvent:
        """The first event from `since` on that matches, past or coming; TimeoutError after `within` seconds."""
        return await self._watch.first(self.since(since), predicate, within)

    def _write(self, event: HubEvent) -> None:
        if self._file is None:
            return
        line = event.as_json()
        self._room -= len(line) + 1
        if self._room < 0:
            self._file.write('{"truncated":true}\n')
            self._file.flush()
            self._file = None
            return
        self._file.write(f"{line}\n")
        if not self._flush_is_planned:
            self._flush_is_planned = True
            self._later(self._flush)

    def _flush(self) -> None:
        self._flush_is_planned = False
        if self._file is not None:
            self._file.flush()
