"""The device twin of one identity, as far as a device sees it over MQTT. Pure.

Reads and reported patches by JSON merge patch (null deletes), versions that count up, desired changes with their
version. What the service allows in a section is checked on both sides. No ETags, no tags, no queries: those are of the
service side.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

# Desired and reported properties are 32 KB each, JSON-encoded (Understand and use device twins, Microsoft).
MAX_SECTION_BYTES = 32 * 1024

# The rest of the section "Device twin size" and "Tags and properties format" of the same article.
MAX_KEY_BYTES = 1024
MAX_STRING_BYTES = 4096
MAX_DEPTH = 10
SMALLEST_INTEGER, LARGEST_INTEGER = -4503599627370496, 4503599627370495
_FORBIDDEN_IN_KEYS = re.compile(r"[\x00-\x20\x7f-\x9f.$]")

Section = dict[str, Any]


class NotAllowed(ValueError):
    """A section breaks a rule of the service."""


class Twin:
    """Desired and reported properties with their versions."""

    __slots__ = ("desired", "desired_version", "reported", "reported_version")

    def __init__(self) -> None:
        self.desired: Section = {}
        self.reported: Section = {}
        self.desired_version = 1
        self.reported_version = 1

    def read(self) -> bytes:
        """The body of a 200 answer to a twin GET."""
        document = {
            "desired": {**self.desired, "$version": self.desired_version},
            "reported": {**self.reported, "$version": self.reported_version},
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def report(self, body: bytes) -> int:
        """Merge a reported patch and give the status: 204, 400 for what may not be in it, 413 for too much."""
        try:
            patch = json.loads(body)
            _check(patch)
        except ValueError:
            return 400
        merged = _merge(self.reported, patch)
        if len(json.dumps(merged)) > MAX_SECTION_BYTES:
            return 413
        self.reported = merged
        self.reported_version += 1
        return 204

    def desire(self, patch: Section) -> bytes:
        """Change desired properties; the body of the notification."""
        _check(patch)
        merged = _merge(self.desired, patch)
        if len(json.dumps(merged)) > MAX_SECTION_BYTES:
            raise ValueError(f"desired properties have at most {MAX_SECTION_BYTES} bytes")
        self.desired = merged
        self.desired_version += 1
        return json.dumps({**patch, "$version": self.desired_version}, separators=(",", ":")).encode()


def _check(patch: object) -> None:
    if not isinstance(patch, dict):
        raise NotAllowed("a patch is an object")
    _check_value(patch, 0)


def _check_value(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotAllowed(f"objects lie {MAX_DEPTH} deep at most")
    match value:
        case dict():
            for key, below in value.items():
                if not key or len(key.encode()) > MAX_KEY_BYTES or _FORBIDDEN_IN_KEYS.search(key):
                    raise NotAllowed(
                        f"the key {key[:40]!r} is empty, too long or has a character no key may have"
                    )
                _check_value(below, depth + 1)
        case list():
            for below in value:
                _check_value(below, depth + 1)
        case str():
            if len(value.encode()) > MAX_STRING_BYTES:
                raise NotAllowed(f"a string has at most {MAX_STRING_BYTES} bytes")
        case bool():
            pass
        case int():
            if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
                raise NotAllowed("an integer is out of range")
        case float():
            if not math.isfinite(value):
                raise NotAllowed("a number is not finite")


def _merge(base: Section, patch: Section) -> Section:
    """RFC 7396, for objects."""
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = _merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged
