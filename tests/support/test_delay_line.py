"""The line itself: what it delays, swallows, cuts and resets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.delay_line import Cut, DelayLine
from tests.support.stream_owners import PATIENCE, shut, stdlib_server


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"end")
        await writer.drain()

    async with stdlib_server(None, echo) as port:
        yield port


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> float:
    """Seconds until the echo of `data` is here."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    writer.write(data)
    async with asyncio.timeout(PATIENCE):
        assert await reader.readexactly(len(data)) == data
    return loop.time() - start


async def test_a_round_trip_takes_twice_the_one_way_and_the_setting_can_change(echo_port: int) -> None:
    async with await DelayLine.open(echo_port, one_way=0.03) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        assert await ask(reader, writer, b"ping") >= 0.06
        line.one_way = 0.0
        quick = [await ask(reader, writer, b"ping") for _ in range(5)]
        assert min(quick) < 0.03
        line.flows[0].one_way = 0.02
        assert await ask(reader, writer, b"ping") >= 0.04
        await shut(writer)


async def test_order_is_kept_when_the_delay_shrinks(echo_port: int) -> None:
    async with await DelayLine.open(echo_port, one_way=0.03) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"slow ")
        await asyncio.sleep(0.005)
        line.one_way = 0.0
        writer.write(b"quick")
        async with asyncio.timeout(PATIENCE):
            assert await reader.readexactly(10) == b"slow quick"
        await shut(writer)


async def test_fins_pass_one_by_one_and_behind_the_data(echo_port: int) -> None:
    async with await DelayLine.open(echo_port, one_way=0.01) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"ping")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b"pingend"
        await shut(writer)


async def test_a_blackhole_swallows_and_says_nothing(echo_port: int) -> None:
    async with await DelayLine.open(echo_port) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        assert await ask(reader, writer, b"ping") < PATIENCE
        line.blackhole = True
        writer.write(b"lost")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await reader.read(1)
        await shut(writer)


@pytest.mark.parametrize("towards", ["target", "client"])
async def test_a_cut_by_fin_lets_exactly_so_many_bytes_through(echo_port: int, towards: str) -> None:
    async with await DelayLine.open(echo_port) as line:
        cut = Cut(after=6, by_reset=False)
        if towards == "target":
            line.cut_to_target = cut
        else:
            line.cut_to_client = cut
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"0123456789")
        async with asyncio.timeout(PATIENCE):
            got = await reader.read()
        assert got == (b"012345" if towards == "client" else b"")
        await shut(writer)


async def test_a_reset_reaches_both_ends_also_one_that_is_not_connected_yet() -> None:
    broken: list[type[BaseException]] = []
    told = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError as error:
            broken.append(type(error))
        told.set()

    async with stdlib_server(None, wait) as port, await DelayLine.open(port) as line:
        line.cut_to_target = Cut(after=1)
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        async with asyncio.timeout(PATIENCE):
            await told.wait()
        assert broken == [ConnectionResetError]
        await shut(writer)


async def test_a_target_that_is_not_there_resets_the_client() -> None:
    async with stdlib_server(None, lambda reader, writer: asyncio.sleep(0)) as port:
        pass
    async with await DelayLine.open(port) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await shut(writer)


async def test_a_receiver_that_does_not_read_stops_the_sender(echo_port: int) -> None:
    async with await DelayLine.open(echo_port) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        payload = bytes(30_000_000)
        writer.write(payload)
        for _ in range(300):
            await asyncio.sleep(0)
        assert writer.transport.get_write_buffer_size() > 1_000_000
        async with asyncio.timeout(PATIENCE):
            assert len(await reader.readexactly(len(payload))) == len(payload)
        await shut(writer)
