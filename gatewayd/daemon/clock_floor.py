"""The last good time, kept on disk: after a boot without a battery-backed clock nothing is signed with an earlier one.

The file's own text is the floor: whole seconds since 1970, in digits. It is written beside and renamed, so that a power
cut leaves the old or the new one. A file that cannot be read or written is said in the log and costs only the memory of
earlier runs: the date of the release stays the floor.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from gatewayd.clock import RELEASE_EPOCH_SECONDS

_LOG: Final = logging.getLogger(__name__)

# Often enough that a clock set back by hours is seen, seldom enough for flash.
SAVE_SECONDS: Final = 3600.0
# What is kept may not be so far ahead that a clock once set wrongly blocks signing for good.
MAX_AHEAD_SECONDS: Final = 10 * 366 * 86_400
# Seconds since 1970 have 10 until the year 2286; Python reads no number of more than 4,300.
MAX_DIGITS: Final = 20


def read_floor(path: Path) -> float:
    """The floor in force: the later of the release's date and what an earlier run has seen."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return float(RELEASE_EPOCH_SECONDS)
    except (OSError, UnicodeDecodeError) as error:
        _LOG.warning("the last good time cannot be read from %s: %s", path, error)
        return float(RELEASE_EPOCH_SECONDS)
    if not text.isdigit() or len(text) > MAX_DIGITS or int(text) > RELEASE_EPOCH_SECONDS + MAX_AHEAD_SECONDS:
        _LOG.warning("%s holds no time: expected whole seconds since 1970", path)
        return float(RELEASE_EPOCH_SECONDS)
    return max(float(RELEASE_EPOCH_SECONDS), float(text))


def save_floor(path: Path, wall: float) -> bool:
    """Keep `wall` as a time that certainly was; False when it could not be kept."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_text(f"{int(wall)}\n", encoding="ascii")
        os.replace(beside, path)  # noqa: PTH105 - the one call that replaces atomically, named as rename(2) users know it
    except OSError as error:
        _LOG.warning("the last good time cannot be kept in %s: %s", path, error)
        return False
    return True
