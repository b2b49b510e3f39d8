"""What a topic says about storing a message: its priority, and how long it is kept. Pure.

A rule's pattern is compared with the whole MQTT topic, property bag included, as the device sent it; `*` stands for any
run of characters and everything else for itself, so `*level=alarm*` finds a property. The first rule that matches
decides. A topic that no rule matches has priority 0 and the general time to live.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicRule:
    """One rule. A higher `priority` leaves the outbox earlier; `ttl` is in seconds, None for the general one."""

    topic: str
    priority: int = 0
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Storing:
    """How a message is stored."""

    priority: int
    ttl: float | None


class StoringRules:
    """The rules in force."""

    __slots__ = ("_default", "_rules")

    def __init__(self, rules: Sequence[TopicRule] = (), ttl: float | None = None) -> None:
        self._default = Storing(0, ttl)
        self._rules = tuple(
            (_pattern(rule.topic), Storing(rule.priority, ttl if rule.ttl is None else rule.ttl))
            for rule in rules
        )

    def of(self, topic: str) -> Storing:
        """What the first rule that matches `topic` says."""
        for pattern, storing in self._rules:
            if pattern.fullmatch(topic):
                return storing
        return self._default


def _pattern(topic: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in topic.split("*")), re.DOTALL)
