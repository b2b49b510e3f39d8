"""One bounded thread for calls that would block the loop: DNS now, password hashing later.

asyncio's own executor starts up to 36 threads and queues without bound. Here there is one thread, one queue with a
bound, and at the bound the caller gets `Bounded` at once and decides. Lookups of a name that is being asked already
share that answer, so a fleet that reconnects while DNS is slow costs one lookup and one place in the queue; a lookup
that begins after the answer arrived asks anew.

A call that has begun cannot be interrupted: whoever stopped waiting for it is gone, the thread goes on. So `stop` is
bounded and the thread is a daemon thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from gatewayd.errors import Bounded, LocalProtocolError
from gatewayd.transport.addresses import AddressInfo, SocketAddress, from_getaddrinfo

THREAD_NAME = "gatewayd-worker"

P = ParamSpec("P")
T = TypeVar("T")

Lookup = Callable[[str, int], list[AddressInfo]]


def ask_resolver(host: str, port: int) -> list[AddressInfo]:
    """The system's resolver, for TCP. Blocks; raises socket.gaierror."""
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP))


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A call to make in the thread, and who waits for it."""

    work: Callable[[], Any]
    waiting: asyncio.Future[Any]


class Worker:
    """Runs blocking calls one after another in a thread of its own. Made and used on one loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, bound: int = 256, lookup: Lookup = ask_resolver
    ) -> None:
        self._loop = loop
        self._bound = bound
        self._lookup = lookup
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._unfinished: set[_Call] = set()  # queued or running
        self._lookups: dict[tuple[str, int], asyncio.Future[list[AddressInfo]]] = {}
        self._stopping = False
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True)
        self._thread.start()

    @property
    def unfinished(self) -> int:
        """Calls that are queued or running, also when nobody waits for them any more."""
        return len(self._unfinished)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work(*args)`, or what it raised. Raises Bounded when too many calls are unfinished."""
        return await self._submit(lambda: work(*args, **kwargs))

    async def resolve(self, host: str, port: int) -> tuple[SocketAddress, ...]:
        """The addresses of `host`, in the resolver's order. Raises socket.gaierror, Bounded.

        A numeric host needs no resolver and no thread.
        """
        with contextlib.suppress(ValueError):  # a name
            return (SocketAddress.numeric(host, port),)
        name = (host, port)
        asked = self._lookups.get(name)
        if asked is None:
            asked = self._submit(lambda: self._lookup(host, port))
            self._lookups[name] = asked
            asked.add_done_callback(lambda _: self._lookups.pop(name))
        # Shielded: one dial that gives up must not take the answer from the others.
        return from_getaddrinfo(await asyncio.shield(asked))

    async def stop(self, *, within: float = 1.0) -> bool:
        """Refuse the queued calls, wait for the running one. False when the thread did not end in time.

        A call that outlives `within` seconds keeps the thread; whoever waited for it has been refused.
        """
        if not self._stopping:
            self._stopping = True
            self._calls.put(None)
            for call in tuple(self._unfinished):
                if not call.waiting.done():
                    call.waiting.set_exception(Bounded("the worker stops"))
        try:
            async with asyncio.timeout(within):
                await self._ended.wait()
        except TimeoutError:
            return False
        self._thread.join()
        return True

    def _submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._stopping:
            raise LocalProtocolError("a call for a worker that was stopped")
        if len(self._unfinished) >= self._bound:
            raise Bounded(f"{len(self._unfinished)} blocking calls wait already; at most {self._bound} may")
        waiting: asyncio.Future[T] = self._loop.create_future()
        call = _Call(work, waiting)
        self._unfinished.add(call)
        self._calls.put(call)
        return waiting

    def _finished(self, call: _Call, result: object, error: Exception | None) -> None:
        self._unfinished.discard(call)
        if call.waiting.done():
            return
        if error is not None:
            call.waiting.set_exception(error)
        else:
            call.waiting.set_result(result)

    # In the thread

    def _serve(self) -> None:
        # A loop that is closed means that nobody waits any more; the thread goes too.
        with contextlib.suppress(RuntimeError):
            while (call := self._calls.get()) is not None:
                result, error = _make(call)
                self._loop.call_soon_threadsafe(self._finished, call, result, error)
            self._loop.call_soon_threadsafe(self._ended.set)


def _make(call: _Call) -> tuple[object, Exception | None]:
    if call.waiting.done():
        return None, None  # whoever waited has gone
    try:
        return call.work(), None
    except Exception as error:  # noqa: BLE001 - carried to whoever waits, whatever it is
        return None, error
