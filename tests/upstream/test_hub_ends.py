"""What an end without a word is taken for. The words of a refusal are tests of `protocol.iothub.refusals`."""

from __future__ import annotations

from dataclasses import dataclass

from gatewayd.protocol.iothub.refusals import DUPLICATE_REPEATS, DUPLICATE_SPELL_SECONDS, classify_connack
from gatewayd.protocol.mqtt.events import Closed
from gatewayd.protocol.mqtt.faults import CloseCause, ConnackCode
from gatewayd.upstream.hub_ends import HubEnds
from gatewayd.upstream.outcome import SignedToken

CUT = Closed(CloseCause.EOF, "the stream ended")


@dataclass
class Link:
    """A connection whose CONNECT went out at 0."""

    accepted_at: float | None = 0.0
    connect_sent: bool = True
    token: SignedToken | None = SignedToken(b"", 0.0, 3600.0)  # noqa: RUF009 - frozen


def code(ends: HubEnds, link: Link, now: float) -> tuple[int, str] | None:
    inference = ends.infer(link, CUT, now)
    return None if inference is None else (inference.refusal.code, inference.refusal.cause)


def test_a_planned_end_is_ours() -> None:
    planned = Closed(CloseCause.DISCONNECTED, "the stream ended after DISCONNECT", planned=True)
    assert HubEnds(lambda: True).infer(Link(), planned, 10.0) is None


def test_an_end_before_connect_says_nothing_of_the_hub() -> None:
    assert HubEnds(lambda: True).infer(Link(None, connect_sent=False), CUT, 10.0) is None


def test_a_cut_of_a_long_connection_is_404104() -> None:
    assert code(HubEnds(lambda: True), Link(), 1000.0) == (404104, "closed")


def test_a_cut_at_the_end_of_the_token_is_401003_when_the_clock_is_trusted() -> None:
    assert code(HubEnds(lambda: True), Link(), 3600.0) == (401003, "expired")
    assert code(HubEnds(lambda: False), Link(), 3600.0) == (404104, "closed")


def test_short_lives_in_a_row_are_a_suspected_twin_and_one_long_life_ends_the_row() -> None:
    ends = HubEnds(lambda: True)
    short = DUPLICATE_SPELL_SECONDS / 2
    said = [code(ends, Link(), short) for _ in range(DUPLICATE_REPEATS)]
    assert said[-1] == (400027, "suspected")
    assert code(ends, Link(), DUPLICATE_SPELL_SECONDS + 1) == (404104, "closed")
    assert code(ends, Link(), short) == (404104, "closed")


def test_what_connack_said_is_the_reason_of_an_end_right_after_it() -> None:
    connack = classify_connack(ConnackCode.NOT_AUTHORIZED, clock_trusted=True, token_fresh=True)
    assert HubEnds(lambda: True).infer(Link(None), CUT, 1.0, connack=connack) is connack
