"""Properties: what a device wrote is what the service side reads, and the other way round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.emulator.property_bag import CloudProperties, Properties, encode, read

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda name: f"x{name}")
VALUES = st.none() | st.text(st.characters(exclude_categories=["Cs"]))


def test_system_properties_have_their_long_names_and_custom_ones_their_own() -> None:
    # The topic an azure-iot-device 2.14 client wrote.
    bag = "%24.mid=id%201&%24.ct=application%2Fjson&%24.ce=utf-8&a%20b=c%2Fd%2Be%3Df%26g~h"
    assert read(bag) == Properties(
        {"message-id": "id 1", "content-type": "application/json", "content-encoding": "utf-8"},
        {"a b": "c/d+e=f&g~h"},
    )


def test_null_and_empty_are_different_and_the_last_of_two_counts() -> None:
    assert read("a&b=&c=1&c=2&") == Properties({}, {"a": None, "b": "", "c": "2"})


@given(st.dictionaries(NAMES, VALUES))
def test_every_name_and_value_survives_the_topic(custom: dict[str, str | None]) -> None:
    assert read(encode(custom)).custom == custom


def test_a_cloud_message_says_what_is_known_in_the_hub_s_names() -> None:
    properties = CloudProperties(
        message_id="m 1",
        correlation_id="c",
        user_id="u",
        content_type="text/plain",
        content_encoding="utf-8",
        ack="full",
        lifetime=60.0,
        custom={"a b": "c&d", "null": None},
    )
    assert properties.bag("/devices/d/messages/devicebound", 0.0) == (
        "%24.mid=m%201&%24.cid=c&%24.uid=u&%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound&%24.ct=text%2Fplain"
        "&%24.ce=utf-8&%24.exp=1970-01-01T00%3A01%3A00.000Z&iothub-ack=full&a%20b=c%26d&null"
    )


@pytest.mark.parametrize(
    "wrong", [{"ack": "maybe"}, {"lifetime": 0.0}, {"custom": {"": "x"}}, {"custom": {"$.mid": "x"}}]
)
def test_what_the_service_would_not_take_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CloudProperties(**wrong)  # type: ignore[arg-type]  # one of each type, by its name
