"""One automaton over one stream, with a small line protocol in place of MQTT."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from gatewayd.clock import SystemClock
from gatewayd.errors import Bounded, ConnectionLost, LocalProtocolError
from gatewayd.transport.conversation import Conversation
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.transport.tls_stream import StreamLimits
from tests.support.delay_line import DelayLine
from tests.support.hand_tls import HandTls
from tests.support.stream_owners import PATIENCE, Recorder, dialled, serving, stdlib_server
from tests.support.tls_material import HUB, Tls


@dataclass(frozen=True, slots=True)
class Line:
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    why: str


LineEvent = Line | Ended


class LineAutomaton:
    """Lines in, lines out. "quit" ends it, so does silence of `patience` seconds."""

    def __init__(self, now: float = 0.0, patience: float | None = None, *, mute: bool = False) -> None:
        self.patience = patience
        self.heard = now
        self.mute = mute  # a fault: no closing event of a lost connection
        self.over = False
        self._rest = b""
        self._events: deque[LineEvent] = deque()
        self._out: list[bytes] = []

    def receive(self, data: bytes, now: float) -> None:
        self.heard = now
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line == b"quit":
                self.say("bye")
                self.end("quit")
            elif not self.over:
                self._events.append(Line(line.decode()))

    def receive_eof(self, now: float) -> None:
        if not self.mute:
            self.end("eof")

    def next_event(self) -> LineEvent | None:
        return self._events.popleft() if self._events else None

    def bytes_to_send(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def deadline(self) -> float | None:
        return None if self.patience is None else self.heard + self.patience

    def handle_deadline(self, now: float) -> None:
        self.say("too slow")
        self.end("silence")

    def say(self, text: str) -> None:
        self._out.append(text.encode() + b"\n")

    def end(self, why: str) -> None:
        if not self.over:
            self.over = True
            self._events.append(Ended(why))


class Talk:
    """A conversation that writes down what it hears; `reaction` may answer a line."""

    def __init__(
        self,
        wheel: DeadlineWheel,
        automaton: LineAutomaton | None = None,
        reaction: Callable[[Talk, str], None] = lambda talk, text: None,
    ) -> None:
        self.automaton = automaton or LineAutomaton()
        self.reaction = reaction
        self.heard: list[str] = []
        self.ends: list[str] = []
        self.writable = 0
        self.it: Conversation[LineEvent, Ended] = Conversation(
            self.automaton,
            wheel,
            SystemClock(),
            self._on_event,
            self._on_closed,
            closed=Ended,
            on_writable=self._on_writable,
        )
        self._news = asyncio.Event()

    def _on_event(self, event: LineEvent) -> None:
        assert isinstance(event, Line), "the closing event never comes here"
        self.heard.append(event.text)
        self._news.set()
        self.reaction(self, event.text)

    def _on_closed(self, ended: Ended) -> None:
        assert self.it.is_closed
        self.ends.append(ended.why)
        self._news.set()

    def _on_writable(self) -> None:
        self.writable += 1
        self._news.set()

    async def until(self, condition: Callable[[Talk], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    async def until_closed(self) -> None:
        await self.until(lambda talk: bool(talk.ends))

    async def until_gone(self) -> None:
        """Until the stream itself has closed."""
        await self.until_closed()
        async with asyncio.timeout(PATIENCE):
            while self.it.stream is not None:  # noqa: ASYNC110 - nothing tells; the loop turns are few
                await asyncio.sleep(0)


@pytest.fixture
async def wheel() -> AsyncIterator[DeadlineWheel]:
    loop = asyncio.get_running_loop()
    made = DeadlineWheel(loop.time, loop.call_at)
    yield made
    made.close()


async def client_of(port: int, tls: Tls) -> HandTls:
    client = await HandTls.connect(port, tls.their_client(ssl.TLSVersion.TLSv1_2), HUB)
    await client.shake_hands()
    return client


async def test_lines_become_events_and_verbs_inside_them_become_bytes(tls: Tls, wheel: DeadlineWheel) -> None:
    talk = Talk(wheel, reaction=lambda it, text: it.automaton.say(f"you said {text}"))
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"one\ntw", b"o\nthree\n")
        answer = b"you said one\nyou said two\nyou said three\n"
        assert await client.read(len(answer)) == answer
        assert talk.heard == ["one", "two", "three"]
        client.close()
        await talk.until_gone()


async def test_flushing_inside_an_event_does_not_nest_the_next_one_in_it(
    tls: Tls, wheel: DeadlineWheel
) -> None:
    order: list[str] = []

    def flush(talk: Talk, text: str) -> None:
        order.append(f"<{text}")
        talk.automaton.say(text)
        talk.it.flush()
        order.append(f"{text}>")

    talk = Talk(wheel, reaction=flush)
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"a\nb\n")
        assert await client.read(4) == b"a\nb\n"
        assert order == ["<a", "a>", "<b", "b>"]
        client.close()
        await talk.until_gone()


async def test_what_comes_after_the_end_is_ignored(tls: Tls, wheel: DeadlineWheel) -> None:
    talk = Talk(wheel)
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"quit\n")
        await talk.until_closed()
        heard = talk.automaton.heard
        # Somebody between the stream and us, such as an emulated slow flow, may be late.
        talk.it.stream_data(b"late\n")
        talk.it.stream_eof()
        assert (talk.heard, talk.ends, talk.automaton.heard) == ([], ["quit"], heard)
        client.close()
        await talk.until_gone()


async def test_verbs_outside_of_an_event_are_sent_by_flush(tls: Tls, wheel: DeadlineWheel) -> None:
    talk = Talk(wheel)
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"hello\n")
        await talk.until(lambda it: it.heard == ["hello"])
        talk.automaton.say("news")
        talk.it.flush()
        assert await client.read(5) == b"news\n"
        client.close()
        await talk.until_gone()


async def test_what_the_automaton_says_before_the_stream_is_there_is_sent_first(
    tls: Tls, wheel: DeadlineWheel
) -> None:
    server_side = Talk(wheel, reaction=lambda it, text: it.automaton.say(f"hello {text}"))
    client_side = Talk(wheel)
    client_side.automaton.say("early bird")
    client_side.it.flush()
    async with serving(tls.our_server(), lambda _: server_side.it) as server:
        await dialled(server.port, tls.our_client(), client_side.it)
        await client_side.until(lambda it: it.heard == ["hello early bird"])
        client_side.it.abort()
        await client_side.until_gone()


async def test_the_automatons_end_is_flushed_then_closed_then_told_once(
    tls: Tls, wheel: DeadlineWheel
) -> None:
    talk = Talk(wheel)
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"one\nquit\nnever heard\n")
        assert await client.read(1000) == b"bye\n", "the last word, then our close_notify"
        client.close()
        await talk.until_gone()
        assert (talk.heard, talk.ends) == (["one"], ["quit"])
        assert talk.it.error is None


async def test_the_peers_end_is_the_automatons_closing_event(tls: Tls, wheel: DeadlineWheel) -> None:
    talk = Talk(wheel)
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"one\n")
        client.close()
        await talk.until_gone()
        assert (talk.heard, talk.ends) == (["one"], ["eof"])


async def test_a_lost_connection_is_the_automatons_closing_event_with_the_error_beside_it(
    tls: Tls, wheel: DeadlineWheel
) -> None:
    talk = Talk(wheel)
    async with (
        serving(tls.our_server(), lambda _: Recorder()) as server,
        await DelayLine.open(server.port) as line,
    ):
        await dialled(line.port, tls.our_client(), talk.it)
        line.reset()
        await talk.until_gone()
        assert talk.ends == ["eof"]
        assert isinstance(talk.it.error, ConnectionLost)


async def test_abort_and_its_reason_end_it_too(tls: Tls, wheel: DeadlineWheel) -> None:
    talk = Talk(wheel)
    async with serving(tls.our_server(), lambda _: Recorder()) as server:
        await dialled(server.port, tls.our_client(), talk.it)
        talk.it.abort(Bounded("enough"))
        assert talk.ends == [], "never inside a call of ours"
        await talk.until_gone()
        assert talk.ends == ["eof"]
        assert str(talk.it.error) == "enough"
        talk.it.abort()
        talk.it.flush()
        talk.it.suspend()
        talk.it.resume()
        assert talk.ends == ["eof"]


async def test_a_deadline_of_the_automaton_ends_a_silent_peer(tls: Tls, wheel: DeadlineWheel) -> None:
    now = asyncio.get_running_loop().time()
    talk = Talk(wheel, LineAutomaton(now, patience=0.05))
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        assert await client.read(1000) == b"too slow\n"
        client.close()
        await talk.until_gone()
        assert talk.ends == ["silence"]


async def test_each_packet_moves_the_deadline(tls: Tls, wheel: DeadlineWheel) -> None:
    talk = Talk(wheel, LineAutomaton(asyncio.get_running_loop().time(), patience=1000.0))
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"one\n")
        await talk.until(lambda it: it.heard == ["one"])
        first = talk.it.due
        await client.send(b"two\n")
        await talk.until(lambda it: it.heard == ["one", "two"])
        assert first is not None
        assert talk.it.due is not None
        assert talk.it.due > first
        client.close()
        await talk.until_gone()
        assert talk.it.due is None


async def test_suspended_it_hands_out_and_reads_nothing_until_resumed(tls: Tls, wheel: DeadlineWheel) -> None:
    talk = Talk(wheel, reaction=lambda it, text: it.it.suspend() if text == "b" else None)
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"a\nb\nc\nd\n")
        await talk.until(lambda it: "b" in it.heard)
        await client.send(b"e\n")
        for _ in range(50):
            await asyncio.sleep(0)
        assert talk.heard == ["a", "b"]
        talk.automaton.say("still speaking")
        talk.it.flush()
        assert await client.read(15) == b"still speaking\n"
        talk.it.resume()
        assert talk.heard == ["a", "b", "c", "d"]
        await talk.until(lambda it: it.heard == ["a", "b", "c", "d", "e"])
        client.close()
        await talk.until_gone()


async def test_suspended_before_the_stream_is_there_it_reads_nothing(tls: Tls, wheel: DeadlineWheel) -> None:
    talk = Talk(wheel)
    talk.it.suspend()
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"a\n")
        for _ in range(50):
            await asyncio.sleep(0)
        assert talk.heard == []
        assert talk.automaton.heard == 0.0, "the automaton was not even fed"
        talk.it.resume()
        await talk.until(lambda it: it.heard == ["a"])
        client.close()
        await talk.until_gone()


async def test_an_end_while_suspended_delivers_what_waits_and_then_closes(
    tls: Tls, wheel: DeadlineWheel
) -> None:
    talk = Talk(wheel, reaction=lambda it, text: it.it.suspend() if text == "a" else None)
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"a\nb\nc\n")
        await talk.until(lambda it: "a" in it.heard)
        talk.automaton.end("taken over")
        talk.it.flush()
        assert (talk.heard, talk.ends) == (["a", "b", "c"], ["taken over"])
        client.close()
        await talk.until_gone()


async def test_resuming_inside_an_event_keeps_the_order(tls: Tls, wheel: DeadlineWheel) -> None:
    def stop_and_go(talk: Talk, text: str) -> None:
        talk.it.suspend()
        talk.it.resume()

    talk = Talk(wheel, reaction=stop_and_go)
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"a\nb\nc\n")
        await talk.until(lambda it: it.heard == ["a", "b", "c"])
        client.close()
        await talk.until_gone()


async def test_finish_waits_for_the_peers_fin_and_not_only_for_its_close_notify(
    tls: Tls, wheel: DeadlineWheel
) -> None:
    let_go = asyncio.Event()
    answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = HandTls(reader, writer, tls.their_server(ssl.TLSVersion.TLSv1_2), None)
        await server.shake_hands()
        assert await server.read(1000) == b"disconnect\n"
        await server.send(b"one last line\n")
        server.tls.unwrap()
        await server.send()
        answered.set()
        await let_go.wait()

    talk = Talk(wheel)
    async with stdlib_server(None, serve) as port:
        await dialled(port, tls.our_client(), talk.it)
        talk.automaton.say("disconnect")
        talk.it.finish()
        talk.automaton.say("a late receipt")
        talk.it.flush()
        await answered.wait()
        await talk.until(lambda it: it.heard == ["one last line"])
        for _ in range(20):
            await asyncio.sleep(0)
        assert talk.ends == []
        let_go.set()
        await talk.until_gone()
        assert talk.ends == ["eof"]
        assert talk.it.error is None


async def test_what_is_said_in_an_event_goes_out_before_the_finish_asked_for_in_it(
    tls: Tls, wheel: DeadlineWheel
) -> None:
    def leave(talk: Talk, text: str) -> None:
        talk.automaton.say("disconnect")
        talk.it.finish()

    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"leave\n")
        heard.set_result(await reader.read())
        writer.close()

    talk = Talk(wheel, reaction=leave)
    async with stdlib_server(tls.their_server(), serve) as port:
        await dialled(port, tls.our_client(), talk.it)
        async with asyncio.timeout(PATIENCE):
            assert await heard == b"disconnect\n"
        await talk.until_gone()
        assert talk.it.error is None


async def test_a_congested_conversation_says_so_and_when_it_is_over(tls: Tls, wheel: DeadlineWheel) -> None:
    go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await reader.read()

    talk = Talk(wheel)
    assert not talk.it.congested
    limits = StreamLimits(write_high=100_000, write_cap=100_000_000)
    async with stdlib_server(tls.their_server(), serve) as port:
        await dialled(port, tls.our_client(), talk.it, limits=limits)
        while not talk.it.congested:
            talk.automaton.say("x" * 50_000)
            talk.it.flush()
        go.set()
        await talk.until(lambda it: it.writable == 1)
        assert not talk.it.congested
        talk.automaton.end("enough")
        talk.it.flush()
        await talk.until_gone()


async def test_an_owner_that_fails_in_an_event_still_hears_the_end(tls: Tls, wheel: DeadlineWheel) -> None:
    def fail(talk: Talk, text: str) -> None:
        raise RuntimeError("a bug")

    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    talk = Talk(wheel, reaction=fail)
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"a\n")
        await talk.until_gone()
        assert talk.ends == ["eof"]
        assert isinstance(talk.it.error, RuntimeError)
        assert len(reported) == 1
        client.close()


async def test_an_owner_that_fails_at_a_deadline_loses_its_stream(tls: Tls, wheel: DeadlineWheel) -> None:
    class Faulty(LineAutomaton):
        def handle_deadline(self, now: float) -> None:
            raise RuntimeError("a bug")

    reported: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    talk = Talk(wheel, Faulty(loop.time(), patience=0.01))
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await talk.until_gone()
        assert talk.ends == ["eof"]
        assert isinstance(talk.it.error, RuntimeError)
        assert len(reported) == 1
        client.close()


async def test_an_automaton_without_a_closing_event_is_a_fault_of_ours(
    tls: Tls, wheel: DeadlineWheel
) -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    talk = Talk(wheel, LineAutomaton(mute=True))
    async with serving(tls.our_server(), lambda _: talk.it) as server:
        client = await client_of(server.port, tls)
        await client.send(b"a\n")
        await talk.until(lambda it: it.heard == ["a"])
        talk.it.abort()
        async with asyncio.timeout(PATIENCE):
            while not reported:  # noqa: ASYNC110 - the loop's handler tells
                await asyncio.sleep(0)
        assert isinstance(reported[0]["exception"], LocalProtocolError)
        client.close()
