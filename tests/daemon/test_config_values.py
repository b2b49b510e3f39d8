"""Written values: what each kind reads, refuses, and shows again."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.daemon.config_values import (
    Address,
    Choice,
    Duration,
    Endpoint,
    File,
    Fraction,
    Hostname,
    HttpProxy,
    Kind,
    NotAllowed,
    Size,
    StatusAddress,
    Surroundings,
    UnixSocket,
    Whole,
    duration,
    duration_text,
)

HERE = Surroundings(folder=Path("/etc/gatewayd"), credentials=Path("/run/credentials/x"))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("100ms", 0.1), ("20s", 20.0), ("60m", 3600.0), ("1.5h", 5400.0), ("1d", 86400.0), ("5 m", 300.0)],
)
def test_a_duration_is_read_with_its_unit(written: str, seconds: float) -> None:
    assert Duration("1ms", "30d").read(written, HERE) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written", [60, 1.5, "60", "60x", "-5s", "", "m", True, None, [], "1h30m", "∞s", "٣s "]
)
def test_a_duration_without_a_known_unit_is_refused(written: object) -> None:
    with pytest.raises(NotAllowed):
        Duration("1s", "1h").read(written, HERE)


def test_a_duration_may_lie_on_its_bounds_and_not_beyond() -> None:
    kind = Duration("10s", "24h")
    assert [kind.read("10s", HERE), kind.read("24h", HERE)] == [10.0, 86400.0]
    for beyond in ("9999ms", "24.1h"):
        with pytest.raises(NotAllowed, match="out of bounds"):
            kind.read(beyond, HERE)


@given(st.integers(min_value=0, max_value=10_000_000))
def test_a_duration_that_is_shown_reads_back(milliseconds: int) -> None:
    assert round(duration(duration_text(milliseconds / 1000)) * 1000) == milliseconds


@pytest.mark.parametrize(
    ("written", "size"), [("512MiB", 512 << 20), ("1KiB", 1024), ("3B", 3), ("1.5KiB", 1536)]
)
def test_a_size_is_read_with_its_unit_and_shown_again(written: str, size: int) -> None:
    kind = Size("1B", "1GiB")
    assert kind.read(written, HERE) == size
    assert kind.read(kind.show(size).strip('"'), HERE) == size


@pytest.mark.parametrize("written", [1024, "1024", "1MB", "0.3B", "2GiB", "big"])
def test_a_size_that_is_no_number_of_bytes_within_bounds_is_refused(written: object) -> None:
    with pytest.raises(NotAllowed):
        Size("1B", "1GiB").read(written, HERE)


@pytest.mark.parametrize("written", [0, 1001, "50", 1.0, True])
def test_a_count_is_a_whole_number_within_bounds(written: object) -> None:
    assert Whole(1, 1000, "connections").read(1000, HERE) == 1000
    with pytest.raises(NotAllowed):
        Whole(1, 1000, "connections").read(written, HERE)


@pytest.mark.parametrize("written", ["0.5", 1.5, -0.1, math.nan, math.inf, True])
def test_a_share_is_a_number_within_bounds(written: object) -> None:
    assert Fraction(0.0, 1.0).read(1, HERE) == 1.0
    with pytest.raises(NotAllowed):
        Fraction(0.0, 1.0).read(written, HERE)


def test_a_word_of_a_later_version_is_told_from_an_unknown_one() -> None:
    kind = Choice(("mqtt",), later=("amqp",))
    assert kind.read("mqtt", HERE) == "mqtt"
    with pytest.raises(NotAllowed, match='"amqp" is not in this version'):
        kind.read("amqp", HERE)
    with pytest.raises(NotAllowed, match='"carrier pigeon" is not known'):
        kind.read("carrier pigeon", HERE)
    with pytest.raises(NotAllowed, match="is not known"):
        kind.read({}, HERE)


@pytest.mark.parametrize("written", ["contoso.azure-devices.net", "hub", "a_b.c", "127.0.0.1"])
def test_a_host_name_is_taken_as_it_is(written: str) -> None:
    assert Hostname().read(written, HERE) == written


@pytest.mark.parametrize(
    "written", ["", "https://a.b", "a.b:8883", "a.b/", "-a.b", "a..b", "::1", "a b", "ä.b", "x" * 64, 7]
)
def test_what_is_more_or_less_than_a_host_name_is_refused(written: object) -> None:
    with pytest.raises(NotAllowed):
        Hostname().read(written, HERE)


@pytest.mark.parametrize(
    ("written", "endpoint"),
    [
        ("0.0.0.0:8883", Endpoint("0.0.0.0", 8883)),
        ("[::1]:8883", Endpoint("::1", 8883)),
        ("127.0.0.1:0", Endpoint("127.0.0.1", 0)),
    ],
)
def test_an_address_is_read_and_shown_as_it_was_written(written: str, endpoint: Endpoint) -> None:
    assert Address(listens=True).read(written, HERE) == endpoint
    assert str(endpoint) == written


@pytest.mark.parametrize("host", ["localhost", "hub.local"])
def test_a_name_is_for_dialling_and_not_for_listening(host: str) -> None:
    assert Address(listens=False).read(f"{host}:1", HERE) == Endpoint(host, 1)
    with pytest.raises(NotAllowed, match="has a name where gatewayd listens"):
        Address(listens=True).read(f"{host}:1", HERE)


@pytest.mark.parametrize(
    "written", ["8883", "host", "host:", ":8883", "host:x", "host:65536", "::1:8883", "[host]:1", "h:٣", 8883]
)
def test_an_address_without_host_or_port_is_refused(written: object) -> None:
    with pytest.raises(NotAllowed):
        Address(listens=True).read(written, HERE)


def test_port_zero_is_only_for_listening() -> None:
    with pytest.raises(NotAllowed, match="port 0"):
        Address(listens=False).read("hub:0", HERE)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("h", False),
    ],
)
def test_an_endpoint_knows_whether_others_can_reach_it(host: str, loopback: bool) -> None:
    assert Endpoint(host, 1).is_loopback is loopback


def test_people_and_scrapers_may_come_to_a_socket_in_the_file_system() -> None:
    kind = StatusAddress()
    assert kind.read("127.0.0.1:9464", HERE) == Endpoint("127.0.0.1", 9464)
    socket = kind.read("unix:/run/gatewayd/status.sock", HERE)
    assert socket == UnixSocket(Path("/run/gatewayd/status.sock"))
    assert isinstance(socket, UnixSocket)
    assert socket.is_loopback
    assert kind.show(socket) == '"unix:/run/gatewayd/status.sock"'
    assert kind.read("unix:/" + "x" * 106, HERE)


@pytest.mark.parametrize(
    "written",
    ["unix:", "unix:status.sock", "unix:/run/", "unix:/a\0b", "unix:/" + "x" * 107, "9464", "name:9464", 1],
)
def test_a_socket_needs_an_absolute_path_that_fits(written: object) -> None:
    with pytest.raises(NotAllowed):
        StatusAddress().read(written, HERE)


def test_a_relative_path_starts_at_the_configuration_and_an_absolute_one_stands() -> None:
    assert File().read("tls/a.pem", HERE) == Path("/etc/gatewayd/tls/a.pem")
    assert File().read("/b.pem", HERE) == Path("/b.pem")


def test_a_credential_is_found_where_systemd_put_it() -> None:
    assert File().read("credential:devices.csv", HERE) == Path("/run/credentials/x/devices.csv")


@pytest.mark.parametrize("written", ["", "credential:", "credential:../x", "credential:..", "a\0b", 3])
def test_what_is_no_path_is_refused(written: object) -> None:
    with pytest.raises(NotAllowed):
        File().read(written, HERE)


@pytest.mark.parametrize(
    "kind",
    [
        Duration("1s", "2s"),
        Size("1B", "2B"),
        Whole(1, 2, "messages"),
        Fraction(0, 1),
        Choice(("a", "b")),
        Hostname(),
        Address(listens=True),
        File(),
    ],
    ids=lambda kind: type(kind).__name__,
)
def test_every_kind_says_what_is_allowed(kind: Kind) -> None:
    assert kind.allowed


def test_a_long_value_is_cut_short_in_the_refusal() -> None:
    with pytest.raises(NotAllowed) as refusal:
        Duration("1s", "2s").read("x" * 1000, HERE)
    assert len(str(refusal.value)) < 100


@pytest.mark.parametrize("written", ["http://proxy.local:3128", "HTTP://proxy.local:3128/"])
def test_a_proxy_is_a_host_and_a_port(written: str) -> None:
    kind = HttpProxy()
    endpoint = kind.read(written, HERE)
    assert endpoint == Endpoint("proxy.local", 3128)
    assert kind.show(endpoint) == '"http://proxy.local:3128"'
    assert kind.read("http://[2001:db8::1]:3128", HERE) == Endpoint("2001:db8::1", 3128)


@pytest.mark.parametrize(
    "written",
    [
        3128,
        "proxy:3128",
        "https://proxy:3128",
        "socks5://proxy:1080",
        "http://proxy",
        "http://",
        "http://p:1/path",
        "http://p:0",
    ],
)
def test_what_is_no_http_proxy_is_refused(written: object) -> None:
    with pytest.raises(NotAllowed):
        HttpProxy().read(written, HERE)


def test_a_password_in_a_proxys_url_is_not_repeated() -> None:
    with pytest.raises(NotAllowed, match=r"hub\.proxy_credentials") as caught:
        HttpProxy().read("http://gateway:hunter2@proxy:3128", HERE)
    assert "hunter2" not in str(caught.value)
