"""The kind of value that `outbox.rules` holds: an array of small tables, each about the topics that it matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic.json_schema import JsonSchemaValue

from gatewayd.daemon.config_values import Duration, Kind, NotAllowed, Surroundings, Whole, duration_text
from gatewayd.flow.storing_rules import TopicRule

# Every stored message is compared with each rule until one matches.
MAX_RULES: Final = 32
MAX_PATTERN_LENGTH: Final = 1024
PRIORITY: Final = Whole(-100, 100, "priority")
TIME_TO_LIVE: Final = Duration("1s", "365d")
_KEYS: Final = frozenset({"topic", "priority", "ttl"})


@dataclass(frozen=True, slots=True)
class TopicRules(Kind):
    """Rules in their order; a tuple of `TopicRule` inside gatewayd."""

    def read(self, written: object, surroundings: Surroundings) -> tuple[TopicRule, ...]:
        if not isinstance(written, list | tuple):
            raise NotAllowed("is not an array of tables")
        if len(written) > MAX_RULES:
            raise NotAllowed(f"has {len(written)} rules, at most {MAX_RULES}")
        return tuple(_rule(number, one, surroundings) for number, one in enumerate(written, 1))

    def show(self, value: Any) -> str:
        return "[" + ", ".join(_shown(rule) for rule in value) + "]"

    @property
    def allowed(self) -> str:
        return (
            'tables like {topic = "devices/*level=alarm*", priority = 10, ttl = "7d"}, '
            f"priority from {PRIORITY.at_least} to {PRIORITY.at_most}, "
            f"ttl from {TIME_TO_LIVE.at_least} to {TIME_TO_LIVE.at_most}"
        )

    @property
    def schema(self) -> JsonSchemaValue:
        properties = {"topic": {"type": "string"}, "priority": PRIORITY.schema, "ttl": TIME_TO_LIVE.schema}
        table = {
            "type": "object",
            "properties": properties,
            "required": ["topic"],
            "additionalProperties": False,
        }
        return {"type": "array", "maxItems": MAX_RULES, "items": table}


def _rule(number: int, written: object, surroundings: Surroundings) -> TopicRule:
    if isinstance(written, TopicRule):  # a configuration that is validated again
        return written
    if not isinstance(written, dict):
        raise NotAllowed(f"rule {number} is not a table")
    unknown = sorted(set(map(str, written)) - _KEYS)
    if unknown:
        raise NotAllowed(f"rule {number} has an unknown key {unknown[0]!r}")
    topic = written.get("topic")
    if not isinstance(topic, str) or not 0 < len(topic) <= MAX_PATTERN_LENGTH:
        raise NotAllowed(f"rule {number} has no topic pattern of 1 to {MAX_PATTERN_LENGTH} characters")
    try:
        priority = PRIORITY.read(written.get("priority", 0), surroundings)
        ttl = TIME_TO_LIVE.read(written["ttl"], surroundings) if "ttl" in written else None
    except NotAllowed as refusal:
        raise NotAllowed(f"rule {number}: {refusal}") from refusal
    return TopicRule(topic, priority, ttl)


def _shown(rule: TopicRule) -> str:
    parts = [f'topic = "{rule.topic}"', f"priority = {rule.priority}"]
    if rule.ttl is not None:
        parts.append(f'ttl = "{duration_text(rule.ttl)}"')
    return "{" + ", ".join(parts) + "}"
