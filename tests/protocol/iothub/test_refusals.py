"""One table, every code of Microsoft's article that can meet a device, and inferences that say they are such."""

from __future__ import annotations

import pytest

from gatewayd.metrics import HUB_ERROR_SERIES
from gatewayd.protocol.iothub.refusals import (
    DUPLICATE_REPEATS,
    TABLE,
    Ask,
    causes,
    classify_close,
    classify_connack,
    explain,
    known_codes,
    refusal,
)

# The codes that Microsoft's "Troubleshoot Azure IoT Hub error codes" gives for what a device does.
ARTICLE_CODES = {
    400027, 400029, 400030, 401000, 401001, 401002, 401003, 401004, 403001, 403002, 403004, 403005, 403006, 403010,
    403012, 403800, 404001, 404006, 404010, 404012, 404103, 404104, 409002, 412002, 413001, 429001, 429002, 429003,
    429005, 500001, 500008, 503001, 503005, 503008, 504101,
}  # fmt: skip

# The six texts the article lists for 401003, in its order.
ARTICLE_401003 = [
    "Authorization header missing",
    "IotHub '*' does not contain the specified device '*'",
    "Authorization rule '*' does not allow access for '*'",
    "Authentication failed for this device, renew token or certificate and reconnect",
    "Thumbprint does not match configuration",
    "Principal",
]


def test_every_code_of_the_article_has_a_row() -> None:
    assert set(known_codes()) >= ARTICLE_CODES


def test_a_code_and_cause_stand_once() -> None:
    keys = [(row.code, row.cause) for row in TABLE]
    assert len(set(keys)) == len(keys)


def test_causes_are_bounded_metric_labels() -> None:
    for row in TABLE:
        assert row.cause.replace("_", "").isalnum()
        assert row.cause == row.cause.lower()


def test_the_metric_counts_under_the_tables_own_codes_and_causes() -> None:
    for code, cause in HUB_ERROR_SERIES:
        assert refusal(int(code), cause)


def test_every_row_says_what_to_do_in_a_sentence() -> None:
    for row in TABLE:
        assert row.remedy.endswith("."), row
        assert row.mqtt, row
        assert row.amqp, row


def test_a_code_has_one_name() -> None:
    for code in known_codes():
        assert len({row.name for row in causes(code)}) == 1


def test_what_may_work_later_is_never_parked_first() -> None:
    for row in TABLE:
        if row.retryable:
            assert row.ask in {Ask.WAIT, Ask.SIGN_AGAIN}, row
        else:
            assert row.ask is not Ask.SIGN_AGAIN, row


def test_the_explanation_of_401003_holds_every_text_of_the_article() -> None:
    text = "\n".join(explain(401003))
    for hub_log in ARTICLE_401003:
        assert hub_log in text


def test_the_explanation_gives_each_cause_its_remedy() -> None:
    text = "\n".join(explain(401003))
    for row in causes(401003):
        assert row.remedy in text


def test_the_explanation_says_what_is_our_own_doing() -> None:
    assert any("not counted as a fault" in line for line in explain(400027))


def test_an_unknown_code_has_no_explanation() -> None:
    assert explain(123456) == ()


def test_an_unknown_cause_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        refusal(401003, "weather")


@pytest.mark.parametrize(
    ("code", "clock_trusted", "token_fresh", "expected"),
    [
        (5, True, True, (401003, "credential")),
        (4, True, True, (401003, "credential")),
        (5, True, False, (401003, "expired")),
        (5, False, True, (401003, "expired")),
        (3, True, True, (503001, "busy")),
        (3, False, False, (503001, "busy")),
        (1, True, True, (400000, "unexpected_answer")),
        (2, True, True, (400000, "unexpected_answer")),
        (17, True, True, (400000, "unexpected_answer")),
    ],
)
def test_a_connack_is_read_as(
    code: int, clock_trusted: bool, token_fresh: bool, expected: tuple[int, str]
) -> None:
    inference = classify_connack(code, clock_trusted=clock_trusted, token_fresh=token_fresh)
    assert (inference.refusal.code, inference.refusal.cause) == expected


def test_connack_0_is_no_refusal() -> None:
    with pytest.raises(ValueError, match="no refusal"):
        classify_connack(0, clock_trusted=True, token_fresh=True)


def test_a_fresh_token_refused_tries_the_other_key_and_then_parks() -> None:
    row = classify_connack(5, clock_trusted=True, token_fresh=True).refusal
    assert (row.ask, row.then) == (Ask.TRY_SECONDARY, Ask.PARK)


def test_a_close_with_a_live_token_is_404104() -> None:
    inference = classify_close(connected_for=900.0, expired_for=-600.0)
    assert (inference.refusal.code, inference.refusal.cause) == (404104, "closed")


@pytest.mark.parametrize("expired_for", [-4.9, 0.0, 299.0, 601.0])
def test_a_close_around_or_after_expiry_is_401003_expired(expired_for: float) -> None:
    inference = classify_close(connected_for=3600.0, expired_for=expired_for)
    assert (inference.refusal.code, inference.refusal.cause) == (401003, "expired")
    assert inference.refusal.ask is Ask.SIGN_AGAIN


def test_a_close_clearly_before_expiry_is_not_expiry() -> None:
    assert classify_close(connected_for=3590.0, expired_for=-5.1).refusal.code == 404104


def test_a_close_before_connack_is_the_hubs_trouble() -> None:
    assert classify_close(connected_for=None, expired_for=-3600.0).refusal.code == 503001


def test_short_lives_in_a_row_are_a_suspected_twin() -> None:
    inference = classify_close(connected_for=2.0, expired_for=-3000.0, short_lives=DUPLICATE_REPEATS)
    assert (inference.refusal.code, inference.refusal.cause) == (400027, "suspected")
    assert not inference.refusal.planned


def test_one_short_life_is_no_twin() -> None:
    assert classify_close(connected_for=2.0, expired_for=-3000.0, short_lives=1).refusal.code == 404104


def test_a_long_life_ends_the_suspicion() -> None:
    assert classify_close(connected_for=31.0, expired_for=-3000.0, short_lives=9).refusal.code == 404104


def test_an_inference_says_that_it_is_one() -> None:
    assert "inferred" in str(classify_connack(5, clock_trusted=True, token_fresh=True))
    assert "inferred" in str(classify_close(connected_for=1.0, expired_for=None))
