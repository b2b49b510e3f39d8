"""A device twin as a device sees it over MQTT: desired and reported properties, each with its version. Pure.

It begins with the hub's own answer to a read and is carried on by what the hub said since: desired notifications and
acknowledged reported patches, both merged by RFC 7396. Each of them raises the version of its section by one, so a gap
in the versions shows that a change was missed. Then the document is not known any more, and None says so.

Nothing here raises for what a hub or a device wrote: what is no twin is None. `repr` shows sizes, never properties.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Self

VERSION: Final = "$version"

# Each section has at most 32 KB as the hub counts: without quotes, colons, commas and blanks ("Understand and use
# device twins", Microsoft). Written as JSON that is at most twice as much.
MAX_BODY_BYTES: Final = 2 * 2 * 32 * 1024

_Section = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TwinDocument:
    """A whole twin. `body` is JSON as a hub answers a read with."""

    body: bytes
    desired_version: int
    reported_version: int

    def __repr__(self) -> str:
        return (
            f"TwinDocument({len(self.body)} bytes, desired {self.desired_version}, "
            f"reported {self.reported_version})"
        )

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        """From the body of a 200 answer, kept byte by byte; None when that is no twin, or one too large to keep."""
        twin = _object(body)
        if twin is None or not _is_section(twin.get("desired")) or not _is_section(twin.get("reported")):
            return None
        return cls(body, twin["desired"][VERSION], twin["reported"][VERSION])

    def with_desired(self, patch: bytes, version: int) -> Self | None:
        """After a desired notification; one that is older than the document changes nothing."""
        if version <= self.desired_version:
            return self
        if version != self.desired_version + 1:
            return None
        return self._merged("desired", patch, version)

    def with_reported(self, patch: bytes, version: int | None) -> Self | None:
        """After the hub acknowledged a reported patch with this version."""
        if version != self.reported_version + 1:
            return None
        return self._merged("reported", patch, version)

    @property
    def desired(self) -> bytes:
        """The whole desired section with its version: the body of a desired notification that tells it all."""
        return _written(json.loads(self.body)["desired"])

    def _merged(self, section: str, patch: bytes, version: int) -> Self | None:
        twin, change = _object(self.body), _object(patch)
        if twin is None or change is None:
            return None
        try:
            twin[section] = _merge(twin[section], change) | {VERSION: version}
            return type(self).parse(_written(twin))
        except (ValueError, RecursionError):
            return None


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get(VERSION)) is int


def _object(text: bytes) -> _Section | None:
    """The JSON object in `text`; None for anything else, however it is broken."""
    if len(text) > MAX_BODY_BYTES:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _merge(base: _Section, patch: _Section) -> _Section:
    """RFC 7396, section 2, for objects."""
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


def _written(value: _Section) -> bytes:
    # JSON has no NaN and no infinity; Python would write them.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
