"""A TCP line with faults, on loopback: delay, silence, reset, a cut after so many bytes.

`DelayLine.open(port)` listens on a port of its own and carries each connection to `port`. Bytes and FINs of a flow keep
their order and arrive `one_way` seconds after they came in. TCP's own handshake is made with the line itself and
is not delayed; a test of a round trip must start counting after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import cast

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Cut:
    """After `after` bytes of one direction the flow ends: by RST, or by FIN to both ends."""

    after: int
    by_reset: bool = True


class _End(asyncio.Protocol):
    """One end of a flow: reads into the line, writes what comes out of it."""

    def __init__(self, flow: Flow, *, towards_target: bool) -> None:
        self.flow = flow
        self.towards_target = towards_target
        self.transport: asyncio.Transport | None = None
        self.queue: deque[tuple[float, bytes]] = deque()  # (due, data); b"" is FIN
        self.timer: asyncio.TimerHandle | None = None
        self.other: _End | None = None
        self.carried = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.flow.is_reset:
            self.reset()

    def data_received(self, data: bytes) -> None:
        self.flow.arrived(self, data)

    def eof_received(self) -> bool:
        self.flow.arrived(self, b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.flow.reset()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def reset(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.transport is not None and not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        if self.transport.is_closing():
            return
        if data:
            self.transport.write(data)
        else:
            with contextlib.suppress(OSError):  # it was reset meanwhile; its next read finds that
                self.transport.write_eof()


class Flow:
    """One connection through the line. `one_way` None means: as the line says."""

    def __init__(self, line: DelayLine) -> None:
        self.line = line
        self.one_way: float | None = None
        self.blackhole = False
        self.is_reset = False
        self.client = _End(self, towards_target=True)
        self.target = _End(self, towards_target=False)
        self.client.other, self.target.other = self.target, self.client
        self._loop = asyncio.get_running_loop()
        self._fins = 0

    def arrived(self, end: _End, data: bytes) -> None:
        line = self.line
        cut = line.cut_to_target if end.towards_target else line.cut_to_client
        if self.blackhole or line.blackhole:
            return
        if cut is not None and end.carried + len(data) >= cut.after:
            data = data[: max(0, cut.after - end.carried)]
            end.carried += len(data)
            if cut.by_reset:
                self.reset()
            else:
                self._pass_on(end, data)
                self._pass_on(end, b"")
                assert end.other is not None
                self._pass_on(end.other, b"")
            return
        end.carried += len(data)
        self._pass_on(end, data)

    def reset(self) -> None:
        """RST to both ends; an end that is not connected yet gets it when it is."""
        self.is_reset = True
        self.client.reset()
        self.target.reset()

    def _pass_on(self, end: _End, data: bytes) -> None:
        delay = self.line.one_way if self.one_way is None else self.one_way
        due = self._loop.time() + delay
        if end.queue:
            due = max(due, end.queue[-1][0])
        end.queue.append((due, data))
        if end.timer is None:
            end.timer = self._loop.call_at(due, self._deliver, end)

    def _deliver(self, end: _End) -> None:
        end.timer = None
        other = end.other
        assert other is not None
        if other.transport is None:  # the target has not answered yet
            end.timer = self._loop.call_later(0.001, self._deliver, end)
            return
        now = self._loop.time()
        while end.queue and end.queue[0][0] <= now:
            _, data = end.queue.popleft()
            other.write(data)
            if not data:
                self._fin_delivered()
        if end.queue:
            end.timer = self._loop.call_at(end.queue[0][0], self._deliver, end)

    def _fin_delivered(self) -> None:
        self._fins += 1
        if self._fins == 2:
            for end in (self.client, self.target):
                if end.transport is not None:
                    end.transport.close()


class DelayLine:
    """The line: its settings hold for bytes that come in from now on."""

    def __init__(self, target_port: int, one_way: float) -> None:
        self.one_way = one_way
        self.blackhole = False  # swallow everything, say nothing
        self.cut_to_target: Cut | None = None
        self.cut_to_client: Cut | None = None
        self.flows: list[Flow] = []
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, target_port: int, *, one_way: float = 0.0) -> DelayLine:
        line = cls(target_port, one_way)
        line._server = await asyncio.get_running_loop().create_server(line._accepted, "127.0.0.1", 0)
        line.port = line._server.sockets[0].getsockname()[1]
        return line

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for flow in self.flows:
            flow.reset()
        for task in tuple(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await self._server.wait_closed()

    async def __aenter__(self) -> DelayLine:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def reset(self) -> None:
        """RST to both ends of every flow."""
        for flow in self.flows:
            flow.reset()

    def _accepted(self) -> _End:
        flow = Flow(self)
        self.flows.append(flow)
        task = asyncio.get_running_loop().create_task(self._reach_target(flow), name="delay line")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return flow.client

    async def _reach_target(self, flow: Flow) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: flow.target, "127.0.0.1", self._target_port)
        except OSError:
            flow.reset()
