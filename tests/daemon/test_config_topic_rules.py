"""`outbox.rules`: what is read, what is refused, what is shown again."""

from __future__ import annotations

import tomllib

import pytest

from gatewayd.daemon.config_topic_rules import MAX_RULES, TopicRules
from gatewayd.daemon.config_values import NotAllowed, Surroundings
from gatewayd.flow.storing_rules import TopicRule

KIND = TopicRules()


def read(written: object) -> tuple[TopicRule, ...]:
    return KIND.read(written, Surroundings())


def test_rules_are_read_in_their_order_with_their_defaults() -> None:
    assert read([{"topic": "*a*", "priority": 10, "ttl": "7d"}, {"topic": "*"}]) == (
        TopicRule("*a*", 10, 604_800.0),
        TopicRule("*", 0, None),
    )


def test_rules_that_are_shown_read_back() -> None:
    rules = (TopicRule("devices/*a=b*", 3, 90.0), TopicRule("*", -1))
    assert read(tomllib.loads(f"rules = {KIND.show(rules)}")["rules"]) == rules
    assert KIND.show(()) == "[]"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("*", "is not an array"),
        (["*"], "rule 1 is not a table"),
        ([{"topic": "*"}, {"priority": 1}], "rule 2 has no topic"),
        ([{"topic": ""}], "rule 1 has no topic"),
        ([{"topic": "*", "weight": 1}], "unknown key 'weight'"),
        ([{"topic": "*", "priority": 101}], "rule 1: 101 is out of bounds"),
        ([{"topic": "*", "ttl": 60}], "rule 1: 60 has no unit"),
        ([{"topic": "*"}] * (MAX_RULES + 1), "at most 32"),
    ],
)
def test_what_is_no_rule_is_refused_by_its_number(written: object, problem: str) -> None:
    with pytest.raises(NotAllowed, match=problem):
        read(written)
