"""The messages of one device that the device still owns: offered, and not receipted. Pure.

Promises (*custody*, *order*, *bounded*):
- a receipt is due only for a message that the hub acknowledged or that the outbox stored;
- receipts come in the order in which the messages came;
- messages are handed to the hub in that order too, and to the outbox: always the oldest first, none left between;
- a message that is on its way to the outbox is not handed to the hub, and what came behind it waits for it;
- a resend (DUP) of a message still held joins it and makes no second message;
- no more than `max_messages` and `max_bytes` are held: then `is_full` is True and the device is not read.

A device may leave with messages unreceipted. They are held as *unclaimed*: they still go to the hub, and a resend
after the device's return claims them, which gets it its receipt without a double at the hub. Unclaimed messages that
the hub has acknowledged or the outbox has stored are the first to be forgotten when room is needed: forgetting one
costs a double, never a loss.

Messages without a receipt pass through the same ledger, so that they keep their place among the others: QoS 0, which is
gone once it is handed to the hub session, and what is said for a device that has left (its will).
"""

from __future__ import annotations

import enum
from typing import Final

from gatewayd.message import Telemetry


class Offer(enum.Enum):
    """What became of a PUBLISH that a device offered."""

    NEW = "new"
    JOINED = "joined"  # a resend of a message that is held already


class Stage(enum.Enum):
    """Where a held message is."""

    WAITING = "waiting"  # not handed to the hub session yet
    STORING = "storing"  # not handed to it, and on its way to the outbox
    SENT = "sent"  # with the hub session, under `handle`; perhaps on its way to the outbox too
    AT_HUB = "at_hub"  # the hub acknowledged it
    STORED = "stored"  # on disk, which is as good to the device


# A look into an Enum class costs as much as three calls on Python 3.11, and these are looked at for every message.
_WAITING, _STORING, _SENT, _AT_HUB, _STORED = Stage
_NEW, _JOINED = Offer

_IN_CUSTODY: Final = (_AT_HUB, _STORED)
# The packet id of a message that no device waits for.
NO_RECEIPT: Final = 0


class Held:
    """One message held for its device."""

    __slots__ = ("claimed", "handle", "message", "packet_id", "received_at", "stage", "storing")

    def __init__(self, packet_id: int, message: Telemetry, received_at: float) -> None:
        self.packet_id = packet_id
        self.message = message
        self.received_at = received_at
        self.claimed = True
        self.stage = _WAITING
        self.handle = 0
        self.storing = False  # the outbox has not answered yet

    @property
    def is_stray(self) -> bool:
        """In custody, and kept only for a device that may come back and resend it."""
        return not self.claimed and self.stage in _IN_CUSTODY


class InFlight:
    """The ledger of one device. Most devices hold nothing most of the time, so the empty ledger is small."""

    __slots__ = ("_bytes", "_held", "_max_bytes", "_max_messages", "_unclaimed")

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._held: list[Held] = []
        self._bytes = 0
        self._unclaimed = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """Topic and payload bytes of all messages held."""
        return self._bytes

    @property
    def is_full(self) -> bool:
        """True when the device must not be read: the next message could not be held within the bounds.

        What can be forgotten for it takes no room: else a device that came back would not be read, and could never
        claim it.
        """
        if len(self._held) < self._max_messages and self._bytes < self._max_bytes:
            return False
        strays = [held for held in self._held if held.is_stray] if self._unclaimed else []
        size = self._bytes - sum(held.message.size for held in strays)
        return len(self._held) - len(strays) >= self._max_messages or size >= self._max_bytes

    def retune(self, *, max_messages: int, max_bytes: int) -> None:
        """Use other bounds from now on."""
        self._max_messages = max_messages
        self._max_bytes = max_bytes

    def offer(self, packet_id: int, message: Telemetry, *, dup: bool, now: float) -> Offer:
        """A PUBLISH with QoS 1 came from the device.

        The caller stops reading while `is_full`. What was already read when the bound was reached is still taken:
        one more read's worth of messages at the most, because the transport hands over at most one buffer.
        """
        if dup and (held := self._resent(packet_id, message)) is not None:
            if not held.claimed:
                held.claimed = True
                self._unclaimed -= 1
            return _JOINED
        if self._at_bound:
            self.forget_strays()
        self._held.append(Held(packet_id, message, now))
        self._bytes += message.size
        return _NEW

    def hold_qos0(self, message: Telemetry, *, now: float) -> bool:
        """A PUBLISH with QoS 0 has to wait its turn; False when there is no room for it."""
        if self._at_bound:
            self.forget_strays()
        if self._at_bound:
            return False
        return self.entrust(message, now=now)

    def entrust(self, message: Telemetry, *, now: float) -> bool:
        """A message that is said for the device, which nobody will send again and nobody waits for.

        It may pass the bounds. False when it has QoS 0, or the one before it was said for the device too.
        """
        if self._at_bound and self._held:
            last = self._held[-1]
            if not message.qos or (last.message.qos and last.packet_id == NO_RECEIPT):
                return False
        held = Held(NO_RECEIPT, message, now)
        held.claimed = False
        self._unclaimed += 1
        self._held.append(held)
        self._bytes += message.size
        return True

    def next_to_send(self) -> Held | None:
        """The oldest message not yet handed to the hub session; None while it is on its way to the outbox."""
        for held in self._held:
            if held.stage is _WAITING:
                return held
            if held.stage is _STORING:
                return None
        return None

    def sent(self, held: Held, handle: int) -> None:
        """`held` went to the hub session, which will name it by `handle` (a QoS 0 message is done then)."""
        if held.message.qos == 0:
            self._drop(self._held.index(held))
            return
        held.stage = _SENT
        held.handle = handle

    def acknowledged(self, handle: int) -> None:
        """The hub acknowledged what it was sent under `handle`; an unknown handle is nothing of ours."""
        for held in self._held:
            if held.stage is _SENT and held.handle == handle:
                self._into_custody(held, _AT_HUB)
                return

    def receipts(self) -> list[Held]:
        """The messages whose receipts are due now, in order; each is given once."""
        due: list[Held] = []
        at = 0
        while at < len(self._held):
            held = self._held[at]
            if not held.claimed:
                at += 1
            elif held.stage in _IN_CUSTODY:
                self._drop(at)
                due.append(held)
            else:
                break
        return due

    def unsend(self) -> None:
        """The hub session is gone with its memory of what it sent: all that it held waits again."""
        for held in self._held:
            if held.stage is _SENT:
                held.stage = _STORING if held.storing else _WAITING

    # The outbox

    def waits_since(self) -> float | None:
        """When the oldest message came that is neither in custody nor on its way to the outbox."""
        for held in self._held:
            if held.stage not in _IN_CUSTODY and not held.storing:
                return held.received_at
        return None

    def to_store(self, *, qos0: bool, max_messages: int, max_bytes: int) -> list[Held]:
        """What is not in custody, oldest first, one at least: it is on its way to the outbox from now on.

        Nothing while something is on its way already: the outbox may refuse that and take what came after it. Without
        `qos0` a message with QoS 0 that still waits stays in memory, behind what is stored.
        """
        batch: list[Held] = []
        size = 0
        for held in self._held:
            if held.stage in _IN_CUSTODY:
                continue
            if held.storing:
                return []
            if qos0 or held.message.qos:
                size += held.message.size
                if batch and (len(batch) >= max_messages or size > max_bytes):
                    break
                batch.append(held)
        for held in batch:
            held.storing = True
            if held.stage is _WAITING:
                held.stage = _STORING
        return batch

    def stored(self, held: Held) -> Stage:
        """The outbox has `held`; what it was until now. SENT: its `handle` names it at the hub session still."""
        was = held.stage
        held.storing = False
        if was is not _AT_HUB:
            self._into_custody(held, _STORED)
        return was

    def not_stored(self, held: Held) -> None:
        """The outbox would not take `held`."""
        held.storing = False
        if held.stage is _STORING:
            held.stage = _WAITING

    def device_left(self, *, comes_back: bool) -> None:
        """The device is gone. `comes_back`: it kept its session (CleanSession 0) and will resend what is unreceipted.

        A device that will not come back can claim nothing, so what the hub already has is forgotten.
        """
        for held in self._held:
            held.claimed = False
        self._unclaimed = len(self._held)
        if not comes_back:
            self.forget_strays()

    def forget_strays(self) -> None:
        """Forget what the hub has and nobody has claimed: room is worth more than the double a resend then makes."""
        if not self._unclaimed:
            return
        for at in range(len(self._held) - 1, -1, -1):
            if self._held[at].is_stray:
                self._drop(at)

    @property
    def is_settled(self) -> bool:
        """True when nothing held still has to come into custody."""
        return all(held.stage in _IN_CUSTODY for held in self._held)

    def _resent(self, packet_id: int, message: Telemetry) -> Held | None:
        for held in self._held:
            if held.packet_id == packet_id and held.message == message:
                return held
        return None

    @property
    def _at_bound(self) -> bool:
        return len(self._held) >= self._max_messages or self._bytes >= self._max_bytes

    def _into_custody(self, held: Held, stage: Stage) -> None:
        held.stage = stage
        if held.packet_id == NO_RECEIPT:
            self._drop(self._held.index(held))

    def _drop(self, at: int) -> None:
        held = self._held.pop(at)
        self._bytes -= held.message.size
        if not held.claimed:
            self._unclaimed -= 1
