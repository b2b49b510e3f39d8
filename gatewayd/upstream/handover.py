"""The handover: one identity goes from its old hub connection to a new one without the hub seeing two. Pure.

The new socket is dialled ahead of the renewal's place in the timetable. At that place its token is signed, all while
the old connection works. Then publishing is held, the old side drains, DISCONNECT goes out, and CONNECT follows:
*strict* when the hub has closed the old connection (two round trips; no 400027 is possible), *fast* at once (one
round trip; the two flows may overtake each other).

It first waits a bounded patience for a natural idle moment, so that usually nothing has to drain. Until DISCONNECT,
any failure leaves the old connection working (FAILED). After DISCONNECT a failure means that the session is down
(DOWN). An old connection that ends by itself turns the rest into a plain connect. Without an old connection from the
start it *is* a plain connect, so first opens and reconnects use this automaton too.

The shell does what `next_command` says and reports what happened. Every stage but the last ones has a deadline. Once
finished it ignores reports, because they may have crossed with the end. It writes no packet, signs nothing and knows
no socket.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Final

from gatewayd.errors import LocalProtocolError


class Mode(enum.Enum):
    """When CONNECT may follow DISCONNECT."""

    STRICT = "strict"
    FAST = "fast"


class Stage(enum.IntEnum):
    """Where the handover stands. ALONE: there is no old connection (any more)."""

    DIALING = 0
    DIALING_ALONE = 1
    POISED = 2  # dialled, waiting for its place in the timetable
    SIGNING = 3
    SIGNING_ALONE = 4
    QUIESCING = 5  # waiting for an idle moment
    DRAINING = 6
    CLOSING_OLD = 7
    CROSSING = 8  # CONNECT is written, the old connection is not closed yet
    CONNECTING = 9
    SETTLING = 10  # connected, the old connection is not closed yet
    DONE = 11
    FAILED = 12  # the old connection works as before
    DOWN = 13


class Input(enum.IntEnum):
    """What the shell reports."""

    DIALED = 0
    DIAL_FAILED = 1
    SIGNED = 2
    SIGN_FAILED = 3
    IDLE = 4
    OLD_CLOSED = 5
    NEW_CLOSED = 6
    ACCEPTED = 7
    REFUSED = 8
    DEADLINE = 9
    ABANDON = 10


class Command(enum.Enum):
    """What the shell does."""

    DIAL = "dial"  # name lookup, TCP and TLS of the new connection
    SIGN = "sign"  # a fresh token; answer signed or sign_failed
    HOLD = "hold"  # nothing new is published on the old connection
    SEND_DISCONNECT = "send disconnect"  # on the old connection, then wait for the hub's close
    SEND_CONNECT = "send connect"  # on the new connection; here the budget is spent
    RESUME = "resume"  # publish: on the new connection after DONE, on the old one after FAILED
    ABORT_NEW = "abort new"
    ABORT_OLD = "abort old"


@dataclass(frozen=True, slots=True)
class HandoverTimeouts:
    """How long each stage may take, in seconds."""

    dial: float = 20.0
    sign: float = 5.0
    patience: float = 2.0  # for a natural idle moment
    drain: float = 2.0  # for acknowledgements after publishing is held; what is left goes again with DUP
    close: float = 2.0  # for the hub's close after our DISCONNECT; then the old side is aborted
    connack: float = 20.0

    def __post_init__(self) -> None:
        if min(self.dial, self.sign, self.patience, self.drain, self.close, self.connack) <= 0:
            raise ValueError(f"{self}: expected every wait above 0 s")

    @property
    def total(self) -> float:
        """The longest a handover can take, its wait for its place in the timetable left out."""
        return self.dial + self.sign + self.patience + self.drain + self.close + self.connack


_Step = tuple[Stage, tuple[Command, ...]]

_COMMON: Final[dict[tuple[Stage, Input], _Step]] = {
    (Stage.DIALING, Input.DIALED): (Stage.POISED, ()),
    (Stage.DIALING, Input.DIAL_FAILED): (Stage.FAILED, ()),
    (Stage.DIALING, Input.OLD_CLOSED): (Stage.DIALING_ALONE, ()),
    (Stage.DIALING, Input.DEADLINE): (Stage.FAILED, (Command.ABORT_NEW,)),
    (Stage.DIALING, Input.ABANDON): (Stage.FAILED, (Command.ABORT_NEW,)),
    (Stage.POISED, Input.DEADLINE): (Stage.SIGNING, (Command.SIGN,)),
    (Stage.POISED, Input.OLD_CLOSED): (Stage.SIGNING_ALONE, (Command.SIGN,)),
    (Stage.POISED, Input.NEW_CLOSED): (Stage.FAILED, ()),
    (Stage.POISED, Input.ABANDON): (Stage.FAILED, (Command.ABORT_NEW,)),
    (Stage.DIALING_ALONE, Input.DIALED): (Stage.SIGNING_ALONE, (Command.SIGN,)),
    (Stage.DIALING_ALONE, Input.DIAL_FAILED): (Stage.DOWN, ()),
    (Stage.DIALING_ALONE, Input.DEADLINE): (Stage.DOWN, (Command.ABORT_NEW,)),
    (Stage.DIALING_ALONE, Input.ABANDON): (Stage.DOWN, (Command.ABORT_NEW,)),
    (Stage.SIGNING, Input.SIGNED): (Stage.QUIESCING, ()),
    (Stage.SIGNING, Input.SIGN_FAILED): (Stage.FAILED, (Command.ABORT_NEW,)),
    (Stage.SIGNING, Input.OLD_CLOSED): (Stage.SIGNING_ALONE, ()),
    (Stage.SIGNING, Input.NEW_CLOSED): (Stage.FAILED, ()),
    (Stage.SIGNING, Input.DEADLINE): (Stage.FAILED, (Command.ABORT_NEW,)),
    (Stage.SIGNING, Input.ABANDON): (Stage.FAILED, (Command.ABORT_NEW,)),
    (Stage.SIGNING_ALONE, Input.SIGNED): (Stage.CONNECTING, (Command.SEND_CONNECT,)),
    (Stage.SIGNING_ALONE, Input.SIGN_FAILED): (Stage.DOWN, (Command.ABORT_NEW,)),
    (Stage.SIGNING_ALONE, Input.NEW_CLOSED): (Stage.DOWN, ()),
    (Stage.SIGNING_ALONE, Input.DEADLINE): (Stage.DOWN, (Command.ABORT_NEW,)),
    (Stage.SIGNING_ALONE, Input.ABANDON): (Stage.DOWN, (Command.ABORT_NEW,)),
    (Stage.QUIESCING, Input.OLD_CLOSED): (Stage.CONNECTING, (Command.SEND_CONNECT,)),
    (Stage.QUIESCING, Input.NEW_CLOSED): (Stage.FAILED, ()),
    (Stage.QUIESCING, Input.DEADLINE): (Stage.DRAINING, (Command.HOLD,)),
    (Stage.QUIESCING, Input.ABANDON): (Stage.FAILED, (Command.ABORT_NEW,)),
    (Stage.DRAINING, Input.OLD_CLOSED): (Stage.CONNECTING, (Command.SEND_CONNECT,)),
    (Stage.DRAINING, Input.NEW_CLOSED): (Stage.FAILED, (Command.RESUME,)),
    (Stage.DRAINING, Input.ABANDON): (Stage.FAILED, (Command.ABORT_NEW, Command.RESUME)),
    (Stage.CLOSING_OLD, Input.OLD_CLOSED): (Stage.CONNECTING, (Command.SEND_CONNECT,)),
    (Stage.CLOSING_OLD, Input.DEADLINE): (Stage.CONNECTING, (Command.ABORT_OLD, Command.SEND_CONNECT)),
    (Stage.CLOSING_OLD, Input.NEW_CLOSED): (Stage.DOWN, (Command.ABORT_OLD,)),
    (Stage.CLOSING_OLD, Input.ABANDON): (Stage.DOWN, (Command.ABORT_NEW, Command.ABORT_OLD)),
    (Stage.CROSSING, Input.OLD_CLOSED): (Stage.CONNECTING, ()),
    (Stage.CROSSING, Input.ACCEPTED): (Stage.SETTLING, (Command.RESUME,)),
    (Stage.CROSSING, Input.REFUSED): (Stage.DOWN, (Command.ABORT_NEW, Command.ABORT_OLD)),
    (Stage.CROSSING, Input.NEW_CLOSED): (Stage.DOWN, (Command.ABORT_OLD,)),
    (Stage.CROSSING, Input.DEADLINE): (Stage.DOWN, (Command.ABORT_NEW, Command.ABORT_OLD)),
    (Stage.CROSSING, Input.ABANDON): (Stage.DOWN, (Command.ABORT_NEW, Command.ABORT_OLD)),
    # The old connection that we aborted has ended too.
    (Stage.CONNECTING, Input.OLD_CLOSED): (Stage.CONNECTING, ()),
    (Stage.CONNECTING, Input.ACCEPTED): (Stage.DONE, (Command.RESUME,)),
    (Stage.CONNECTING, Input.REFUSED): (Stage.DOWN, (Command.ABORT_NEW,)),
    (Stage.CONNECTING, Input.NEW_CLOSED): (Stage.DOWN, ()),
    (Stage.CONNECTING, Input.DEADLINE): (Stage.DOWN, (Command.ABORT_NEW,)),
    (Stage.CONNECTING, Input.ABANDON): (Stage.DOWN, (Command.ABORT_NEW,)),
    (Stage.SETTLING, Input.OLD_CLOSED): (Stage.DONE, ()),
    (Stage.SETTLING, Input.NEW_CLOSED): (Stage.DOWN, (Command.ABORT_OLD,)),
    (Stage.SETTLING, Input.DEADLINE): (Stage.DONE, (Command.ABORT_OLD,)),
    (Stage.SETTLING, Input.ABANDON): (Stage.DOWN, (Command.ABORT_NEW, Command.ABORT_OLD)),
}

_DISCONNECT_STRICT: Final[_Step] = (Stage.CLOSING_OLD, (Command.SEND_DISCONNECT,))
_DISCONNECT_FAST: Final[_Step] = (Stage.CROSSING, (Command.SEND_DISCONNECT, Command.SEND_CONNECT))


def _with_disconnect(step: _Step) -> dict[tuple[Stage, Input], _Step]:
    stage, commands = step
    return {
        **_COMMON,
        (Stage.QUIESCING, Input.IDLE): (stage, (Command.HOLD, *commands)),
        (Stage.DRAINING, Input.IDLE): step,
        (Stage.DRAINING, Input.DEADLINE): step,
    }


# The one place that says what is legal. Every pair not listed is an error of ours.
TRANSITIONS: Final[dict[Mode, dict[tuple[Stage, Input], _Step]]] = {
    Mode.STRICT: _with_disconnect(_DISCONNECT_STRICT),
    Mode.FAST: _with_disconnect(_DISCONNECT_FAST),
}

FINISHED: Final = frozenset({Stage.DONE, Stage.FAILED, Stage.DOWN})
_WAITS: Final[dict[Stage, str]] = {
    Stage.DIALING: "dial",
    Stage.DIALING_ALONE: "dial",
    Stage.SIGNING: "sign",
    Stage.SIGNING_ALONE: "sign",
    Stage.QUIESCING: "patience",
    Stage.DRAINING: "drain",
    Stage.CLOSING_OLD: "close",
    Stage.CROSSING: "connack",
    Stage.CONNECTING: "connack",
    Stage.SETTLING: "close",
}
# A stage that only learned of the old connection's end keeps the deadline it had.
_KEEPS_DEADLINE: Final = frozenset(
    {
        (Stage.DIALING, Stage.DIALING_ALONE),
        (Stage.SIGNING, Stage.SIGNING_ALONE),
        (Stage.CROSSING, Stage.CONNECTING),
        (Stage.CONNECTING, Stage.CONNECTING),
    }
)
_BEFORE_DISCONNECT: Final = frozenset(
    {Stage.DIALING, Stage.POISED, Stage.SIGNING, Stage.QUIESCING, Stage.DRAINING}
)


class Handover:
    """One handover, or with `old_alive=False` one plain connect. Instants are monotonic seconds."""

    __slots__ = (
        "_commands",
        "_deadline",
        "_held_at",
        "_idle",
        "_not_before",
        "_stage",
        "_table",
        "_timeouts",
        "connack_code",
        "drain",
        "drain_cut",
        "failed_in",
        "gap",
        "old_forced",
        "old_lost",
    )

    def __init__(
        self,
        mode: Mode,
        timeouts: HandoverTimeouts,
        now: float,
        *,
        old_alive: bool,
        in_flight: int = 0,
        not_before: float = 0.0,
    ) -> None:
        self._table = TRANSITIONS[mode]
        self._timeouts = timeouts
        self._commands: deque[Command] = deque((Command.DIAL,))
        self._stage = Stage.DIALING if old_alive else Stage.DIALING_ALONE
        self._deadline: float | None = now + timeouts.dial
        self._idle = in_flight == 0
        # Never further away than a stage may last.
        self._not_before = min(not_before, now + timeouts.dial)
        self._held_at: float | None = None
        self.gap: float | None = None  # seconds from the last publish permitted to the next permitted
        self.drain: float | None = None  # seconds of it that were spent draining
        self.drain_cut = False  # messages were still unacknowledged at DISCONNECT
        self.old_forced = False  # the hub did not close the old connection in time; we aborted it
        self.old_lost = False  # the old connection ended by itself
        self.connack_code: int | None = None
        self.failed_in: Stage | None = None  # the stage in which it failed

    # -- what happened --------------------------------------------------------------------------------------------

    def dialed(self, now: float) -> None:
        self._step(Input.DIALED, now)

    def dial_failed(self, now: float) -> None:
        self._step(Input.DIAL_FAILED, now)

    def signed(self, now: float) -> None:
        self._step(Input.SIGNED, now)

    def sign_failed(self, now: float) -> None:
        self._step(Input.SIGN_FAILED, now)

    def in_flight(self, count: int, now: float) -> None:
        """How many publishes wait for an acknowledgement on the old connection. Report every change that reaches 0
        and every one that leaves it."""
        self._idle = count == 0
        if self._idle and self._stage in (Stage.QUIESCING, Stage.DRAINING):
            self._step(Input.IDLE, now)

    def old_closed(self, now: float) -> None:
        """The old connection has ended, at whoever's wish."""
        self._step(Input.OLD_CLOSED, now)

    def new_closed(self, now: float) -> None:
        self._step(Input.NEW_CLOSED, now)

    def connack(self, code: int, now: float) -> None:
        """The hub answered CONNECT; 0 is yes."""
        self.connack_code = code
        self._step(Input.REFUSED if code else Input.ACCEPTED, now)

    def abandon(self, now: float) -> None:
        """The session is not wanted any more, or must close: stop here."""
        self._step(Input.ABANDON, now)

    # -- what to do -----------------------------------------------------------------------------------------------

    def next_command(self) -> Command | None:
        return self._commands.popleft() if self._commands else None

    def deadline(self) -> float | None:
        """When `handle_deadline` must be called; None only when finished."""
        return self._deadline

    def handle_deadline(self, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self._step(Input.DEADLINE, now)

    @property
    def stage(self) -> Stage:
        return self._stage

    @property
    def finished(self) -> bool:
        return self._stage in FINISHED

    @property
    def connected(self) -> bool:
        """The new connection is accepted and carries the session."""
        return self._stage in (Stage.DONE, Stage.SETTLING)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _step(self, happened: Input, now: float) -> None:
        if self._stage in FINISHED:
            return  # reports that crossed with the end
        before = self._stage
        step = self._table.get((before, happened))
        if step is None:
            raise LocalProtocolError(f"handover: {happened.name} while {before.name}")
        self._stage, commands = step
        self._note(before, happened, commands, now)
        self._commands.extend(commands)
        if self._stage in FINISHED:
            self._deadline = None
        elif self._stage is Stage.POISED:
            self._deadline = self._not_before
        elif (before, self._stage) not in _KEEPS_DEADLINE:
            self._deadline = now + float(getattr(self._timeouts, _WAITS[self._stage]))
        if self._stage is Stage.QUIESCING and self._idle:
            self._step(Input.IDLE, now)
        elif self._stage is Stage.POISED and now >= self._not_before:
            self._step(Input.DEADLINE, now)

    def _note(self, before: Stage, happened: Input, commands: tuple[Command, ...], now: float) -> None:
        if happened is Input.OLD_CLOSED and before in _BEFORE_DISCONNECT:
            self.old_lost = True
        if self._held_at is None and (self.old_lost or Command.HOLD in commands):
            self._held_at = now
        if self._held_at is not None:
            if Command.SEND_DISCONNECT in commands:
                self.drain = now - self._held_at
                self.drain_cut = happened is Input.DEADLINE
            if Command.RESUME in commands:
                self.gap = now - self._held_at
        if Command.ABORT_OLD in commands and happened is Input.DEADLINE:
            self.old_forced = True
        if self._stage in (Stage.FAILED, Stage.DOWN):
            self.failed_in = before
