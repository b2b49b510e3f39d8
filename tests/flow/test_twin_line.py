"""The line of one device's twin requests: one is asked at a time, in order, within bounds."""

from __future__ import annotations

from gatewayd.flow.twin_line import Asks, Room, TwinLine, TwinRequest


def request(rid: str, *, size: int = 1, deadline: float = 10.0) -> TwinRequest:
    return TwinRequest(Asks.PATCH, rid, b"x" * size, deadline)


def line_of(*rids: str, room: Room | None = None) -> TwinLine:
    line = TwinLine(room or Room(100))
    for rid in rids:
        assert line.put(request(rid))
    return line


def rid_of(found: TwinRequest | None) -> str | None:
    return found.device_rid if found is not None else None


def test_the_next_is_asked_only_when_the_one_before_is_answered() -> None:
    line = line_of("a", "b")
    assert rid_of(line.ask("1")) == "a"
    assert line.ask("2") is None
    assert rid_of(line.answered("1")) == "a"
    assert rid_of(line.ask("3")) == "b"


def test_an_answer_is_taken_once_and_under_the_newest_id() -> None:
    line = line_of("a")
    line.ask("1")
    line.unask()
    line.ask("2")
    assert line.answered("1") is None
    assert rid_of(line.answered("2")) == "a"
    assert line.answered("2") is None


def test_nothing_is_answered_that_was_not_asked() -> None:
    line = line_of("a")
    assert line.answered("") is None
    assert line.answered("1") is None
    assert len(line) == 1


def test_an_empty_line_asks_nothing() -> None:
    assert line_of().ask("1") is None
    assert line_of().deadline is None


def test_the_time_of_the_one_under_way_ends_and_the_next_can_be_asked() -> None:
    line = line_of("a")
    line.put(request("b", deadline=20.0))
    line.ask("1")
    assert [gone.device_rid for gone in line.expire(10.0)] == ["a"]
    assert line.deadline == 20.0
    assert line.answered("1") is None
    assert rid_of(line.ask("2")) == "b"


def test_the_time_of_one_behind_ends_and_the_one_under_way_stays() -> None:
    line = TwinLine(Room(10))
    line.put(request("a", deadline=20.0))
    line.put(request("b", deadline=10.0))
    line.ask("1")
    assert [gone.device_rid for gone in line.expire(10.0)] == ["b"]
    assert rid_of(line.answered("1")) == "a"


def test_payloads_of_all_lines_share_one_room_and_give_it_back_however_they_leave() -> None:
    room = Room(3)
    first, second = line_of("a", "b", room=room), line_of("c", room=room)
    assert not second.put(request("d"))
    first.ask("1")
    first.answered("1")
    assert second.put(request("d"))
    assert not second.put(request("e"))
    assert len(second.clear()) == 2
    assert len(first.expire(10.0)) == 1
    assert room.take(3)
    assert not room.take(1)


def test_what_waits_is_what_was_not_asked() -> None:
    line = line_of("a", "b")
    line.ask("1")
    assert [waits.device_rid for waits in line.waiting] == ["b"]
    line.unask()
    assert [waits.device_rid for waits in line.waiting] == ["a", "b"]


def test_a_line_knows_what_kind_it_holds() -> None:
    line = line_of("a")
    assert line.holds(Asks.PATCH)
    assert not line.holds(Asks.CHECK)
