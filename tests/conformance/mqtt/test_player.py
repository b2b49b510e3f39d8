"""The player can fail: every broken connection below is caught by the cases, and a wrong case is caught too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gatewayd.protocol.mqtt.client import ClientConnection
from gatewayd.protocol.mqtt.events import ConnackReceived, PublishReceived, SubscribeReceived
from gatewayd.protocol.mqtt.faults import CloseCause, PeerFault
from gatewayd.protocol.mqtt.packet_ids import ReceiptOrder
from gatewayd.protocol.mqtt.packets import (
    Connack,
    Disconnect,
    Publish,
    Subscribe,
    encode,
    encode_puback,
    encode_publish,
)
from gatewayd.protocol.mqtt.server import ServerConnection
from gatewayd.protocol.mqtt.transitions import ServerState
from tests.conformance.mqtt.player import Case, Differs, byte_by_byte, cuts_of, load_cases, play, whole

CASES = load_cases()


class ReceiptsAtOnce(ReceiptOrder):
    """Forgets the order of receipts."""

    def acknowledge(self, packet_id: int) -> bytes:
        super().acknowledge(packet_id)
        return encode_puback(packet_id)


class OutOfOrderServer(ServerConnection):
    def _hold_connect(self, packet):  # type: ignore[no-untyped-def]  # a mutant of a typed method
        self._receipts = ReceiptsAtOnce()
        return super()._hold_connect(packet)


class DoubleReceiptServer(ServerConnection):
    """Acknowledges a repeated message as soon as it comes, and once more when the owner says so."""

    def _take_publish(self, packet: Publish) -> PublishReceived:
        event = super()._take_publish(packet)
        if event.joins:
            self._out.append(encode_puback(packet.packet_id))
        return event


class Qos2Server(ServerConnection):
    def _take_publish(self, packet: Publish) -> PublishReceived:
        return PublishReceived(packet) if packet.qos == 2 else super()._take_publish(packet)


class ImpatientServer(ServerConnection):
    """Counts whole keep-alives, not one and a half."""

    def deadline(self) -> float | None:
        deadline = super().deadline()
        return deadline if deadline is None or self.state is not ServerState.OPEN else deadline - 30.0


class PlannedByAnyEndServer(ServerConnection):
    def _end_stream(self) -> None:
        self._close(CloseCause.DISCONNECTED, "", planned=True)


class WillSurvivesDisconnectServer(ServerConnection):
    def _end_as_planned(self, _packet: Disconnect) -> None:
        self._close(CloseCause.DISCONNECTED, "", planned=True)


class ForgetfulReaderServer(ServerConnection):
    """Right for whole packets; loses what it had when a packet comes in pieces."""

    def receive(self, data: bytes | bytearray | memoryview, now: float) -> None:
        if self._reader.buffered == 1:
            self._reader.discard()
        super().receive(data, now)


class SilentFaultServer(ServerConnection):
    def _fail(self, fault: PeerFault) -> None:
        self.close()


class GenerousServer(ServerConnection):
    """Grants QoS 2 as if it could carry it."""

    def _take_subscribe(self, packet: Subscribe) -> SubscribeReceived:
        granted = tuple(min(qos, 1) for _, qos in packet.filters)
        return super()._take_subscribe(
            replace(packet, filters=tuple(zip((text for text, _ in packet.filters), granted, strict=True)))
        )


class NoDupClient(ClientConnection):
    """Resends without DUP."""

    def _carry_session(self) -> None:
        self._carrier, unacknowledged = self._session.move()
        self._out += (encode_publish(replace(publish, dup=False)) for publish in unacknowledged)


class NoResendClient(ClientConnection):
    def _carry_session(self) -> None:
        self._carrier, _ = self._session.move()


class TrustingClient(ClientConnection):
    """Believes any CONNACK."""

    def _take_connack(self, packet: Connack) -> ConnackReceived:
        self._clean_session = False
        return super()._take_connack(packet)


class LateClient(ClientConnection):
    """Never pings."""

    def _ping_at(self) -> float | None:
        return None


class WordyClient(ClientConnection):
    """Says DISCONNECT twice."""

    def disconnect(self, now: float) -> None:
        super().disconnect(now)
        self._out.append(encode(Disconnect()))


def failures(run: Callable[[Case], None], role: str) -> list[str]:
    """The names of the cases that do not come true."""
    failed = []
    for case in CASES:
        if case.role == role:
            try:
                run(case)
            except Differs:
                failed.append(case.name)
    return failed


def bind(server: type[ServerConnection]) -> type[ServerConnection]:
    """A mutant whose table leads to its own methods."""
    rows = server.bind()

    class Bound(server):  # type: ignore[valid-type,misc]  # a class made in a test
        def _enter(self, state: ServerState) -> None:
            super()._enter(state)
            self._row = rows[state]

    return Bound


@pytest.mark.parametrize(
    "mutant",
    [
        OutOfOrderServer,
        DoubleReceiptServer,
        Qos2Server,
        ImpatientServer,
        PlannedByAnyEndServer,
        WillSurvivesDisconnectServer,
        SilentFaultServer,
        GenerousServer,
    ],
)
def test_the_cases_catch_a_broken_server(mutant: type[ServerConnection]) -> None:
    assert failures(lambda case: play(case, whole, make_server=bind(mutant)), "server")


@pytest.mark.parametrize("mutant", [NoDupClient, NoResendClient, TrustingClient, LateClient, WordyClient])
def test_the_cases_catch_a_broken_client(mutant: type[ClientConnection]) -> None:
    rows = mutant.bind()

    class Bound(mutant):  # type: ignore[valid-type,misc]  # a class made in a test
        def _enter(self, state):  # type: ignore[no-untyped-def]  # a mutant of a typed method
            super()._enter(state)
            self._row = rows[state]

    assert failures(lambda case: play(case, whole, make_client=Bound), "client")


def test_a_reader_that_is_right_for_whole_packets_only_is_caught_by_the_cuts() -> None:
    mutant = bind(ForgetfulReaderServer)

    def in_pieces(case: Case) -> None:
        for _, cut in cuts_of(case):
            play(case, cut, make_server=mutant)

    assert failures(lambda case: play(case, whole, make_server=mutant), "server") == []
    assert failures(lambda case: play(case, byte_by_byte, make_server=mutant), "server")
    assert failures(in_pieces, "server")


@pytest.mark.parametrize(
    "script",
    [
        ("peer: c0 00",),
        ("peer: c0 00", "sent: d0 01"),
        ("peer: c0 00", "sent: d0 00", "event: closed EOF"),
        ("eof",),
        ("eof", "event: closed EOF planned"),
        ("refused: publish 0 a x",),
        ("parked",),
    ],
)
def test_a_case_that_does_not_come_true_is_reported(script: tuple[str, ...]) -> None:
    case = next(case for case in CASES if case.role == "server" and case.start == "open")
    with pytest.raises(Differs):
        play(replace(case, script=script))


def test_the_real_connections_pass_where_the_mutants_fail() -> None:
    assert failures(play, "server") == failures(play, "client") == []
