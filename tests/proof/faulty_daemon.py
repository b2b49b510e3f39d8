"""The daemon with a fault in its custody, to show that the proofs can see one. The product has no such switch.

    python -m tests.proof.faulty_daemon FAULT run --config FILE

`receipt_at_once`: a message is receipted as it comes, whatever becomes of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from gatewayd.cli import main
from gatewayd.downstream.device_session import DeviceSession
from gatewayd.flow.intake import Intake
from gatewayd.protocol.mqtt.packets import Publish


def receipt_at_once() -> None:
    """Devices are told at once, and not again when the time has come."""
    take, receipt = Intake.telemetry, DeviceSession.receipt

    def take_and_receipt(intake: Intake, session: DeviceSession, packet_id: int, publish: Publish) -> None:
        take(intake, session, packet_id, publish)
        if publish.qos:
            receipt(session, packet_id)

    _replace(Intake, "telemetry", take_and_receipt)
    _replace(DeviceSession, "receipt", lambda _session, _packet_id: None)


def _replace(owner: type, name: str, fault: Callable[..., object]) -> None:
    assert hasattr(owner, name), f"{owner.__name__}.{name} is not there any more: the fault would be none"
    setattr(owner, name, fault)


FAULTS: dict[str, Callable[[], None]] = {fault.__name__: fault for fault in (receipt_at_once,)}


def program(fault: str) -> tuple[str, ...]:
    """What Python is told to run for a daemon with `fault`."""
    assert fault in FAULTS
    return ("-m", "tests.proof.faulty_daemon", fault)


if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    sys.exit(main())
