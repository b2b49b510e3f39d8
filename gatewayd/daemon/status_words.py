"""How the status page speaks: what each state means, and what to do where something is not well. Pure.

Refusals of the hub have their words and remedies in `protocol.iothub.refusals`; here is the rest. A test looks that no
state and no health is without a word.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Tone(enum.Enum):
    """How a thing looks: the page has a colour and a sign for each, so that none is told by colour alone."""

    GOOD = "good"
    BUSY = "busy"
    WARN = "warn"
    BAD = "bad"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class StateWord:
    """A state of a hub session in a person's words."""

    word: str
    tone: Tone
    means: str


STATES: Final[dict[str, StateWord]] = {
    "up": StateWord("at the hub", Tone.GOOD, "connected; the next renewal is planned"),
    "renewal_queued": StateWord(
        "renewal due", Tone.GOOD, "connected; the renewal waits for the connect budget"
    ),
    "renewing": StateWord("renewing", Tone.GOOD, "connected; a new token is being presented"),
    "renewal_backoff": StateWord(
        "renewal failed", Tone.WARN, "connected with the old token; the renewal is tried again"
    ),
    "queued": StateWord("waits its turn", Tone.BUSY, "waits for the connect budget"),
    "opening": StateWord("connecting", Tone.BUSY, "an attempt at the hub is running"),
    "closing": StateWord("closing", Tone.BUSY, "being closed in order"),
    "backoff": StateWord("retries", Tone.WARN, "not at the hub; the next attempt waits for a pause to end"),
    "parked": StateWord("parked", Tone.BAD, "the hub refused it for good; it is probed slowly"),
    "stopped": StateWord("stopped", Tone.BAD, "the hub refused it for good; nothing retries by itself"),
    "absent": StateWord(
        "not needed", Tone.QUIET, "its device is not connected here, so nothing is kept open at the hub"
    ),
}

# By the outbox' health. Empty: nothing to do.
HEALTH: Final[dict[str, str]] = {
    "ok": "",
    "at_bound": "The outbox is full, and its written policy is in force. Bring the hub back, or raise outbox.max_bytes "
    "where the disk has room. gatewayd outbox list shows whose messages these are.",
    "disk_full": "The disk is full: devices keep their messages meanwhile. Free some space; gatewayd then goes on.",
    "failing": "The disk fails: look at dmesg, replace it. Devices keep their messages meanwhile.",
    "closed": "The outbox is closed. It is so for a moment while gatewayd stops; else the log says why.",
}
UNKNOWN_HEALTH: Final = "The log says what is wrong with the outbox."

STARTING: Final = "Wait. If it lasts, the log says what it waits for."
STOPPING: Final = "Nothing: shutdown.deadline bounds it."
CLOCK_WRONG: Final = (
    "timedatectl shows whether the time is right and NTP reaches its server. Set the time: signing begins within a "
    "second. When the time is right, an earlier run saw one that ran ahead: see 'Clock not trusted' in the operations "
    "page."
)
CLOCK_UNSYNCHRONIZED: Final = (
    "The kernel knows no time server. That is no fault by itself; more than 5 minutes off, and the hub refuses every "
    "token."
)
NOBODY_AT_HUB: Final = (
    "The errors say why. Look in this order: name lookup and port to the hub, TLS, throttling, hub.hostname "
    "and clock."
)
RELOAD_REFUSED: Final = (
    "The old configuration is in force, all of it. gatewayd check shows each mistake with its line; a key that needs a "
    "restart is named here. Then reload again."
)
EXPIRED_IN_USE: Final = "This must not happen and is a fault of gatewayd: keep the log and report it."
QUARANTINED: Final = (
    "The log says how much of it could be read. Look at dmesg for why, keep the file if its messages matter, then move "
    "it away: this goes when it is gone."
)


def health_remedy(health: str) -> str:
    """What to do about the outbox."""
    return HEALTH.get(health, UNKNOWN_HEALTH)
