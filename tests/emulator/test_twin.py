"""The twin as a device sees it."""

from __future__ import annotations

import json

import pytest

from gatewayd.emulator.twin import MAX_SECTION_BYTES, Twin


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
    assert twin.report(json.dumps({"a": "x" * MAX_SECTION_BYTES}).encode()) == 413
    with pytest.raises(ValueError, match="bytes"):
        twin.desire({"a": "x" * MAX_SECTION_BYTES})


def test_a_desired_change_is_told_with_its_version() -> None:
    twin = Twin()
    assert json.loads(twin.desire({"interval": 5})) == {"interval": 5, "$version": 2}
    assert twin.desired == {"interval": 5}
