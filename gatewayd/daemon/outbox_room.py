"""The outbox inside the daemon: opened, told of, kept in step with the configuration, closed.

It joins the file (`store`), those who spill and drain (`flow.custody`) and those who want to know: log, metrics and
status. A file that cannot be opened ends the start, with the key that names it. One that was damaged is put aside,
what could be read of it is in the new one, and the daemon is called not ready until somebody has taken the damaged file
away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from gatewayd.clock import Clock
from gatewayd.daemon.config import Config
from gatewayd.daemon.fleet_facts import Concern
from gatewayd.daemon.status_words import QUARANTINED, health_remedy
from gatewayd.errors import ConfigError, ConfigProblem, StoreInUse, StoreTooNew, StoreUnusable
from gatewayd.flow.custody import Custody, CustodyPolicy
from gatewayd.flow.dispatch import Dispatch
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.flow.storing_rules import StoringRules
from gatewayd.message import DropReason, Identity
from gatewayd.metrics import Metrics
from gatewayd.store.damage import put_aside
from gatewayd.store.messages import Contents, Health, WhenFull
from gatewayd.store.store_thread import Store
from gatewayd.transport.deadline_wheel import DeadlineWheel

_LOG: Final = logging.getLogger(__name__)

_WORDS: Final = {
    Health.OK: "the outbox takes messages again",
    Health.AT_BOUND: "the outbox is at outbox.max_bytes: devices keep their messages until there is room",
    Health.DISK_FULL: "the disk of the outbox is full: devices keep their messages until there is room",
    Health.FAILING: "the disk of the outbox fails: devices keep their messages meanwhile",
    Health.CLOSED: "the outbox is closed",
}
# What is to be stored is gathered for so long: a commit of one message costs the CPU of twenty in one, and each commit
# wears the card. Devices whose hub is away have their receipts this much later.
GATHER_SECONDS: Final = 0.01
_UNREADY: Final = (Health.DISK_FULL, Health.FAILING)


def custody_policy(config: Config) -> CustodyPolicy:
    """The configuration's words as custody takes them."""
    outbox = config.outbox
    return CustodyPolicy(
        spill_after=outbox.spill_after,
        sends_per_second=config.hub.budget.sends_per_second,
        store_qos0=outbox.store_qos0,
        rules=StoringRules(outbox.rules, outbox.ttl),
    )


class OutboxRoom:
    """One daemon's. `max_bytes`, `messages`, `size` and `health` are what a page shows of it."""

    def __init__(
        self,
        config: Config,
        dispatch: Dispatch,
        hub_sessions: HubSessions,
        *,
        known: Callable[[Identity], bool],
        clock: Clock,
        clock_trusted: Callable[[], bool],
        wheel: DeadlineWheel,
        metrics: Metrics,
    ) -> None:
        """`known` says whether there is a key for an identity."""
        loop = asyncio.get_running_loop()
        self._path = config.outbox.path
        self.max_bytes = config.outbox.max_bytes
        self.when_full = WhenFull(config.outbox.when_full)
        self._dispatch = dispatch
        self._hub_sessions = hub_sessions
        self._known = known
        self._metrics = metrics
        self._damaged: Path | None = None
        self.store = Store(
            loop,
            self._path,
            max_bytes=self.max_bytes,
            when_full=self.when_full,
            wall=clock.wall,
            on_health=self._say_health,
            on_dropped=self._dropped,
            on_contents=self._contents_changed,
        )
        self.custody = Custody(
            dispatch,
            self.store,
            custody_policy(config),
            clock=clock,
            clock_trusted=clock_trusted,
            wheel=wheel,
            soon=partial(loop.call_later, GATHER_SECONDS),
            metrics=metrics,
        )
        dispatch.custody = self.custody
        metrics.outbox_messages.set_function(lambda: float(self.store.messages))
        metrics.outbox_bytes.set_function(lambda: float(self.store.size))
        metrics.outbox_max_bytes.set_function(lambda: float(self.max_bytes))
        for health in Health:
            metrics.outbox_state.labels(health.value).set_function(
                lambda health=health: float(self.store.health is health)  # type: ignore[misc]  # mypy cannot see the default argument's type
            )

    @property
    def messages(self) -> int:
        """Messages stored."""
        return self.store.messages

    @property
    def size(self) -> int:
        """Bytes that count against `max_bytes`."""
        return self.store.size

    @property
    def health(self) -> str:
        """What the outbox does, in one word."""
        return self.store.health.value

    async def open(self) -> Mapping[Identity, Mapping[str, int]]:
        """Open the file, take up what an earlier run left; the subscriptions it kept. Raises ConfigError."""
        try:
            contents = await self.store.open()
        except (StoreTooNew, StoreInUse, StoreUnusable) as error:
            raise ConfigError((ConfigProblem("outbox.path", str(error)),)) from error
        self._damaged = self._newest_damaged()  # of an earlier run, too: a restart takes no file away
        self._say_damage(contents)
        self._take_up(contents)
        if self.store.health is not Health.OK:
            self._say_health(self.store.health)
        return contents.subscriptions

    def retune(self, config: Config) -> None:
        """Put the keys of a reload in force."""
        self.max_bytes, self.when_full = config.outbox.max_bytes, WhenFull(config.outbox.when_full)
        self.store.retune(max_bytes=self.max_bytes, when_full=self.when_full)
        self.custody.retune(custody_policy(config))

    async def close(self, within: float) -> None:
        """Everything asked for is on disk first, unless the disk takes longer than `within` seconds.

        What it then has not taken has no receipt either. Its thread ends with the process.
        """
        try:
            async with asyncio.timeout(within):
                await self.store.close()
        except TimeoutError:
            _LOG.error("the disk of the outbox does not answer: gatewayd ends without it")

    def problems(self) -> Iterator[Concern]:
        """What keeps the daemon from being called ready."""
        if self.store.health in _UNREADY:
            yield Concern(_WORDS[self.store.health], health_remedy(self.health))
        if self._damaged is not None and not self._damaged.exists():
            self._damaged = self._newest_damaged()
        if self._damaged is not None:
            yield Concern(
                f"the outbox was damaged and begun anew; the damaged file is {self._damaged}", QUARANTINED
            )

    # Within

    def _newest_damaged(self) -> Path | None:
        return next(reversed(put_aside(self._path)), None)

    def _take_up(self, contents: Contents) -> None:
        strangers = 0
        for one in contents.backlog:
            if self._known(one.identity):
                self.custody.restore(one.identity, one.messages, one.top_priority)
                self._hub_sessions.backlog_found(one.identity)
            else:
                strangers += one.messages
        total = sum(one.messages for one in contents.backlog)
        if total:
            _LOG.info("the outbox holds %d messages of %d devices", total, len(contents.backlog))
        if strangers:
            _LOG.warning(
                "%d messages in the outbox belong to devices that devices.file does not list: they stay until it does, "
                "or until `gatewayd outbox purge`",
                strangers,
            )

    def _contents_changed(self, contents: Contents) -> None:
        self._say_damage(contents)
        self._take_up(contents)
        for one in contents.backlog:
            if (lane := self._dispatch.find(one.identity)) is not None:
                self._dispatch.pump(lane)

    def _say_damage(self, contents: Contents) -> None:
        if contents.quarantined is None:
            return
        self._damaged = contents.quarantined
        self._metrics.outbox_quarantines.inc()
        lost = "an unknown number" if contents.lost is None else str(contents.lost)
        _LOG.error(
            "the outbox %s was damaged: it is kept as %s, %d messages could be read and are in a new file, "
            "%s could not",
            self._path,
            contents.quarantined,
            contents.salvaged,
            lost,
        )

    def _say_health(self, health: Health) -> None:
        level = logging.INFO if health in (Health.OK, Health.CLOSED) else logging.ERROR
        _LOG.log(level, "%s", _WORDS[health], extra={"outbox": health.value})
        if health in (Health.OK, Health.AT_BOUND):
            self.custody.store_is_well()

    def _dropped(self, identity: Identity, messages: int, size: int, reason: DropReason) -> None:
        self.custody.dropped(identity, messages, size, reason)
        _LOG.debug(
            "stored messages were dropped",
            extra={"device_id": str(identity), "messages": messages, "reason": reason.value},
        )
