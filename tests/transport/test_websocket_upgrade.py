"""The upgrade by itself: requests and answers as bytes, written by hand."""

from __future__ import annotations

import base64
import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.transport.websocket_upgrade import (
    MAX_HEAD_BYTES,
    ClientUpgrade,
    Declined,
    ServerUpgrade,
    Upgrade,
    Upgraded,
)

KEY = base64.b64encode(bytes(range(16))).decode()
ACCEPT = base64.b64encode(
    hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
).decode()

# As paho 1.6.1 sends it (paho/mqtt/client.py, _do_handshake), with the options azure-iot-device gives it.
PAHO = (
    "GET /$iothub/websocket HTTP/1.1\r\nHost: gw.example:443\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-Websocket-Key: {KEY}\r\nSec-Websocket-Version: 13\r\nSec-Websocket-Protocol: mqtt\r\n"
    "Origin: https://gw.example:443\r\n\r\n"
)
# As the ws package for Node sends it.
NODE = (
    "GET /$iothub/websocket?iothub-no-client-cert=true HTTP/1.1\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    "Sec-WebSocket-Protocol: mqtt\r\nHost: gw.example\r\n\r\n"
)


def ask(upgrade: Upgrade, text: str | bytes) -> Upgraded | Declined | None:
    return upgrade.receive(text.encode("latin-1") if isinstance(text, str) else text)


def declined(text: str | bytes) -> tuple[str, str]:
    """Status line and problem."""
    verdict = ask(ServerUpgrade(), text)
    assert isinstance(verdict, Declined)
    return verdict.reply.partition(b"\r\n")[0].decode(), verdict.problem


# What devices send


@pytest.mark.parametrize(
    "request_", [PAHO, NODE, NODE.lower().replace("get ", "GET ").replace("http", "HTTP")]
)
def test_what_sdks_send_is_upgraded(request_: str) -> None:
    verdict = ask(ServerUpgrade(), request_)
    assert isinstance(verdict, Upgraded)
    head = verdict.reply.decode()
    assert head.startswith("HTTP/1.1 101 ")
    assert head.endswith("\r\n\r\n")
    assert "sec-websocket-protocol: mqtt\r\n" in head.lower()
    assert "extensions" not in head.lower()
    key = KEY if KEY in request_ else KEY.lower()
    expected = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    assert f"sec-websocket-accept: {base64.b64encode(expected).decode()}\r\n".lower() in head.lower()


def test_mqtt_may_be_one_of_several_subprotocols() -> None:
    verdict = ask(ServerUpgrade(), PAHO.replace("Protocol: mqtt", "Protocol: AMQPWSB10, mqtt"))
    assert isinstance(verdict, Upgraded)
    assert b"Protocol: mqtt\r\n" in verdict.reply


def test_what_comes_behind_the_request_is_kept() -> None:
    verdict = ask(ServerUpgrade(), PAHO + "behind it")
    assert isinstance(verdict, Upgraded)
    assert verdict.rest == b"behind it"


@given(cuts=st.lists(st.integers(0, len(PAHO)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_however_the_request_is_cut_the_verdict_is_the_same(cuts: list[int]) -> None:
    whole, upgrade = (PAHO + "rest").encode(), ServerUpgrade()
    verdict: Upgraded | Declined | None = None
    edges = [0, *sorted(cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(edges)]
    late = b""
    for piece in pieces:
        if verdict is None:
            verdict = upgrade.receive(piece)
        else:
            late += piece
    assert isinstance(verdict, Upgraded)
    assert verdict.rest + late == b"rest"


# What is refused


@pytest.mark.parametrize(
    ("change", "status", "problem"),
    [
        (("/$iothub/websocket", "/mqtt"), "404", "another path than /$iothub/websocket"),
        (("/$iothub/websocket", "/$iothub/websocket/x"), "404", "another path"),
        (("Sec-Websocket-Protocol: mqtt\r\n", ""), "400", 'subprotocol "mqtt" is not offered'),
        (("Protocol: mqtt", "Protocol: AMQPWSB10"), "400", 'subprotocol "mqtt" is not offered'),
        (("Protocol: mqtt", "Protocol: MQTT"), "400", 'subprotocol "mqtt" is not offered'),
        (("Version: 13", "Version: 8"), "426", "Sec-WebSocket-Version"),
        (("Sec-Websocket-Version: 13\r\n", ""), "400", "Sec-WebSocket-Version"),
        (("Upgrade: websocket\r\n", ""), "400", "Upgrade"),
        (("Connection: Upgrade\r\n", ""), "400", "Connection"),
        ((f"Sec-Websocket-Key: {KEY}\r\n", ""), "400", "Sec-WebSocket-Key"),
        (("Host: gw.example:443\r\n", ""), "400", "Bad HTTP message"),
        (("GET ", "POST "), "400", "GET"),
        (("GET ", "HEAD "), "400", "GET"),
        (("GET ", "CONNECT "), "400", "GET"),
        (("GET /", "GET http://gw.example/"), "404", "another path"),
        (("GET ", "GET\r\n"), "400", "Bad HTTP message"),
        (("Host: gw.example:443", "Host: \xff"), "400", "not ASCII"),
        (("Protocol: mqtt", "Protocol: mqtt\xff"), "400", "not ASCII"),
    ],
)
def test_anything_else_is_refused_by_http(change: tuple[str, str], status: str, problem: str) -> None:
    line, said = declined(PAHO.replace(*change))
    assert line.startswith(f"HTTP/1.1 {status} ")
    assert problem in said


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_refusal_is_a_head_that_says_the_end(method: str) -> None:
    verdict = ask(ServerUpgrade(), PAHO.replace("GET /", f"{method} /x"))
    assert isinstance(verdict, Declined)
    assert verdict.reply.endswith(b"\r\n\r\n")
    assert b"connection: close\r\n" in verdict.reply.lower()
    assert b"content-length: 0\r\n" in verdict.reply.lower()


@given(
    method=st.sampled_from(["GET", "HEAD", "OPTIONS", "CONNECT", "PRI"]),
    version=st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0"]),
    lines=st.lists(
        st.sampled_from(
            [
                *PAHO.split("\r\n")[1:-2],
                *("Content-Length: 10", "Transfer-Encoding: chunked", "Expect: 100-continue", "Host: a..b"),
                *("Connection: close", "Upgrade: h2c", "Sec-WebSocket-Key: x", "Sec-WebSocket-Protocol: ,"),
            ]
        ),
        max_size=12,
    ),
)
@settings(max_examples=300, deadline=None)
def test_no_mixture_of_good_and_strange_headers_makes_more_than_a_verdict(
    method: str, version: str, lines: list[str]
) -> None:
    head = "\r\n".join([f"{method} /$iothub/websocket {version}", *lines, "", ""])
    assert isinstance(ask(ServerUpgrade(), head), Upgraded | Declined)


def test_a_refusal_of_the_version_names_ours() -> None:
    verdict = ask(ServerUpgrade(), PAHO.replace("Version: 13", "Version: 8"))
    assert isinstance(verdict, Declined)
    assert b"sec-websocket-version: 13\r\n" in verdict.reply.lower()


def test_an_mqtt_client_on_the_wrong_port_is_refused() -> None:
    upgrade = ServerUpgrade()
    assert upgrade.receive(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04dev1") is None
    verdict = upgrade.overdue()
    assert verdict.reply.startswith(b"HTTP/1.1 408 ")


def test_a_request_without_an_end_is_refused_at_the_bound() -> None:
    upgrade = ServerUpgrade()
    verdict: Upgraded | Declined | None = None
    sent = 0
    while verdict is None:
        sent += 1000
        verdict = upgrade.receive(b"x" * 1000)
        assert sent <= MAX_HEAD_BYTES + 1000
    assert isinstance(verdict, Declined)
    assert verdict.reply.startswith(b"HTTP/1.1 431 ")


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_request_makes_more_than_a_verdict(noise: bytes) -> None:
    for head in (noise, PAHO.encode()[:-2] + noise, b"GET /$iothub/websocket HTTP/1.1\r\n" + noise):
        verdict = ServerUpgrade().receive(head + b"\r\n\r\n")
        assert isinstance(verdict, Upgraded | Declined)


# The other role


def answer(upgrade: ClientUpgrade, *, accept: str | None = None, **changes: str) -> str:
    """An answer of 101 by hand to what `upgrade` asked."""
    request = upgrade.begin().decode()
    key = next(line[19:] for line in request.split("\r\n") if line.lower().startswith("sec-websocket-key:"))
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Accept": accept or base64.b64encode(digest).decode(),
        "Sec_WebSocket_Protocol": "mqtt",
        **changes,
    }
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""])


def test_we_ask_as_the_sdks_do() -> None:
    request = ClientUpgrade("hub.example", "/$iothub/websocket?iothub-no-client-cert=true").begin().decode()
    lines = request.split("\r\n")
    assert lines[0] == "GET /$iothub/websocket?iothub-no-client-cert=true HTTP/1.1"
    assert {"Host: hub.example", "Upgrade: websocket", "Connection: Upgrade"} <= set(lines)
    assert {"Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: mqtt"} <= set(lines)
    assert "xtensions" not in request


def test_a_good_answer_is_an_upgrade_and_what_follows_is_kept() -> None:
    upgrade = ClientUpgrade("hub.example")
    verdict = ask(upgrade, answer(upgrade) + "frames")
    assert isinstance(verdict, Upgraded)
    assert (verdict.reply, verdict.rest) == (b"", b"frames")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"Sec_WebSocket_Protocol": ""}, 'without the subprotocol "mqtt"'),
        ({"Sec_WebSocket_Protocol": "AMQPWSB10"}, "unrecognized subprotocol"),
        ({"Sec_WebSocket_Protocol": "mq\xfftt"}, "not ASCII"),
        ({"Sec_WebSocket_Extensions": "permessage-deflate"}, "unrecognized extension"),
        ({"accept": ACCEPT}, "Bad accept token"),
        ({"Upgrade": "h2c"}, "Upgrade"),
        ({"Connection": ""}, "Connection"),
    ],
)
def test_a_bad_answer_is_declined(changes: dict[str, str], problem: str) -> None:
    upgrade = ClientUpgrade("hub.example")
    verdict = ask(upgrade, answer(upgrade, **changes))
    assert isinstance(verdict, Declined)
    assert problem in verdict.problem
    assert verdict.reply == b""


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "check hub.hostname"),
        (401, "check hub.hostname"),
        (403, "IP filter"),
        (404, "is this an IoT Hub?"),
        (407, "hub.proxy_credentials"),
        (418, "418"),
        (429, "too many"),
        (503, "cannot serve now"),
    ],
)
def test_another_status_is_said_with_who_must_act(status: int, words: str) -> None:
    upgrade = ClientUpgrade("hub.example")
    upgrade.begin()
    verdict = ask(upgrade, f"HTTP/1.1 {status} No\r\nContent-Length: 1000000\r\n\r\nbegin of a page")
    assert isinstance(verdict, Declined)
    assert verdict.problem.startswith(f"the upgrade was answered with {status}")
    assert words in verdict.problem


def test_an_answer_without_an_end_is_declined_at_the_bound() -> None:
    upgrade = ClientUpgrade("hub.example")
    upgrade.begin()
    verdict = ask(upgrade, b"HTTP/1.1 101 X\r\n" + b"x" * MAX_HEAD_BYTES)
    assert isinstance(verdict, Declined)
    assert "more than" in verdict.problem


def test_an_answer_that_never_comes_is_said() -> None:
    assert ClientUpgrade("hub.example").overdue().problem == "the upgrade was not answered in time"


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_answer_makes_more_than_a_verdict(noise: bytes) -> None:
    for start in (b"", b"HTTP/1.1 101 X\r\n"):
        upgrade = ClientUpgrade("hub.example")
        upgrade.begin()
        assert isinstance(upgrade.receive(start + noise + b"\r\n\r\n"), Upgraded | Declined)
