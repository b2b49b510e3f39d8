"""Starts, watches and ends the processes of the demo.

Every child leads a process group of its own, is tied to us (see tether), and is ended within a bound: first asked,
then killed with its group. A child that ends before it is told to is an error that names it and shows what it said
last. What a child prints is handed on line by line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

END_SECONDS = 15.0
KILL_SECONDS = 5.0
MAX_LINE_BYTES = 1 << 20
KEPT_LINES = 15

Line = Callable[[str], None]


class ChildFailed(Exception):
    """A child ended by itself, could not be started, or did not become ready."""

    def __init__(self, name: str, problem: str, last_words: Sequence[str] = ()) -> None:
        said = "".join(f"\n    {line}" for line in last_words)
        super().__init__(f"{name} {problem}{', it said last:' if said else ''}{said}")


class Child:
    """One running process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.may_end = False
        self.last_words: deque[str] = deque(maxlen=KEPT_LINES)
        self._process = process
        self._readers: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def read(self, on_stdout: Line | None, on_stderr: Line | None) -> None:
        """Take both outputs from now on. Standard error, and what nobody wants, is kept as last words."""
        for stream, line, kept in (
            (self._process.stdout, on_stdout, on_stdout is None),
            (self._process.stderr, on_stderr, True),
        ):
            assert stream is not None
            task = asyncio.create_task(self._read(stream, line, kept), name=f"{self.name} output")
            self._readers.append(task)

    async def tell(self, line: str) -> None:
        """One line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    def check(self) -> None:
        """ChildFailed when it has ended and was not to, or ended with an error."""
        code = self._process.returncode
        if code is not None and not (self.may_end and code == 0):
            raise ChildFailed(self.name, _ending(code), self.last_words)
        for reader in self._readers:
            if reader.done() and not reader.cancelled() and (error := reader.exception()):
                raise ChildFailed(self.name, f"said what is not understood: {error!r}", self.last_words)

    async def finished(self, within: float) -> None:
        """Wait for it to end by itself; ChildFailed when it does not, or ends with an error."""
        self.may_end = True
        try:
            async with asyncio.timeout(within):
                await self._process.wait()
                await asyncio.wait(self._readers)
        except TimeoutError:
            raise ChildFailed(self.name, f"did not end within {within:g} s", self.last_words) from None
        self.check()

    def kill(self) -> None:
        """End it at once, as a crash would; whoever looks next is told."""
        self._kill_group()

    async def end(self, within: float = END_SECONDS) -> bool:
        """End it and its group: ask, wait, kill. False when it had to be killed."""
        self.may_end = True
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        asked = await self._waited(within)
        self._kill_group()
        if not asked:
            await self._waited(KILL_SECONDS)
        if self._readers:
            await asyncio.wait(self._readers, timeout=KILL_SECONDS)
        for reader in self._readers:
            reader.cancel()
        return asked

    async def _waited(self, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def _kill_group(self) -> None:
        """Itself, and whatever it has started and left behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _read(self, stream: asyncio.StreamReader, line: Line | None, kept: bool) -> None:
        while True:
            try:
                raw = await stream.readline()
            except ValueError:
                continue  # longer than the bound: the stream has dropped it
            if not raw:
                return
            text = raw.decode(errors="replace").rstrip("\n")
            if kept:
                self.last_words.append(text)
            if line is not None:
                line(text)


class Children:
    """All processes of one run; leaving the block ends those that still live."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    async def __aenter__(self) -> Children:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        within = END_SECONDS if kind is None else KILL_SECONDS
        await asyncio.gather(*(child.end(within) for child in self._children))

    async def start(
        self, name: str, arguments: Sequence[str], *, stdout: Line | None = None, stderr: Line | None = None
    ) -> Child:
        """Start a Python program of ours: `arguments` is what follows `python -m`."""
        tether = ("-m", "gatewayd.demo.tether", str(os.getpid()))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *tether,
            sys.executable,
            "-m",
            *arguments,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )
        child = Child(name, process)
        self._children.append(child)
        child.read(stdout, stderr)
        return child

    def check(self) -> None:
        """ChildFailed when one of them has ended and was not to."""
        for child in self._children:
            child.check()


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
