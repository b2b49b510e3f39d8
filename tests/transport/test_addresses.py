"""Numeric addresses, and what is taken from the resolver's answers."""

from __future__ import annotations

import socket

import pytest

from gatewayd.transport.addresses import AddressInfo, SocketAddress, from_getaddrinfo


@pytest.mark.parametrize(
    ("host", "family", "text"),
    [
        ("127.0.0.1", socket.AF_INET, "127.0.0.1:8883"),
        ("::1", socket.AF_INET6, "[::1]:8883"),
    ],
)
def test_a_numeric_host_needs_no_resolver(host: str, family: int, text: str) -> None:
    address = SocketAddress.numeric(host, 8883)
    assert (address.family, address.host, address.port, str(address)) == (family, host, 8883, text)


@pytest.mark.parametrize("host", ["hub.example", "localhost", ""])
def test_a_name_is_refused_without_asking_anybody(host: str) -> None:
    with pytest.raises(ValueError, match="numeric"):
        SocketAddress.numeric(host, 8883)


def test_answers_keep_their_order_and_lose_their_doubles() -> None:
    answers: list[AddressInfo] = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 1, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 1)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 1, 0, 0)),
    ]
    assert [address.host for address in from_getaddrinfo(answers)] == ["2001:db8::1", "192.0.2.1"]


def test_an_answer_of_a_python_without_ipv6_is_left_out() -> None:
    # socket.getaddrinfo: (family number, raw bytes) when Python was built without IPv6.
    answers: list[AddressInfo] = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (10, b"\0" * 26))]
    assert from_getaddrinfo(answers) == ()
