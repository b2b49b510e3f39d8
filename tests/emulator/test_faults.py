"""Fault switches: for whom, how often, how long; each ends by itself."""

from __future__ import annotations

import pytest

from gatewayd.emulator import faults
from gatewayd.emulator.faults import LONGEST_SECONDS, FaultBoard, FaultKind


def test_a_fault_for_one_identity_leaves_the_others_alone() -> None:
    board = FaultBoard()
    board.arm(FaultKind.CONNACK_3, now=0.0, identity="a")
    assert board.take(FaultKind.CONNACK_3, "b", 1.0) is None
    assert board.take(FaultKind.CONNACK_5, "a", 1.0) is None
    assert board.take(FaultKind.CONNACK_3, "a", 1.0) is not None


def test_a_fault_for_all_meets_everyone() -> None:
    board = FaultBoard()
    board.arm(FaultKind.PUBACK_DELAY, now=0.0, value=0.5)
    fault = board.take(FaultKind.PUBACK_DELAY, "anyone", 1.0)
    assert fault is not None
    assert fault.value == 0.5


def test_a_counted_fault_is_used_up_and_asking_does_not_use_it() -> None:
    board = FaultBoard()
    board.arm(FaultKind.CONNACK_3, now=0.0, count=2)
    assert board.find(FaultKind.CONNACK_3, "a", 1.0) is not None
    assert [board.take(FaultKind.CONNACK_3, "a", 1.0) is not None for _ in range(3)] == [True, True, False]


def test_a_fault_ends_with_its_time_or_after_an_hour() -> None:
    board = FaultBoard()
    board.arm(FaultKind.CONNACK_3, now=0.0, seconds=5.0)
    board.arm(FaultKind.CONNACK_5, now=0.0)
    assert len(board.armed(4.9)) == 2
    assert [fault.kind for fault in board.armed(5.0)] == [FaultKind.CONNACK_5]
    assert board.armed(LONGEST_SECONDS) == []


def test_faults_can_be_taken_back() -> None:
    board = FaultBoard()
    fault = board.arm(FaultKind.CONNACK_3, now=0.0)
    assert board.disarm(fault.number)
    assert not board.disarm(fault.number)
    board.arm(FaultKind.CONNACK_3, now=0.0)
    board.clear()
    assert board.armed(0.0) == []


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": 0.0}, {"seconds": LONGEST_SECONDS + 1}, {"count": 0}, {"value": -1.0}, {"value": 1e6}],
)
def test_unbounded_faults_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="="):
        FaultBoard().arm(FaultKind.CONNACK_3, now=0.0, **wrong)  # type: ignore[arg-type]  # that is the point


def test_a_fault_met_before_anybody_has_a_name_is_for_everyone() -> None:
    with pytest.raises(ValueError, match="everyone"):
        FaultBoard().arm(FaultKind.REFUSE_ALL, now=0.0, identity="a")


def test_the_number_of_armed_faults_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MAX_ARMED", 1)
    board = FaultBoard()
    board.arm(FaultKind.CONNACK_3, now=0.0, seconds=1.0)
    with pytest.raises(ValueError, match="bound"):
        board.arm(FaultKind.CONNACK_3, now=0.5)
    board.arm(FaultKind.CONNACK_3, now=1.0)


@pytest.mark.parametrize("value", [0.0, 399.0, 600.0, 429.5])
def test_a_twin_status_is_an_error_s(value: float) -> None:
    with pytest.raises(ValueError, match="twin status"):
        FaultBoard().arm(FaultKind.TWIN_STATUS, now=0.0, value=value)
