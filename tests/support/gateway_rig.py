"""The whole daemon in this process: a `Gateway` with all its rooms, an emulated hub, and a clock that can be set.

async with gateway_rig(tmp_path, "dev-01") as rig:
    device = await RawDevice.connect(rig.site, "dev-01")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatewayd.clock import SystemClock
from gatewayd.daemon.assembly import Gateway
from gatewayd.daemon.config import Config
from gatewayd.daemon.config_load import load_config
from gatewayd.daemon.reload import Change, changes_between
from tests.support.emulated_hub import DeskHub, emulated_hub
from tests.support.gateway_files import GatewaySite

WITHIN_SECONDS = 10.0


class SetClock(SystemClock):
    """The machine's clock, with a wall clock that is wrong by `shift` seconds."""

    __slots__ = ("shift",)

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def wall(self) -> float:
        return super().wall() + self.shift


@dataclass(frozen=True, slots=True)
class GatewayRig:
    """The daemon and what is around it."""

    gateway: Gateway
    site: GatewaySite
    hub: DeskHub
    clock: SetClock

    def load(self) -> Config:
        """The configuration as the file has it now."""
        return load_config(self.site.toml, {})

    def apply(self, config: Config) -> tuple[Change, ...]:
        """What a reload does with a configuration that was judged good."""
        changes = changes_between(self.gateway.config, config)
        self.gateway.apply(config, changes)
        return changes

    async def until(self, condition: Callable[[], bool], within: float = WITHIN_SECONDS) -> None:
        """Until something in the daemon became so, which nothing tells."""
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.01)


@asynccontextmanager
async def gateway_rig(
    folder: Path,
    *names: str,
    hub: DeskHub | None = None,
    clock: SetClock | None = None,
    start: bool = True,
    **lines: Any,
) -> AsyncIterator[GatewayRig]:
    """Up to a started daemon, at a hub of its own or at `hub`. It is drained at the end when the test has not done so.

    `lines`: of the configuration.
    """
    clock = clock or SetClock()
    async with AsyncExitStack() as around, asyncio.TaskGroup() as tasks:
        at = hub if hub is not None else await around.enter_async_context(emulated_hub(*names))
        site = GatewaySite.make(folder, at, names, **lines)

        def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            return tasks.create_task(work, name=name)

        gateway = Gateway(load_config(site.toml, {}), devices=len(names), clock=clock, spawn=spawn)
        rig = GatewayRig(gateway, site, at, clock)
        try:
            if start:
                await gateway.start()
            yield rig
        finally:
            if start and not gateway.status.stopping:
                await gateway.drain()
