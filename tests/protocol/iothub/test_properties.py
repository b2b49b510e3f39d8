"""Property bags go through unharmed. Oracles: a bag seen from azure-iot-device, and urllib's own decoder."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.protocol.iothub.properties import Properties, SystemProperty, decode, encode, find

# As azure-iot-device 2.14.0 sends it for message-id "id 1", JSON content and a custom property "a b" = "c/d+e=f&g~h".
SEEN_BAG = "%24.mid=id%201&%24.ct=application%2Fjson&%24.ce=utf-8&a%20b=c%2Fd%2Be%3Df%26g~h"

names = st.text(min_size=1, max_size=12)
values = st.none() | st.text(max_size=12)


def test_a_bag_of_the_python_sdk_is_understood() -> None:
    assert decode(SEEN_BAG) == (
        (SystemProperty.MESSAGE_ID, "id 1"),
        (SystemProperty.CONTENT_TYPE, "application/json"),
        (SystemProperty.CONTENT_ENCODING, "utf-8"),
        ("a b", "c/d+e=f&g~h"),
    )


def test_a_bag_of_the_python_sdk_is_built_to_the_letter() -> None:
    assert encode(decode(SEEN_BAG)) == SEEN_BAG


def test_null_is_a_bare_name_and_empty_has_an_equals_sign() -> None:
    assert encode((("gone", None), ("empty", ""))) == "gone&empty="
    assert decode("gone&empty=") == (("gone", None), ("empty", ""))


@pytest.mark.parametrize("bag", ["", "?", "&", "&&"])
def test_a_bag_without_properties_is_empty(bag: str) -> None:
    assert decode(bag) == ()


def test_a_plus_sign_stays_a_plus_sign() -> None:
    assert decode("a+b=c+d") == (("a+b", "c+d"),)


def test_doubles_and_order_are_kept() -> None:
    assert decode("b=1&a=2&b=3") == (("b", "1"), ("a", "2"), ("b", "3"))


def test_a_value_may_hold_an_equals_sign() -> None:
    assert decode("sig=a=b") == (("sig", "a=b"),)


def test_bytes_that_are_no_utf_8_survive() -> None:
    assert encode(decode("raw=%FF%FE")) == "raw=%FF%FE"


def test_an_empty_name_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="empty name"):
        encode((("", "x"),))


def test_find_gives_the_first_value() -> None:
    assert find("a=1&b=2&a=3", "a") == "1"
    assert find("a", "a") is None
    assert find("a=1", "c") is None


@given(st.lists(st.tuples(names, values), max_size=6).map(tuple))
def test_decoding_undoes_encoding(properties: Properties) -> None:
    assert decode(encode(properties)) == properties


@given(names, st.text(max_size=12))
def test_urllib_reads_what_we_write(name: str, value: str) -> None:
    left, _, right = encode(((name, value),)).partition("=")
    assert (unquote(left), unquote(right)) == (name, value)
