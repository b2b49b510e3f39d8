"""A twin carried on from what the hub says: RFC 7396's own examples, versions, and text that is no twin."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.emulator.twin import Twin
from gatewayd.flow.twin_document import MAX_BODY_BYTES, TwinDocument

HUB_ANSWER = b'{"desired": {"rate": 5, "$version": 7}, "reported": {"fw": "1.0", "$version": 3}}'


def document(body: bytes = HUB_ANSWER) -> TwinDocument:
    parsed = TwinDocument.parse(body)
    assert parsed is not None
    return parsed


def test_a_twin_is_kept_as_the_hub_wrote_it() -> None:
    assert document().body == HUB_ANSWER
    assert (document().desired_version, document().reported_version) == (7, 3)


def test_a_desired_change_is_merged_and_reported_properties_stay() -> None:
    changed = document().with_desired(b'{"rate":null,"mode":"eco","$version":8}', 8)
    assert changed is not None
    assert json.loads(changed.body) == {
        "desired": {"mode": "eco", "$version": 8},
        "reported": {"fw": "1.0", "$version": 3},
    }
    assert changed.desired_version == 8


def test_a_reported_patch_carries_no_version_of_its_own() -> None:
    changed = document().with_reported(b'{"fw":"1.1"}', 4)
    assert changed is not None
    assert json.loads(changed.body)["reported"] == {"fw": "1.1", "$version": 4}


def test_an_older_desired_change_changes_nothing() -> None:
    assert document().with_desired(b'{"rate":1,"$version":7}', 7) is not None
    assert document().with_desired(b'{"rate":1,"$version":7}', 7) == document()


@pytest.mark.parametrize("version", [9, 1000])
def test_after_a_missed_desired_change_the_twin_is_not_known(version: int) -> None:
    assert document().with_desired(b"{}", version) is None


@pytest.mark.parametrize("version", [None, 3, 5])
def test_after_a_missed_reported_change_the_twin_is_not_known(version: int | None) -> None:
    assert document().with_reported(b"{}", version) is None


def test_the_desired_section_is_told_whole_with_its_version() -> None:
    assert json.loads(document().desired) == {"rate": 5, "$version": 7}


# RFC 7396, appendix A, as far as both target and result are objects.
RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_patches_merge_as_rfc_7396_says(
    target: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]
) -> None:
    body = {"desired": target | {"$version": 1}, "reported": {"$version": 1}}
    changed = document(json.dumps(body).encode()).with_desired(json.dumps(patch).encode(), 2)
    assert changed is not None
    assert json.loads(changed.desired) == result | {"$version": 2}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"desired":{"$version":1}}',
        b'{"desired":{"$version":1},"reported":[]}',
        b'{"desired":{"$version":true},"reported":{"$version":1}}',
        b'{"desired":{"$version":"1"},"reported":{"$version":1}}',
        b"[" * 100_000,
        HUB_ANSWER + b" " * MAX_BODY_BYTES,
    ],
)
def test_what_is_no_twin_is_none(body: bytes) -> None:
    assert TwinDocument.parse(body) is None


@pytest.mark.parametrize(
    "patch", [b"", b"[1]", b'{"a":', b'{"a":NaN}', b'{"a":1e999}', b'{"a":' * 100_000, b'{"a":"\\ud800"}']
)
def test_after_a_patch_that_is_none_the_twin_is_not_known(patch: bytes) -> None:
    assert document().with_desired(patch, 8) is None
    assert document().with_reported(patch, 4) is None


def test_a_twin_that_grows_over_the_bound_is_not_kept() -> None:
    big = document(b'{"desired":{"a":"%s","$version":1},"reported":{"$version":1}}' % (b"x" * 100_000))
    assert big.with_desired(b'{"b":"%s"}' % (b"y" * 40_000), 2) is None


def test_properties_do_not_show() -> None:
    assert "rate" not in repr(document())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.booleans(), st.dictionaries(st.sampled_from("abcd"), json_values)), max_size=8))
def test_a_twin_carried_on_equals_the_twin_of_a_hub(steps: list[tuple[bool, dict[str, Any]]]) -> None:
    hub = Twin()
    ours: TwinDocument | None = document(hub.read())
    for is_desired, patch in steps:
        assert ours is not None
        if is_desired:
            ours = ours.with_desired(hub.desire(patch), hub.desired_version)
        else:
            body = json.dumps(patch).encode()
            assert hub.report(body) == 204
            ours = ours.with_reported(body, hub.reported_version)
    assert ours is not None
    assert json.loads(ours.body) == json.loads(hub.read())
