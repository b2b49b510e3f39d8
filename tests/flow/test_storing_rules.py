"""Storing rules: what a topic says about priority and time to live."""

from __future__ import annotations

import pytest

from gatewayd.flow.storing_rules import Storing, StoringRules, TopicRule

TOPIC = "devices/pump-1/messages/events/level=alarm&%24.ct=application%2Fjson"


def test_without_rules_every_topic_has_priority_0_and_the_general_time_to_live() -> None:
    assert StoringRules().of(TOPIC) == Storing(0, None)
    assert StoringRules(ttl=60.0).of(TOPIC) == Storing(0, 60.0)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("*level=alarm*", True),
        ("devices/pump-*/messages/events/*", True),
        (TOPIC, True),
        ("level=alarm", False),  # the whole topic is compared
        ("*LEVEL=alarm*", False),
        ("devices/pump-?/*", False),  # only * is special
        ("devices/pump-1/messages/events/level=alar.*", False),
        ("*", True),
    ],
)
def test_a_star_stands_for_any_characters_and_everything_else_for_itself(pattern: str, matches: bool) -> None:
    assert StoringRules((TopicRule(pattern, 7),)).of(TOPIC).priority == (7 if matches else 0)


def test_the_first_rule_that_matches_decides() -> None:
    rules = StoringRules((TopicRule("*alarm*", 5), TopicRule("*", -5, 9.0)), ttl=60.0)
    assert rules.of(TOPIC) == Storing(5, 60.0)
    assert rules.of("devices/pump-1/messages/events/") == Storing(-5, 9.0)
