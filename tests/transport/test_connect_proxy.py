"""CONNECT through a proxy, good and bad, and what is said of the bad ones."""

from __future__ import annotations

import asyncio
import base64

import pytest

from gatewayd.errors import DialFailed
from gatewayd.transport.connect_proxy import MAX_HEAD_BYTES, Tunnel
from tests.support.proxy_rig import ProxyRig, proxy_rig
from tests.support.stream_owners import Recorder, dialled, settle, stdlib_server
from tests.support.tls_material import HUB, Tls

SECRET = base64.b64encode(b"gateway:hunter2").decode()
AUTHORIZATION = f"Basic {SECRET}".encode()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def refusal(
    tls: Tls, proxy: ProxyRig, authorization: bytes | None = None, within: float = 5.0
) -> DialFailed:
    owner = Recorder()
    with pytest.raises(DialFailed) as caught:
        await dialled(
            proxy.port,
            tls.our_client(),
            owner,
            tunnel=Tunnel(HUB, 8883, authorization),
            connect_timeout=within,
        )
    await settle()
    assert owner.calls == [], "an owner of a failed dial hears nothing"
    assert SECRET not in str(caught.value), "no credential in a message"
    return caught.value


async def test_tls_runs_inside_the_tunnel_with_the_hubs_name_checked(tls: Tls) -> None:
    owner = Recorder()
    async with stdlib_server(tls.their_server(), echo) as port, proxy_rig() as proxy:
        await dialled(proxy.port, tls.our_client(), owner, tunnel=Tunnel("127.0.0.1", port))
        owner.s.write(b"through")
        await owner.until(lambda it: it.data == b"through")
        assert proxy.requests == [
            f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        ]
        owner.s.close()
        await owner.until_told("closed")


async def test_a_proxy_that_leads_to_somebody_else_is_found_out_by_tls(tls: Tls) -> None:
    async with (
        stdlib_server(tls.their_server(), echo) as port,
        proxy_rig(route=("127.0.0.1", port)) as proxy,
    ):
        with pytest.raises(DialFailed, match=r"not for other\.example") as caught:
            await dialled(
                proxy.port, tls.our_client(), Recorder(), "other.example", tunnel=Tunnel("other.example", 443)
            )
    assert caught.value.stage == "handshake"


async def test_credentials_are_shown_to_a_proxy_that_wants_them(tls: Tls) -> None:
    owner = Recorder()
    async with stdlib_server(tls.their_server(), echo) as port, proxy_rig(credentials=SECRET) as proxy:
        await dialled(proxy.port, tls.our_client(), owner, tunnel=Tunnel("127.0.0.1", port, AUTHORIZATION))
        owner.s.close()
        await owner.until_told("closed")


def test_a_tunnel_does_not_show_its_credentials() -> None:
    assert SECRET not in repr(Tunnel(HUB, 443, AUTHORIZATION))


async def test_a_literal_ipv6_target_stands_in_brackets() -> None:
    assert Tunnel("2001:db8::1", 443).target == "[2001:db8::1]:443"


async def test_407_without_credentials_says_to_set_them(tls: Tls) -> None:
    async with proxy_rig(credentials=SECRET) as proxy:
        error = await refusal(tls, proxy)
    assert error.stage == "proxy"
    assert error.problem == (
        "CONNECT was refused with 407: it wants a user and a password; set hub.proxy_credentials"
    )


async def test_407_in_spite_of_credentials_blames_them(tls: Tls) -> None:
    async with proxy_rig(refuse=407) as proxy:
        error = await refusal(tls, proxy, AUTHORIZATION)
    assert "does not accept the user and password in hub.proxy_credentials" in error.problem


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "whoever runs the proxy must act"),
        (403, f"its rules forbid {HUB}:8883"),
        (405, "does not allow CONNECT"),
        (502, f"cannot reach {HUB}:8883"),
        (504, "did not answer it in time"),
        (599, "cannot serve now"),
    ],
)
async def test_a_refusal_says_its_status_and_who_must_act(tls: Tls, status: int, words: str) -> None:
    async with proxy_rig(refuse=status) as proxy:
        error = await refusal(tls, proxy, AUTHORIZATION)
    assert error.stage == "proxy"
    assert f"refused with {status}: " in error.problem
    assert words in error.problem


async def test_a_silent_proxy_costs_its_deadline(tls: Tls) -> None:
    async with proxy_rig(silent=True) as proxy:
        error = await refusal(tls, proxy, within=0.1)
    assert (error.stage, error.problem) == ("proxy", "it did not answer CONNECT within 0.1 s")


async def test_a_proxy_that_drips_its_answer_costs_the_same(tls: Tls) -> None:
    async with stdlib_server(tls.their_server(), echo) as port:
        async with proxy_rig(pause=0.02, route=("127.0.0.1", port)) as proxy:
            error = await refusal(tls, proxy, within=0.2)
        assert "did not answer CONNECT within" in error.problem


async def test_a_slow_answer_in_time_is_an_answer(tls: Tls) -> None:
    owner = Recorder()
    async with stdlib_server(tls.their_server(), echo) as port, proxy_rig(pause=0.001) as proxy:
        await dialled(proxy.port, tls.our_client(), owner, tunnel=Tunnel("127.0.0.1", port))
        owner.s.close()
        await owner.until_told("closed")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * MAX_HEAD_BYTES,
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nand more",
    ],
    ids=["huge head", "not HTTP", "more than an answer"],
)
async def test_what_is_no_answer_is_said_to_be_none(tls: Tls, answer: bytes) -> None:
    async with proxy_rig(answer=answer) as proxy:
        error = await refusal(tls, proxy)
    assert error.stage == "proxy"
    assert "is it an HTTP proxy?" in error.problem


async def test_what_a_proxy_repeats_is_not_quoted(tls: Tls) -> None:
    async with proxy_rig(answer=f"{SECRET}\r\n\r\n".encode()) as proxy:
        error = await refusal(tls, proxy, AUTHORIZATION)
    assert error.__suppress_context__


async def test_a_proxy_that_hangs_up_is_said_to(tls: Tls) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with stdlib_server(None, hang_up) as port:
        error = await refusal(tls, ProxyRig(port=port))
    assert error.problem == "it closed the connection instead of answering CONNECT"


async def test_a_proxy_that_resets_is_said_to(tls: Tls) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with stdlib_server(None, reset) as port:
        error = await refusal(tls, ProxyRig(port=port))
    assert error.stage == "proxy"
    assert error.problem.startswith(("the connection to it broke: ", "it closed the connection"))


async def test_a_dial_cancelled_at_the_proxy_leaves_no_connection(tls: Tls) -> None:
    async with proxy_rig(silent=True) as proxy:
        dial = asyncio.create_task(
            dialled(proxy.port, tls.our_client(), Recorder(), tunnel=Tunnel(HUB, 8883))
        )
        await proxy.until(lambda it: bool(it.requests))
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
        await proxy.until(lambda it: it.open == 0)
