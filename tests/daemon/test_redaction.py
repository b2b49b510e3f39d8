"""No secret leaves in a log line, however it got into a record."""

from __future__ import annotations

import base64
import io
import logging
import os
from collections.abc import Iterator

import pytest

from gatewayd.daemon.log_formats import JournalFields, JsonLines, Text
from gatewayd.daemon.redaction import HIDDEN, Redaction, redact

KEY = base64.b64encode(bytes(range(32))).decode()
LONG_KEY = base64.b64encode(bytes(range(64))).decode()
SIGNATURE = "R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE%3D"
TOKEN = f"SharedAccessSignature sr=h.net%2Fdevices%2Fd1&sig={SIGNATURE}&se=1767225600"
CONNECTION = f"HostName=h.net;SharedAccessKeyName=device;SharedAccessKey={KEY}"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0B\n-----END PRIVATE KEY-----"
SECRETS = (KEY, LONG_KEY, SIGNATURE, "MIIEvQIBADANBg", "kqhkiG9w0B")


def test_a_signature_is_hidden_and_the_rest_of_its_token_stays_readable() -> None:
    assert redact(f"sent {TOKEN}.") == (
        f"sent SharedAccessSignature sr=h.net%2Fdevices%2Fd1&sig={HIDDEN}&se=1767225600."
    )


def test_the_key_of_a_connection_string_is_hidden_and_its_name_is_not() -> None:
    assert redact(CONNECTION) == f"HostName=h.net;SharedAccessKeyName=device;SharedAccessKey={HIDDEN}"


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        CONNECTION,
        KEY,
        LONG_KEY,
        f"key={KEY},",
        f"({LONG_KEY})",
        PEM,
        PEM.partition("-----END")[0],
        f'{{"primary_key": "{KEY}"}}',
        f"d1,{KEY},{LONG_KEY}",
        TOKEN.replace("sig=", "sig%3D"),
        f"sig={SIGNATURE}\nsig={SIGNATURE}",
    ],
)
def test_no_secret_is_left(text: str) -> None:
    assert not any(secret in redact(text) for secret in SECRETS)


@pytest.mark.parametrize(
    "text",
    [
        "device dev-01 renewed, next at 12:00",
        "thumbprint " + "ab" * 32,
        "design= and assign=3",
        f"id {'a' * 43} is long",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert redact(text) == text


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO, logging.Handler]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(Redaction())
    logger = logging.getLogger(f"redaction-{os.getpid()}")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, stream, handler
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    "formatter", [JsonLines(), Text(), logging.Formatter()], ids=["json", "text", "plain"]
)
def test_a_record_is_clean_in_message_fields_exception_and_stack(
    log: tuple[logging.Logger, io.StringIO, logging.Handler], formatter: logging.Formatter
) -> None:
    logger, stream, handler = log
    handler.setFormatter(formatter)
    logger.warning("refused %s", TOKEN, extra={"device_id": f"d {KEY}"})
    try:
        raise ValueError(CONNECTION)
    except ValueError:
        logger.exception("broken", stack_info=True)
    written = stream.getvalue()
    assert "refused" in written
    assert "ValueError" in written
    assert not any(secret in written for secret in SECRETS)


def test_the_journal_gets_the_clean_record_too() -> None:
    record = logging.LogRecord("gatewayd", logging.WARNING, "", 0, "refused %s", (TOKEN,), None)
    record.device_id = KEY
    Redaction().filter(record)
    assert not any(secret.encode() in JournalFields().datagram(record) for secret in SECRETS)


def test_a_log_call_with_wrong_arguments_is_written_and_does_not_raise(
    log: tuple[logging.Logger, io.StringIO, logging.Handler],
) -> None:
    logger, stream, _ = log
    logger.warning("%d devices", "three")
    assert "its arguments do not fit" in stream.getvalue()


def test_without_the_filter_a_secret_does_get_out(
    log: tuple[logging.Logger, io.StringIO, logging.Handler],
) -> None:
    logger, stream, handler = log
    handler.filters.clear()
    logger.warning(TOKEN)
    assert SIGNATURE in stream.getvalue(), "the rig sees nothing"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Proxy-Authorization: Basic Z2F0ZXdheTpodW50ZXIy\r\n", f"Proxy-Authorization: Basic {HIDDEN}\r\n"),
        (
            "(b'proxy-authorization', b'Basic Z2F0ZXdheTpodW50ZXIy')",
            f"(b'proxy-authorization', b'Basic {HIDDEN}')",
        ),
        ("through http://gateway:hunter2@proxy:3128 now", f"through http://gateway:{HIDDEN}@proxy:3128 now"),
        ("http://proxy:3128/ and a@b", "http://proxy:3128/ and a@b"),
    ],
)
def test_what_a_proxy_is_shown_is_hidden(text: str, left: str) -> None:
    assert redact(text) == left
