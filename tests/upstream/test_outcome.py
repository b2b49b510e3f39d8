"""The values an attempt ends with."""

from __future__ import annotations

from gatewayd.protocol.iothub.refusals import Ask, classify_connack
from gatewayd.upstream.outcome import Failure, SignedToken


def test_a_signed_token_shows_its_life_and_never_its_text() -> None:
    token = SignedToken(b"SharedAccessSignature sr=a&sig=secret&se=1", 10.0, 3610.0)
    assert repr(token) == "SignedToken(42 bytes, life 3600 s)"
    assert "secret" not in f"{token} {token!r}"


def test_the_failure_that_a_refusal_is_asks_what_the_refusal_asks_and_keeps_it() -> None:
    inference = classify_connack(5, clock_trusted=True, token_fresh=True)
    failure = Failure.of(inference)
    assert failure.ask is Ask.TRY_SECONDARY
    assert failure.inference is inference
    assert "401003" in failure.words


def test_a_failure_that_the_hub_had_no_part_in_has_no_refusal() -> None:
    assert Failure(Ask.WAIT, "the dial took too long").inference is None
