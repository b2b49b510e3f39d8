"""The device twin of one identity, as far as a device sees it over MQTT. Pure.

Reads and reported patches by JSON merge patch (null deletes), versions that count up, desired changes with their
version. No ETags, no tags, no queries: those are of the service side.
"""

from __future__ import annotations

import json
from typing import Any

# Desired and reported properties are 32 KB each, JSON-encoded (Understand and use device twins, Microsoft).
MAX_SECTION_BYTES = 32 * 1024

Section = dict[str, Any]


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
        """Merge a reported patch and give the status: 204, 400 for what is no object, 413 for too much."""
        try:
            patch = json.loads(body)
        except ValueError:
            return 400
        if not isinstance(patch, dict):
            return 400
        merged = _merge(self.reported, patch)
        if len(json.dumps(merged)) > MAX_SECTION_BYTES:
            return 413
        self.reported = merged
        self.reported_version += 1
        return 204

    def desire(self, patch: Section) -> bytes:
        """Change desired properties; the body of the notification."""
        merged = _merge(self.desired, patch)
        if len(json.dumps(merged)) > MAX_SECTION_BYTES:
            raise ValueError(f"desired properties have at most {MAX_SECTION_BYTES} bytes")
        self.desired = merged
        self.desired_version += 1
        return json.dumps({**patch, "$version": self.desired_version}, separators=(",", ":")).encode()


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
