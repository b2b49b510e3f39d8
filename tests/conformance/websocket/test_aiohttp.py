"""WebSocket streams of ours and aiohttp, which others wrote, at either end."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tests.support.stream_owners import PATIENCE, Recorder
from tests.support.tls_material import HUB, Tls
from tests.support.websocket_rig import PATH, websocket_dialled, websockets_served


async def test_an_aiohttp_client_talks_to_our_server(tls: Tls) -> None:
    owner = Recorder(data=lambda it: it.s.write(bytes(it.data)), eof=lambda it: it.s.close())
    async with (
        websockets_served(tls.our_server(), lambda _: owner) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(
            f"https://127.0.0.1:{server.port}{PATH}?iothub-no-client-cert=true",
            ssl=tls.their_client(),
            server_hostname=HUB,
            protocols=("mqtt",),
            compress=15,
        ) as ws,
    ):
        assert ws.protocol == "mqtt"
        assert ws.compress == 0, "the offer of compression was declined"
        await ws.ping(b"aiohttp")
        await ws.send_bytes(b"hello")
        assert await ws.receive_bytes(timeout=PATIENCE) == b"hello"
        await ws.close()
        assert ws.close_code == 1000
        await owner.until_told("closed")
    assert owner.error is None


@asynccontextmanager
async def aiohttp_served(
    tls: Tls, serve: Callable[[web.WebSocketResponse], object], protocols: tuple[str, ...] = ("mqtt",)
) -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=protocols, compress=True)
        await ws.prepare(request)
        await serve(ws)  # type: ignore[misc]  # a coroutine function
        return ws

    app = web.Application()
    app.router.add_get(PATH, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.their_server())
    await site.start()
    assert site._server is not None
    try:
        yield site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


async def echo(ws: web.WebSocketResponse) -> None:
    async for message in ws:
        await ws.send_bytes(message.data)


async def test_our_client_talks_to_an_aiohttp_server(tls: Tls) -> None:
    owner = Recorder()
    data = random.Random(1).randbytes(200_000)
    async with aiohttp_served(tls, echo) as port:
        stream = await websocket_dialled(port, tls.our_client(), owner, target=f"{PATH}?x=y")
        assert owner.calls == ["ready"]
        stream.write(data)
        await owner.until(lambda it: len(it.data) == len(data))
        assert owner.data == data
        stream.finish()
        await owner.until_told("closed")
    assert owner.error is None


async def test_our_client_hears_an_aiohttp_server_close(tls: Tls) -> None:
    async def close(ws: web.WebSocketResponse) -> None:
        await ws.send_bytes(b"bye")
        await ws.close()

    owner = Recorder(eof=lambda it: it.s.close())
    async with aiohttp_served(tls, close) as port:
        await websocket_dialled(port, tls.our_client(), owner)
        await owner.until_told("closed")
    assert owner.data == b"bye"
    assert (owner.calls[-2:], owner.error) == (["eof", "closed"], None)
