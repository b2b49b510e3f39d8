"""Plays a conformance case against a connection of ours and says where it differs.

A case is a list of lines. Three kinds act:

    peer: BYTES          bytes arrive (the language of tests/support/mqtt_bytes.py)
    eof                  the stream ends
    wait: SECONDS        time passes; deadlines are handled when they are due
    we: VERB ...         the owner calls a verb: accept, refuse 5, acknowledge 7, publish 1 a/b 'x', ...
    refused: VERB ...    the owner calls a verb, and it must raise LocalProtocolError
    bounded: VERB ...    the same, and it must raise Bounded

and three say what must have come of it, all of it, before the next line acts:

    event: TEXT          the next event, as `event_text` writes it
    sent: BYTES          all bytes that went out
    parked / unparked    what is_parked says

`cut` decides how the bytes of a `peer` line arrive: whole, or in pieces. Events and bytes must not depend on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gatewayd.errors import Bounded, LocalProtocolError
from gatewayd.protocol.mqtt.client import ClientConnection, ClientSession
from gatewayd.protocol.mqtt.events import (
    ClientEvent,
    Closed,
    ConnackReceived,
    ConnectReceived,
    PublishAcknowledged,
    PublishReceived,
    ServerEvent,
    SubscribeAcknowledged,
    SubscribeReceived,
    UnsubscribeAcknowledged,
    UnsubscribeReceived,
)
from gatewayd.protocol.mqtt.faults import ConnackCode
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.protocol.mqtt.packets import Connect, Will
from gatewayd.protocol.mqtt.server import ServerConnection
from tests.support import mqtt_bytes

CASES = Path(__file__).parent / "cases"
_MAX_DEADLINES = 1_000

Cut = Callable[[bytes], list[bytes]]
MakeServer = Callable[[Limits, float], ServerConnection]
MakeClient = Callable[[ClientSession, Limits], ClientConnection]


class Differs(AssertionError):
    """The connection did not do what the case says."""


@dataclass(frozen=True, slots=True)
class Case:
    """One rule of the standard, or of IoT Hub, as a script."""

    file: str
    name: str
    clause: str
    role: str
    start: str
    limits: Limits
    script: tuple[str, ...]

    @property
    def peer_bytes(self) -> tuple[bytes, ...]:
        """What arrives, one item per line."""
        return tuple(
            mqtt_bytes.mqtt_bytes(line.removeprefix("peer:"))
            for line in self.script
            if line.startswith("peer:")
        )


def load_cases() -> list[Case]:
    """Every case of every file."""
    return [case for path in sorted(CASES.glob("*.json")) for case in _cases_of(path)]


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cuts_of(case: Case) -> Iterator[tuple[str, Cut]]:
    """Whole, byte by byte, and every line of the peer's in two at every point."""
    yield "whole", whole
    yield "byte by byte", byte_by_byte
    longest = max((len(data) for data in case.peer_bytes), default=0)
    for at in range(1, longest):
        yield f"cut at {at}", _cut_at(at)


def _cut_at(at: int) -> Cut:
    return lambda data: [piece for piece in (data[:at], data[at:]) if piece]


def play(
    case: Case,
    cut: Cut = whole,
    *,
    make_server: MakeServer = ServerConnection,
    make_client: MakeClient = ClientConnection,
) -> None:
    """Raises Differs at the first line that does not come true."""
    table: _Table
    if case.role == "server":
        table = _ServerTable(case.limits, cut, make_server)
    else:
        table = _ClientTable(case.limits, cut, make_client)
    for line in (*table.openings[case.start], *case.script):
        try:
            table.do(line)
        except Differs as difference:
            raise Differs(f"{case.file}: {case.name} [{case.clause}]: at {line!r}: {difference}") from None
    try:
        table.settle_accounts()
    except Differs as difference:
        raise Differs(f"{case.file}: {case.name} [{case.clause}]: at the end: {difference}") from None


def event_text(event: ServerEvent | ClientEvent) -> str:
    """An event as the cases write it."""
    match event:
        case ConnectReceived(connect):
            words = [f"connect {connect.client_id!r} keep_alive={connect.keep_alive}"]
            words += ["clean"] * connect.clean_session
            words += [f"user={connect.username!r}"] * (connect.username is not None)
            words += [f"password={connect.password!r}"] * (connect.password is not None)
            words += _will_words(connect.will)
            return " ".join(words)
        case PublishReceived(publish, joins):
            words = [f"publish {publish.topic!r} {_payload_text(publish.payload)} qos={publish.qos}"]
            words += [f"id={publish.packet_id}"] * (publish.qos > 0)
            words += ["dup"] * publish.dup + ["retain"] * publish.retain + ["joins"] * joins
            return " ".join(words)
        case PublishAcknowledged(packet_id):
            return f"acknowledged {packet_id}"
        case SubscribeReceived(subscribe):
            filters = " ".join(f"{text!r}={qos}" for text, qos in subscribe.filters)
            return f"subscribe {subscribe.packet_id} {filters}"
        case UnsubscribeReceived(unsubscribe):
            return f"unsubscribe {unsubscribe.packet_id} " + " ".join(map(repr, unsubscribe.filters))
        case ConnackReceived(code, session_present):
            return f"connack {code:d}" + " present" * session_present
        case SubscribeAcknowledged(packet_id, codes):
            return f"suback {packet_id} " + " ".join(map(str, codes))
        case UnsubscribeAcknowledged(packet_id):
            return f"unsuback {packet_id}"
        case Closed():
            words = [f"closed {event.cause.name}"]
            words += ["planned"] * event.planned
            words += _will_words(event.will)
            return " ".join(words)


def _will_words(will: Will | None) -> list[str]:
    if will is None:
        return []
    return [f"will={will.topic!r},{_payload_text(will.payload)},{will.qos}" + ",retain" * will.retain]


def _payload_text(payload: bytes) -> str:
    if len(payload) > 100:
        return f"({len(payload)} bytes)"
    return repr(payload)[1:]


def _cases_of(path: Path) -> Iterator[Case]:
    document = json.loads(path.read_text())
    for entry in document["cases"]:
        yield Case(
            file=path.name,
            name=entry["name"],
            clause=entry["clause"],
            role=document["role"],
            start=entry.get("start", document.get("start", "fresh")),
            limits=Limits(**entry.get("limits", {})),
            script=tuple(entry["script"]),
        )


class _Table:
    """One connection on the table, and what it has said that no line has asked for yet."""

    openings: Mapping[str, tuple[str, ...]]

    def __init__(self, connection: ServerConnection | ClientConnection, cut: Cut) -> None:
        self.now = 0.0
        self._connection = connection
        self._cut = cut
        self._events: list[str] = []
        self._sent = b""

    def do(self, line: str) -> None:
        kind, _, rest = line.partition(":")
        rest = rest.strip()
        match kind:
            case "event":
                self._expect_event(rest)
            case "sent":
                self._expect_sent(mqtt_bytes.mqtt_bytes(rest))
            case "parked" | "unparked":
                if self._connection.is_parked is not (kind == "parked"):
                    raise Differs(f"is_parked is {self._connection.is_parked}")
            case _:
                self.settle_accounts()
                self._act(kind, rest)
                self._collect()

    def settle_accounts(self) -> None:
        if self._events:
            raise Differs(f"nobody asked for the event {self._events[0]!r}")
        if self._sent:
            raise Differs(f"nobody asked for the bytes {self._sent.hex(' ')}")

    def call(self, words: list[str]) -> None:
        raise NotImplementedError

    def _act(self, kind: str, rest: str) -> None:
        match kind:
            case "peer":
                for piece in self._cut(mqtt_bytes.mqtt_bytes(rest)):
                    self._connection.receive(piece, self.now)
                    self._collect()
            case "eof":
                self._connection.receive_eof(self.now)
            case "wait":
                self._pass_time(float(rest))
            case "we":
                self.call(rest.split())
            case "refused":
                self._expect_raise(LocalProtocolError, rest)
            case "bounded":
                self._expect_raise(Bounded, rest)
            case _:
                raise ValueError(f"a case says {kind!r}")

    def _expect_raise(self, error: type[Exception], rest: str) -> None:
        try:
            self.call(rest.split())
        except error:
            return
        raise Differs(f"{error.__name__} was not raised")

    def _pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(_MAX_DEADLINES):
            deadline = self._connection.deadline()
            if deadline is None or deadline > end:
                self.now = end
                return
            self.now = max(self.now, deadline)
            self._connection.handle_deadline(self.now)
            self._collect()
        raise Differs(f"{_MAX_DEADLINES} deadlines within {seconds} s")

    def _collect(self) -> None:
        while (event := self._connection.next_event()) is not None:
            self._events.append(event_text(event))
        self._sent += self._connection.bytes_to_send()

    def _expect_event(self, text: str) -> None:
        if not self._events:
            raise Differs("no event")
        if self._events[0] != text:
            raise Differs(f"the event is {self._events[0]!r}")
        del self._events[0]

    def _expect_sent(self, data: bytes) -> None:
        if self._sent != data:
            raise Differs(f"the bytes are {self._sent.hex(' ')!r}, not {data.hex(' ')!r}")
        self._sent = b""


class _ServerTable(_Table):
    openings: Mapping[str, tuple[str, ...]] = {
        "fresh": (),
        "open": (
            "peer: 10 < [ 'MQTT' ] 04 00 #60 [ 'dev' ] >",
            "event: connect 'dev' keep_alive=60",
            "we: accept",
            "sent: 20 02 00 00",
        ),
    }

    def __init__(self, limits: Limits, cut: Cut, make: MakeServer) -> None:
        self._server = make(limits, 0.0)
        super().__init__(self._server, cut)

    def call(self, words: list[str]) -> None:
        match words:
            case ["accept", *options]:
                self._server.accept(self.now, "present" in options)
            case ["refuse", code]:
                self._server.refuse(ConnackCode(int(code)), self.now)
            case ["publish", qos, topic, payload, *options]:
                self._server.publish(topic, payload.encode(), int(qos), "retain" in options)
            case ["acknowledge", packet_id]:
                self._server.acknowledge(int(packet_id))
            case ["grant", packet_id, *codes]:
                self._server.grant(int(packet_id), tuple(map(int, codes)))
            case ["confirm", packet_id]:
                self._server.confirm_unsubscribe(int(packet_id))
            case ["suspend"]:
                self._server.suspend_keep_alive()
            case ["resume"]:
                self._server.resume_keep_alive(self.now)
            case ["close"]:
                self._server.close()
            case _:
                raise ValueError(f"a case calls {words}")


class _ClientTable(_Table):
    openings: Mapping[str, tuple[str, ...]] = {
        "fresh": (),
        "open": (
            "we: connect dev 60",
            "sent: 10 < [ 'MQTT' ] 04 00 #60 [ 'dev' ] >",
            "peer: 20 02 00 00",
            "event: connack 0",
        ),
    }

    def __init__(self, limits: Limits, cut: Cut, make: MakeClient) -> None:
        self._limits = limits
        self._make = make
        self._session = ClientSession()
        self._client = make(self._session, limits)
        super().__init__(self._client, cut)

    def call(self, words: list[str]) -> None:
        match words:
            case ["connect", client_id, keep_alive, *options]:
                self._client.connect(Connect(client_id, int(keep_alive), "clean" in options), self.now)
            case ["publish", qos, topic, payload, *options]:
                self._client.publish(topic, payload.encode(), int(qos), self.now, "retain" in options)
            case ["subscribe", *filters]:
                pairs = [text.rsplit("=", 1) for text in filters]
                self._client.subscribe(tuple((text, int(qos)) for text, qos in pairs), self.now)
            case ["unsubscribe", *filters]:
                self._client.unsubscribe(tuple(filters), self.now)
            case ["acknowledge", packet_id]:
                self._client.acknowledge(int(packet_id))
            case ["disconnect"]:
                self._client.disconnect(self.now)
            case ["close"]:
                self._client.close()
            case ["redial"]:
                self._client = self._make(self._session, self._limits)
                self._connection = self._client
            case _:
                raise ValueError(f"a case calls {words}")
