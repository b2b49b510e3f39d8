"""The shapes packets are made of: remaining lengths, strings, topics and filters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.protocol.mqtt.faults import InvalidPacket
from gatewayd.protocol.mqtt.wire import (
    LEGAL_FIRST_BYTES,
    MAX_REMAINING_LENGTH,
    check_text,
    check_topic_filter,
    check_topic_name,
    encode_remaining_length,
    encode_string,
    read_binary,
    read_string,
    read_u8,
    read_u16,
)
from tests.support import mqtt_bytes


def test_remaining_lengths_are_the_table_of_the_standard() -> None:
    table = {
        0: "00", 127: "7f",
        128: "80 01", 16_383: "ff 7f",
        16_384: "80 80 01", 2_097_151: "ff ff 7f",
        2_097_152: "80 80 80 01", 268_435_455: "ff ff ff 7f",
    }  # fmt: skip
    assert {length: encode_remaining_length(length).hex(" ") for length in table} == table


@settings(deadline=None)
@given(st.integers(0, MAX_REMAINING_LENGTH))
def test_remaining_lengths_are_what_the_standards_own_algorithm_makes(length: int) -> None:
    assert encode_remaining_length(length) == mqtt_bytes.remaining_length(length)


def test_a_remaining_length_over_four_bytes_is_refused() -> None:
    with pytest.raises(InvalidPacket, match=r"2\.2\.3"):
        encode_remaining_length(MAX_REMAINING_LENGTH + 1)


def test_the_legal_first_bytes_are_those_of_tables_2_1_and_2_2() -> None:
    publish = {0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D}
    others = {0x10, 0x20, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0, 0xC0, 0xD0, 0xE0}
    assert publish | others == LEGAL_FIRST_BYTES


@pytest.mark.parametrize(
    "text", ["", "a", "ä", "𪛔", "\ufeffx", "\x01", "\ufffe", "a" * 65_535, "ä" * 32_767]
)
def test_text_that_may_stand_in_a_packet(text: str) -> None:
    check_text(text, "text")
    assert read_string(encode_string(text), 0, "text") == (text, len(text.encode()) + 2)


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("a\0b", "MQTT-1.5.3-2"),
        ("ä\0", "MQTT-1.5.3-2"),
        ("\ud800", "MQTT-1.5.3-1"),
        (chr(0xDFFF), "MQTT-1.5.3-1"),
        ("a" * 65_536, "1.5.3"),
        ("ä" * 32_768, "1.5.3"),
    ],
)
def test_text_that_may_not(text: str, clause: str) -> None:
    with pytest.raises(InvalidPacket) as refusal:
        check_text(text, "text")
    assert refusal.value.clause == clause


@pytest.mark.parametrize("topic", ["a", "/", "a//b", "$iothub/twin/GET/?$rid=1", " ", "ä/b"])
def test_a_topic_name(topic: str) -> None:
    check_topic_name(topic)


@pytest.mark.parametrize("topic", ["", "+", "#", "a/+/b", "a/b#", "a\0", "\ud800"])
def test_what_is_no_topic_name(topic: str) -> None:
    with pytest.raises(InvalidPacket):
        check_topic_name(topic)


@pytest.mark.parametrize(
    "text", ["#", "+", "a/#", "+/+/#", "/", "/#", "a/+/b", "devices/d/messages/devicebound/#"]
)
def test_a_topic_filter(text: str) -> None:
    check_topic_filter(text)


@pytest.mark.parametrize(
    "text", ["", "##", "#/", "a#", "a/#/b", "+a", "a/b+/c", "a++", "#/+", "a\0", "a/\ud800"]
)
def test_what_is_no_topic_filter(text: str) -> None:
    with pytest.raises(InvalidPacket):
        check_topic_filter(text)


def test_no_reader_goes_past_the_end() -> None:
    for read, body in (
        (read_u8, b""),
        (read_u16, b"\x00"),
        (read_binary, b"\x00"),
        (read_binary, b"\x00\x02a"),
        (read_string, b"\x00\x01"),
    ):
        with pytest.raises(InvalidPacket, match="the packet ends"):
            read(body, 0, "field")


@pytest.mark.parametrize("broken", [b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe2\x82", b"\xf4\x90\x80\x80"])
def test_a_string_that_is_not_utf8_is_refused(broken: bytes) -> None:
    with pytest.raises(InvalidPacket) as refusal:
        read_string(mqtt_bytes.field(broken), 0, "field")
    assert refusal.value.clause == "MQTT-1.5.3-1"
