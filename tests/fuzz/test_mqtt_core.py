"""A bounded, repeatable part of the MQTT fuzzing, and proof that it finds what it is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gatewayd.protocol.mqtt.events import Closed, ServerEvent
from gatewayd.protocol.mqtt.packets import Pingreq
from gatewayd.protocol.mqtt.server import ServerConnection
from tests.fuzz import mqtt_core
from tests.fuzz.mqtt_core import SERVER_SAYS, Finding, Start, corpus, main, open_server, run

RUNS = 4_000


def test_nothing_is_found_in_the_core() -> None:
    seeds = corpus()
    for number in range(RUNS):
        run(number, 20_260, seeds)


def test_the_corpus_comes_from_the_conformance_cases() -> None:
    assert len(corpus()) > 150
    assert all(corpus())


class RaisesOnThirteen(ServerConnection):
    def receive(self, data: bytes | bytearray | memoryview, now: float) -> None:
        if len(data) == 13:
            raise IndexError("thirteen")
        super().receive(data, now)


class EndsTwice(ServerConnection):
    def next_event(self) -> ServerEvent | None:
        event = super().next_event()
        if isinstance(event, Closed) and "inside a packet" in event.detail:
            self._end = event
        return event


class LosesByteOfCutHeader(ServerConnection):
    def receive(self, data: bytes | bytearray | memoryview, now: float) -> None:
        if self._reader.buffered == 1:
            self._reader.discard()
        super().receive(data, now)


class SendsHalfAPacket(ServerConnection):
    def bytes_to_send(self) -> bytes:
        return super().bytes_to_send().removesuffix(b"\x00")


class AsksBack(ServerConnection):
    def acknowledge(self, packet_id: int) -> None:
        super().acknowledge(packet_id)
        self._out.append(b"\xc0\x00")


@pytest.mark.parametrize(
    "mutant", [RaisesOnThirteen, EndsTwice, LosesByteOfCutHeader, SendsHalfAPacket, AsksBack]
)
def test_a_broken_core_is_found(mutant: type[ServerConnection]) -> None:
    start = Start("mutant", lambda: mutant(mqtt_core.LIMITS, 0.0), SERVER_SAYS)
    seeds = corpus()
    with pytest.raises(Finding, match="seed 1, run"):
        search(lambda number: run(number, 1, seeds, (start,)))


def search(one: Callable[[int], None]) -> None:
    for number in range(RUNS):
        one(number)


def test_a_run_is_made_by_its_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[bytes] = []
    monkeypatch.setattr(mqtt_core, "check", lambda _start, data, _cuts: fed.append(data))
    for _ in range(2):
        for number in range(20):
            run(number, 5, corpus())
    assert fed[:20] == fed[20:]
    assert len(set(fed)) > 15


def test_the_program_reports_what_it_finds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--seed", "3", "--runs", "50"]) == 0
    assert "50 runs" in capsys.readouterr().out

    class Broken(ServerConnection):
        def _answer_ping(self, _packet: Pingreq) -> None:
            raise ZeroDivisionError

    rows = Broken.bind()

    def broken_server() -> ServerConnection:
        server = open_server()
        server._row = rows[server.state]
        return server

    monkeypatch.setattr(mqtt_core, "STARTS", (Start("broken", broken_server, SERVER_SAYS),))
    monkeypatch.setattr(run, "__defaults__", (mqtt_core.STARTS,))
    assert main(["--seed", "3", "--seconds", "60", "--runs", "4000"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out
