"""How a WebSocket begins: asked for by us, or at our door; and everything that can prevent it, in words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from gatewayd.errors import DialFailed
from gatewayd.transport.stream import Stream
from gatewayd.transport.websocket_transport import WebSocketDoor, open_websocket
from tests.support.stream_owners import PATIENCE, Recorder, serving, settle, stdlib_server
from tests.support.tls_material import HUB, Tls
from tests.support.websocket_rig import HandWebSocket, websocket_dialled, websockets_served


def answering(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()

    return serve


async def failure(tls: Tls, port: int, **options: object) -> DialFailed:
    owner = Recorder()
    with pytest.raises(DialFailed) as caught:
        await websocket_dialled(port, tls.our_client(), owner, **options)
    await settle()
    assert owner.calls == [], "an owner of a failed dial hears nothing"
    return caught.value


async def test_a_hub_without_a_websocket_there_is_said_to_have_none(tls: Tls) -> None:
    async with stdlib_server(
        tls.their_server(), answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    ) as port:
        error = await failure(tls, port)
    assert error.stage == "upgrade"
    assert "404" in error.problem


async def test_a_hub_that_is_no_web_server_is_said_to_be_none(tls: Tls) -> None:
    async with stdlib_server(tls.their_server(), answering(b"\x20\x02\x00\x00\r\n\r\n")) as port:
        error = await failure(tls, port)
    assert error.stage == "upgrade"
    assert "Bad HTTP message" in error.problem


async def test_a_hub_that_does_not_answer_the_upgrade_costs_its_deadline(tls: Tls) -> None:
    async with stdlib_server(tls.their_server(), answering(b"")) as port:
        error = await failure(tls, port, upgrade_timeout=0.1)
    assert (error.stage, error.problem) == ("upgrade", "the upgrade was not answered in time")


async def test_what_the_connection_fails_with_is_told_as_it_is(tls: Tls) -> None:
    async with stdlib_server(None, answering(b"")) as port:
        error = await failure(tls, port, handshake_timeout=0.1)
    assert error.stage == "handshake"


async def test_a_dial_cancelled_in_the_upgrade_leaves_no_connection(tls: Tls) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        try:
            await reader.read()
        finally:
            left.set()

    owner = Recorder()
    async with stdlib_server(tls.their_server(), wait) as port:
        dial = asyncio.create_task(websocket_dialled(port, tls.our_client(), owner))
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
            dial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dial
            await left.wait()
    assert owner.calls == []


async def test_a_dial_cancelled_while_it_connects_leaves_nothing(tls: Tls) -> None:
    async def never(_owner: object) -> None:
        await asyncio.Event().wait()

    owner = Recorder()
    dial = asyncio.create_task(open_websocket(never, HUB, owner, upgrade_timeout=PATIENCE))
    await settle()
    dial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dial
    assert owner.calls == []


# The door


async def test_who_is_in_the_doorway_is_counted_until_through(tls: Tls) -> None:
    owner = Recorder()
    door = WebSocketDoor(asyncio.get_running_loop(), lambda _: owner, upgrade_timeout=PATIENCE)
    async with serving(tls.our_server(), door) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=tls.their_client(), server_hostname=HUB
        )
        async with asyncio.timeout(PATIENCE):
            while not len(door):  # noqa: ASYNC110  # nothing tells it but the number itself
                await asyncio.sleep(0)
        hand = await HandWebSocket.connect(server.port, tls.their_client())
        await owner.until_told("ready")
        assert len(door) == 1
        door.close()
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(PATIENCE):
                await reader.read()
        assert len(door) == 0
        assert not owner.is_closed, "who is through stays"
        writer.close()
        owner.s.abort()
        await owner.until_told("closed")
        await hand.leave()


async def test_giving_up_the_doorway_is_no_refusal(tls: Tls) -> None:
    refused: list[object] = []
    door = WebSocketDoor(
        asyncio.get_running_loop(),
        lambda _: Recorder(),
        upgrade_timeout=PATIENCE,
        on_refused=lambda _, error: refused.append(error),
    )
    stream = door(cast(Stream, None))  # nothing was said to it yet
    assert len(door) == 1
    door.close()
    stream.stream_closed(None)
    assert (len(door), refused) == (0, [])


async def test_devices_meet_the_owner_factory_after_the_upgrade(tls: Tls) -> None:
    owner = Recorder()
    async with websockets_served(tls.our_server(), lambda _: owner) as server:
        hand = await HandWebSocket.connect(server.port, tls.their_client())
        assert hand.status == 101
        await owner.until_told("ready")
        owner.s.abort()
        await owner.until_told("closed")
        await hand.leave()
