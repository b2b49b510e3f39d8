"""The event log: counts go on, memory and file are bounded, a line is whole."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

from gatewayd.emulator.event_log import NAMES, EventLog, HubCode, HubEvent, Operation


def add(
    log: EventLog, code: HubCode = HubCode.NONE, identity: str = "a", planned: bool | None = None
) -> HubEvent:
    return log.append(
        Operation.DISCONNECT, code, cause="why", identity=identity, planned=planned, wall=5.0, monotonic=1.0
    )


def test_errors_are_counted_by_code_and_cause_and_planned_ends_are_no_errors() -> None:
    log = EventLog()
    add(log, planned=True)
    add(log, HubCode.CONNECTION_CLOSED, planned=False)
    add(log, HubCode.CONNECTION_CLOSED, planned=False)
    add(log, HubCode.UNAUTHORIZED)
    assert log.errors == {404104: 2, 401003: 1}
    assert log.causes[HubCode.CONNECTION_CLOSED, "why"] == 2
    assert (log.planned, log.unplanned) == (1, 2)


def test_old_events_are_forgotten_and_still_counted() -> None:
    log = EventLog(kept=2)
    for _ in range(5):
        add(log, HubCode.INTERNAL)
    assert [event.sequence for event in log.since()] == [3, 4]
    assert len(log) == 5
    assert log.errors[HubCode.INTERNAL] == 5


def test_a_line_carries_everything_about_its_event() -> None:
    file = io.StringIO()
    log = EventLog()
    log.write_to(file)
    add(log, HubCode.CONNECTION_CLOSED, planned=False)
    line = json.loads(file.getvalue())
    assert line["code"] == 404104
    assert line["name"] == "DeviceConnectionClosedRemotely"
    assert line["operation"] == "deviceDisconnect"
    assert (line["identity"], line["cause"], line["planned"]) == ("a", "why", False)
    assert (line["wall"], line["monotonic"]) == (5.0, 1.0)


def test_a_burst_of_events_is_flushed_once_and_whole() -> None:
    class Counting(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    file, planned = Counting(), list[Callable[[], None]]()
    log = EventLog()
    log.write_to(file, planned.append)
    for _ in range(5):
        add(log)
    assert (len(planned), file.flushed) == (1, 0)
    planned.pop()()
    assert file.flushed == 1
    assert len(file.getvalue().splitlines()) == 5
    add(log)
    assert len(planned) == 1


def test_the_file_ends_at_its_bound_and_says_so() -> None:
    file = io.StringIO()
    log = EventLog(max_file_bytes=400)
    log.write_to(file)
    for _ in range(5):
        add(log)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert lines[-1] == {"truncated": True}
    assert len(file.getvalue()) < 450
    assert len(log) == 5


def test_events_are_found_by_code_and_identity() -> None:
    log = EventLog()
    add(log, HubCode.UNAUTHORIZED, "a")
    add(log, HubCode.UNAUTHORIZED, "b")
    add(log, HubCode.CONNECTION_CLOSED, "b")
    assert [event.sequence for event in log.matching(401003)] == [0, 1]
    assert [event.sequence for event in log.matching(identity="b")] == [1, 2]
    assert [event.sequence for event in log.matching(401003, "b")] == [1]


async def test_one_can_wait_for_an_event_after_a_point() -> None:
    log = EventLog()
    add(log)
    before = len(log)
    add(log, HubCode.INTERNAL)
    found = await log.wait_for(lambda event: event.identity == "a", since=before, within=0.1)
    assert found.code is HubCode.INTERNAL


def test_every_code_has_a_name() -> None:
    assert set(NAMES) == set(HubCode)
