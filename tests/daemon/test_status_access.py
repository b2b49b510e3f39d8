"""Who may read what: every place, every kind of reader, and how slow guessing is."""

from __future__ import annotations

import logging

import pytest

from gatewayd.clock import ManualClock
from gatewayd.daemon.status_access import (
    COOKIE_SECONDS,
    MOST_PEERS,
    TRIES,
    TRY_SECONDS,
    Access,
    Asker,
    StatusAccess,
)
from gatewayd.daemon.status_token import StatusToken

TOKEN = "f81d4fae7dec11d0"
PAGES = ("/", "/api/fleet", "/api/devices", "/anything")
GUESS = "Bearer 0000000000000000"


class Gate:
    """The rules, and a clock to pass time with."""

    def __init__(self, *, token: bool = True, wide: bool = True, metrics_for_all: bool = False) -> None:
        self.clock = ManualClock()
        self.access = StatusAccess(
            StatusToken(TOKEN.encode()) if token else None,
            wide=wide,
            metrics_for_all=metrics_for_all,
            secret=b"s" * 32,
            monotonic=self.clock.monotonic,
        )

    def judge(
        self,
        path: str,
        authorization: str = "",
        *,
        cookie: str = "",
        peer: str = "192.0.2.1",
        host: str = "localhost",
    ) -> Access:
        return self.access.judge(path, Asker(peer, host, authorization, cookie))


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/static/status.css"])
@pytest.mark.parametrize("token", [True, False])
def test_probes_and_the_looks_of_the_page_are_for_all(path: str, token: bool) -> None:
    assert Gate(token=token).judge(path, host="gateway.example") is Access.GRANTED


@pytest.mark.parametrize("path", ["/metrics", *PAGES])
def test_with_a_token_everything_else_asks_for_it_wherever_it_is(path: str) -> None:
    for wide in (True, False):
        gate = Gate(wide=wide)
        assert gate.judge(path) is Access.ASK
        assert gate.judge(path, "Basic Zm9vOmJhcg==") is Access.ASK
        assert gate.judge(path, GUESS) is Access.WRONG
        assert gate.judge(path, f"Bearer {TOKEN}") is Access.GRANTED
        assert gate.judge(path, f"bearer  {TOKEN}") is Access.GRANTED


def test_numbers_may_be_for_all_while_pages_are_not() -> None:
    gate = Gate(metrics_for_all=True)
    assert gate.judge("/metrics") is Access.GRANTED
    assert {gate.judge(path) for path in PAGES} == {Access.ASK}
    gate = Gate(metrics_for_all=True, token=False)
    assert gate.judge("/metrics") is Access.GRANTED
    assert {gate.judge(path) for path in PAGES} == {Access.CLOSED}


def test_without_a_token_this_machine_reads_all() -> None:
    gate = Gate(token=False, wide=False)
    assert {gate.judge(path) for path in ("/metrics", *PAGES)} == {Access.GRANTED}


@pytest.mark.parametrize(
    ("host", "access"),
    [
        ("localhost", Access.GRANTED),
        ("LOCALHOST:9464", Access.GRANTED),
        ("127.0.0.1:9464", Access.GRANTED),
        ("[::1]:9464", Access.GRANTED),
        ("gateway.localhost", Access.GRANTED),
        ("", Access.GRANTED),
        ("attacker.example", Access.FOREIGN),
        ("127.0.0.1.attacker.example:9464", Access.FOREIGN),
        ("localhost.attacker.example", Access.FOREIGN),
    ],
)
def test_a_web_page_that_points_its_name_here_learns_no_device(host: str, access: Access) -> None:
    gate = Gate(token=False, wide=False)
    assert gate.judge("/", host=host) is access
    assert gate.judge("/api/devices", host=host) is access
    assert gate.judge("/metrics", host=host) is Access.GRANTED


def test_a_socket_in_the_file_system_is_for_whom_its_mode_lets_in() -> None:
    assert Gate(token=False, wide=False).judge("/", peer="", host="status.example") is Access.GRANTED
    assert Gate(wide=False).judge("/", peer="") is Access.ASK


# Logging in


def test_the_right_token_gives_a_cookie_that_stands_for_it_until_it_ends() -> None:
    gate = Gate()
    access, cookie = gate.access.log_in(f" {TOKEN}\r\n".encode(), "192.0.2.1")
    assert access is Access.GRANTED
    assert TOKEN not in cookie
    assert gate.judge("/api/devices", cookie=cookie) is Access.GRANTED
    gate.clock.advance(COOKIE_SECONDS - 2)
    assert gate.judge("/", cookie=cookie) is Access.GRANTED
    gate.clock.advance(3)
    assert gate.judge("/", cookie=cookie) is Access.ASK


def test_a_cookie_that_is_not_ours_is_no_cookie() -> None:
    gate = Gate()
    _, cookie = gate.access.log_in(TOKEN.encode(), "192.0.2.1")
    ends, _, seal = cookie.partition(".")
    forged = [
        f"{int(ends) + 1}.{seal}",
        f"{ends}.{'0' * 64}",
        f"{ends}.",
        ends,
        ".",
        "x.y",
        f"٣.{seal}",
        "9" * 40,
        f"{ends}.\udc80",
    ]
    assert {gate.judge("/", cookie=one) for one in forged} == {Access.ASK}
    assert gate.judge("/", f"Bearer {TOKEN}") is Access.GRANTED, "none of them cost a try"
    other = StatusAccess(
        StatusToken(TOKEN.encode()),
        wide=True,
        metrics_for_all=False,
        secret=b"t" * 32,
        monotonic=gate.clock.monotonic,
    )
    assert other.judge("/", Asker("", "", cookie=cookie)) is Access.ASK, "another run has another secret"


def test_a_wrong_token_gives_no_cookie_and_none_can_log_in_where_there_is_no_token() -> None:
    assert Gate().access.log_in(b"0000000000000000", "192.0.2.1") == (Access.WRONG, "")
    assert Gate(token=False).access.log_in(b"", "192.0.2.1") == (Access.CLOSED, "")


# Guessing


def test_guessing_is_paced_and_the_right_token_waits_as_well() -> None:
    gate = Gate()
    assert [gate.judge("/metrics", GUESS) for _ in range(TRIES + 2)] == [Access.WRONG] * TRIES + [
        Access.PACED
    ] * 2
    assert gate.judge("/metrics", f"Bearer {TOKEN}") is Access.PACED, "else it could be guessed after all"
    assert gate.access.log_in(TOKEN.encode(), "192.0.2.1")[0] is Access.PACED
    gate.clock.advance(TRY_SECONDS)
    assert gate.judge("/metrics", GUESS) is Access.WRONG
    assert gate.judge("/metrics", GUESS) is Access.PACED
    gate.clock.advance(TRY_SECONDS)
    assert gate.judge("/metrics", f"Bearer {TOKEN}") is Access.GRANTED


def test_one_that_guesses_slows_no_other_and_nobody_with_a_cookie() -> None:
    gate = Gate()
    _, cookie = gate.access.log_in(TOKEN.encode(), "192.0.2.1")
    for _ in range(TRIES + 1):
        gate.judge("/metrics", GUESS)
    assert gate.judge("/metrics", f"Bearer {TOKEN}", peer="192.0.2.2") is Access.GRANTED
    assert gate.judge("/", cookie=cookie) is Access.GRANTED


def test_a_network_of_ipv6_is_one_reader() -> None:
    gate = Gate()
    answers = [
        gate.judge("/metrics", GUESS, peer=f"2001:db8::{number:x}%eth0") for number in range(TRIES + 1)
    ]
    assert answers[-1] is Access.PACED
    assert gate.judge("/metrics", GUESS, peer="2001:db8:0:1::1") is Access.WRONG
    assert gate.judge("/metrics", GUESS, peer="::ffff:192.0.2.9") is Access.WRONG


def test_no_more_readers_are_remembered_than_written() -> None:
    gate = Gate()
    for number in range(2 * MOST_PEERS):
        gate.judge("/metrics", GUESS, peer=f"10.0.{number >> 8}.{number & 255}")
    assert len(gate.access._tries._spent) == MOST_PEERS


def test_who_guesses_is_told_to_the_log_once_and_never_what(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    for _ in range(3 * TRIES):
        gate.judge("/metrics", GUESS)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "192.0.2.1 shows wrong tokens to the status server: it is answered slowly now"
    ]
    assert "0000" not in caplog.text
