"""The daemon with a fault in its custody, to show that the proofs can see one. The product has no such switch.

    python -m tests.proof.faulty_daemon CHANGE run --config FILE

Faults:

`receipt_at_once`: a message is receipted as it comes, whatever becomes of it.
`commit_later`: the outbox says that messages are on disk, and commits them a while later.

And one that is none: `check_nothing`: a small outbox is treated as a large one, which is not read whole at a start.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from gatewayd.cli import main
from gatewayd.downstream.device_session import DeviceSession
from gatewayd.flow.intake import Intake
from gatewayd.protocol.mqtt.packets import Publish
from gatewayd.store import keeper

COMMIT_SECONDS = 0.3


def receipt_at_once() -> None:
    """Devices are told at once, and not again when the time has come."""
    take, receipt = Intake.telemetry, DeviceSession.receipt

    def take_and_receipt(intake: Intake, session: DeviceSession, packet_id: int, publish: Publish) -> None:
        take(intake, session, packet_id, publish)
        if publish.qos:
            receipt(session, packet_id)

    _replace(Intake, "telemetry", take_and_receipt)
    _replace(DeviceSession, "receipt", lambda _session, _packet_id: None)


class LateConnection:
    """A connection whose transactions last: COMMIT is done at the first one after a while, and so is BEGIN."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._began = 0.0

    def execute(self, statement: str, *arguments: Any) -> Any:
        inside = self._database.in_transaction
        if statement.startswith("BEGIN"):
            if inside:
                return None
            self._began = monotonic()
        elif statement == "COMMIT" and monotonic() < self._began + COMMIT_SECONDS:
            return None
        elif "wal_checkpoint" in statement and inside:
            self._database.commit()
        return self._database.execute(statement, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


def commit_later() -> None:
    """The store sees what it wrote, others would not, and the disk has it later."""
    really_open: Callable[[Path], sqlite3.Connection] = vars(keeper)["open_database"]
    _replace(keeper, "open_database", lambda path: LateConnection(really_open(path)))


def check_nothing() -> None:
    """Damage is found when a message is read."""
    _replace(keeper, "CHECKED_BYTES", 0)


def _replace(owner: Any, name: str, fault: object) -> None:
    assert hasattr(owner, name), f"{owner.__name__}.{name} is not there any more: the fault would be none"
    setattr(owner, name, fault)


FAULTS: dict[str, Callable[[], None]] = {fault.__name__: fault for fault in (receipt_at_once, commit_later)}


CHANGES = {**FAULTS, check_nothing.__name__: check_nothing}


def program(change: str) -> tuple[str, ...]:
    """What Python is told to run for a daemon with this change."""
    assert change in CHANGES
    return ("-m", "tests.proof.faulty_daemon", change)


if __name__ == "__main__":
    CHANGES[sys.argv.pop(1)]()
    sys.exit(main())
