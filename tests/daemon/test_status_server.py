"""The status server over real sockets: scrapers cannot hold anything up, and a socket file lets in whom it should."""

from __future__ import annotations

import asyncio
import socket
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gatewayd.daemon.config_values import UnixSocket
from gatewayd.daemon.fleet_facts import Concern
from gatewayd.daemon.status_server import MAX_CONNECTIONS
from tests.support.fleet_shown import GOOD
from tests.support.status_rig import StatusRig, status_rig


async def test_one_connection_too_many_is_told_so_and_the_others_are_served() -> None:
    async with status_rig(max_connections=3) as rig:
        held = [await rig.connect() for _ in range(3)]
        assert (await rig.ask("/livez")).status == 503
        assert rig.server.refused == 1
        reader, writer = held[0]
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()
            await writer.wait_closed()


async def test_a_place_is_free_again_when_a_connection_ends() -> None:
    async with status_rig(max_connections=1) as rig:
        for _ in range(5):
            assert (await rig.ask("/livez")).status == 200


async def test_a_burst_of_connections_stays_within_the_bound() -> None:
    async with status_rig() as rig:
        server = rig.server
        connections = await asyncio.gather(*(rig.connect() for _ in range(4 * MAX_CONNECTIONS)))
        for _ in range(500):
            if server.refused == 3 * MAX_CONNECTIONS:
                break
            await asyncio.sleep(0.01)
        assert server.open_connections == MAX_CONNECTIONS
        answers = await asyncio.gather(*(answer_on(*connection) for connection in connections))
        assert sum(answer.startswith(b"HTTP/1.1 200") for answer in answers) == MAX_CONNECTIONS
        assert any(answer.startswith(b"HTTP/1.1 503") for answer in answers)
        assert b"" in answers, "beyond the bound on refusals nothing is said"
        assert (await rig.ask("/livez")).status == 200


async def answer_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What a connection answers to a probe; nothing when it is reset."""
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


async def test_a_connection_that_asks_nothing_is_cut() -> None:
    async with status_rig(connection_seconds=0.2) as rig:
        reader, writer = await rig.connect()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()


async def test_a_scraper_that_does_not_read_is_cut_and_the_loop_goes_on_meanwhile() -> None:
    async with status_rig(connection_seconds=1.0) as rig:
        rig.facts = replace(GOOD, concerns=(Concern("x" * 1_000_000, ""),) * 20)
        loop = asyncio.get_running_loop()
        _, writer = await rig.connect()
        # More than the buffers of both ends hold, so the answer is stuck for as long as the server allows.
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        await rig.ask("/livez")
        turns, lag = 0, 0.0
        async with asyncio.timeout(5):
            while rig.server.open_connections:
                before = loop.time()
                await asyncio.sleep(0.01)
                turns, lag = turns + 1, max(lag, loop.time() - before)
        assert turns > 20, "the scraper was not stuck, so nothing was tested"
        assert lag < 0.5
        writer.transport.abort()


async def test_no_thread_is_started() -> None:
    before = threading.active_count()
    async with status_rig() as rig:
        for path in ("/", "/metrics", "/livez", "/readyz"):
            await rig.ask(path)
        assert threading.active_count() == before


async def test_an_address_in_use_is_an_error_at_start() -> None:
    async with status_rig() as rig:
        second = StatusRig()
        with pytest.raises(OSError, match="in use"):
            await second.start(rig.address)
        await second.server.close()


async def test_closing_ends_what_is_open() -> None:
    async with status_rig() as rig:
        reader, writer = await rig.connect()
        await asyncio.wait_for(rig.server.close(), 5)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        with pytest.raises(OSError, match=r".*"):
            await rig.connect()


# A socket in the file system


async def test_a_socket_file_is_served_and_lets_in_its_group_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "status.sock"
    async with status_rig(UnixSocket(path)) as rig:
        assert (await rig.ask("/livez")).status == 200
        assert (await rig.ask("/", host="status.example")).status == 200, "no name can be pointed at a file"
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
    assert not path.exists()


async def test_what_a_killed_run_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "status.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with status_rig(UnixSocket(path)) as rig:
        assert (await rig.ask("/livez")).status == 200


async def test_a_socket_file_that_is_served_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "status.sock"
    async with status_rig(UnixSocket(path)) as rig:
        second = StatusRig()
        with pytest.raises(OSError, match="in use"):
            await second.start(UnixSocket(path))
        await second.server.close()
        assert (await rig.ask("/livez")).status == 200


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "status.sock"
    path.write_text("somebody's")
    rig = StatusRig()
    with pytest.raises(OSError, match="is no socket"):
        await rig.start(UnixSocket(path))
    await rig.server.close()
    assert path.read_text() == "somebody's"


async def test_the_socket_of_a_run_that_took_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "status.sock"
    first = StatusRig()
    await first.start(UnixSocket(path))
    path.rename(tmp_path / "moved.sock")
    async with status_rig(UnixSocket(path)) as second:
        await first.server.close()
        assert (await second.ask("/livez")).status == 200


async def test_a_folder_that_is_not_there_is_an_error_at_start(tmp_path: Path) -> None:
    rig = StatusRig()
    with pytest.raises(FileNotFoundError):
        await rig.start(UnixSocket(tmp_path / "absent" / "status.sock"))
    await rig.server.close()
