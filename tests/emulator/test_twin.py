"""The twin as a device sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatewayd.emulator.twin import (
    LARGEST_INTEGER,
    MAX_DEPTH,
    MAX_KEY_BYTES,
    MAX_SECTION_BYTES,
    MAX_STRING_BYTES,
    NotAllowed,
    Twin,
)


def test_a_new_twin_is_empty_and_has_versions() -> None:
    assert json.loads(Twin().read()) == {"desired": {"$version": 1}, "reported": {"$version": 1}}


def test_a_reported_patch_is_merged_and_null_deletes() -> None:
    twin = Twin()
    assert twin.report(b'{"a": 1, "b": {"c": 2, "d": 3}}') == 204
    assert twin.report(b'{"a": null, "b": {"c": null, "e": 4}}') == 204
    assert twin.reported == {"b": {"d": 3, "e": 4}}
    assert twin.reported_version == 3


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1"])
def test_a_patch_that_is_no_object_is_400_and_changes_nothing(body: bytes) -> None:
    twin = Twin()
    assert twin.report(body) == 400
    assert twin.reported_version == 1


def test_a_section_is_bounded() -> None:
    twin = Twin()
    much = {str(number): "x" * MAX_STRING_BYTES for number in range(MAX_SECTION_BYTES // MAX_STRING_BYTES)}
    assert twin.report(json.dumps(much).encode()) == 413
    with pytest.raises(ValueError, match="bytes"):
        twin.desire(much)


def nested(depth: int) -> dict[str, Any]:
    return {} if depth == 0 else {"a": nested(depth - 1)}


@pytest.mark.parametrize(
    "patch",
    [
        {"a.b": 1},
        {"$version": 1},
        {"a b": 1},
        {"": 1},
        {"a": {"b\u0007": 1}},
        {"k" * (MAX_KEY_BYTES + 1): 1},
        {"a": "x" * (MAX_STRING_BYTES + 1)},
        {"a": LARGEST_INTEGER + 1},
        {"a": [float("nan")]},
        nested(MAX_DEPTH + 1),
    ],
)
def test_what_the_service_does_not_allow_in_a_section_is_refused_on_both_sides(patch: dict[str, Any]) -> None:
    twin = Twin()
    assert twin.report(json.dumps(patch).encode()) == 400
    with pytest.raises(NotAllowed):
        twin.desire(patch)
    assert (twin.reported, twin.desired) == ({}, {})


def test_what_is_just_allowed_is_taken() -> None:
    patch = {
        **nested(MAX_DEPTH),
        "s": "x" * MAX_STRING_BYTES,
        "i": LARGEST_INTEGER,
        "b": True,
        "l": [1.5, None],
    }
    assert Twin().report(json.dumps(patch).encode()) == 204


def test_a_desired_change_is_told_with_its_version() -> None:
    twin = Twin()
    assert json.loads(twin.desire({"interval": 5})) == {"interval": 5, "$version": 2}
    assert twin.desired == {"interval": 5}
