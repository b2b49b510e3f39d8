"""What the kernel answers a running process, changed from outside with strace(1): the daemon knows nothing of it.

    async with inject(daemon.pid, "fdatasync:error=EIO"):
        ...

An injection is strace's own word for it: `call:signal=SIGKILL:when=7`, `call:error=EIO`, `call:delay_enter=300000`.
All threads are meant, those that start later too. At the end of the block the process goes on as before, if it lives.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

ATTACH_SECONDS = 10.0
END_SECONDS = 10.0


def can_inject() -> bool:
    """strace is installed, and this user may trace (a container's may not)."""
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(
        ["strace", "-o", "/dev/null", "true"], check=False, capture_output=True, timeout=10
    )
    return tried.returncode == 0


needs_strace = pytest.mark.skipif(not can_inject(), reason="needs strace, and the right to trace")


@asynccontextmanager
async def inject(pid: int, *injections: str) -> AsyncIterator[None]:
    """Have these in force while the block runs."""
    arguments = [f"--inject={injection}" for injection in injections]
    calls = ",".join(injection.partition(":")[0] for injection in injections)
    strace = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-p", str(pid), f"--trace={calls}", *arguments, "-o", "/dev/null"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert strace.stderr is not None
    try:
        async with asyncio.timeout(ATTACH_SECONDS):
            said = await strace.stderr.readline()
        assert b"attached" in said, said.decode()
        yield
    finally:
        if strace.returncode is None:
            strace.send_signal(signal.SIGINT)  # lets go of the process
        try:
            async with asyncio.timeout(END_SECONDS):
                await strace.communicate()
        except TimeoutError:
            strace.kill()
            await strace.wait()
