"""Builds the daemon from its configuration. The only place that names concrete classes across rooms.

Order: keys, hub side, device side, status. `start` binds sockets and may fail; `drain` ends everything in order:
nobody new, receipts that are due, devices, hub sessions (DISCONNECT first), status. Nothing here decides anything
about tokens or messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry

from gatewayd.clock import Clock, ClockWatch
from gatewayd.daemon.certificate_facts import certificate_facts
from gatewayd.daemon.clock_floor import SAVE_SECONDS, read_floor, save_floor
from gatewayd.daemon.config import Config
from gatewayd.daemon.config_values import Endpoint, UnixSocket
from gatewayd.daemon.heartbeat import Heartbeat
from gatewayd.daemon.hub_dialer import make_dialer
from gatewayd.daemon.keyring import Keyring
from gatewayd.daemon.outbox_room import OutboxRoom
from gatewayd.daemon.progress import Progress
from gatewayd.daemon.reload import Change
from gatewayd.daemon.status import DaemonStatus
from gatewayd.daemon.status_access import StatusAccess
from gatewayd.daemon.status_answers import StatusAnswers, StatusSources
from gatewayd.daemon.status_server import StatusServer
from gatewayd.daemon.status_token import read_token
from gatewayd.daemon.tuning import (
    TWIN_TIMEOUT_SECONDS,
    VERSION,
    dial_deadlines,
    lane_bounds,
    listener_policy,
    mqtt_settings,
    session_policy,
)
from gatewayd.downstream.admission import Admission, HeldBecause
from gatewayd.downstream.listener import Listener
from gatewayd.downstream.token_verifier import KeyTableVerifier
from gatewayd.errors import ConfigError, ConfigProblem
from gatewayd.flow.dispatch import Dispatch
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.flow.hub_tokens import HubTokens
from gatewayd.flow.intake import Intake
from gatewayd.flow.methods import Methods
from gatewayd.flow.renewal import Renewal
from gatewayd.flow.subscriptions import Subscriptions
from gatewayd.flow.twin_cache import TwinCache, forget_twins
from gatewayd.flow.twins import Twins
from gatewayd.flow.way_back import WayBack
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.tokens.renewal_timetable import RenewalTimetable
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.transport.tls_contexts import server_context
from gatewayd.transport.worker import Worker
from gatewayd.upstream.budget import ConnectBudget
from gatewayd.upstream.mqtt_link import Carrier
from gatewayd.upstream.session import HubSession, State

_LOG: Final = logging.getLogger(__name__)

# Of the time a stop may take: how much for receipts from the hub, for storing what it did not take (and as much again
# for closing the outbox), and for closing devices. The hub sessions have the rest.
RECEIPTS_SHARE: Final = 0.3
STORE_SHARE: Final = 0.1
DEVICES_SHARE: Final = 0.2
_STEP_SECONDS: Final = 0.02


class Gateway:
    """One daemon: made on its event loop, started once, drained once."""

    def __init__(
        self,
        config: Config,
        *,
        devices: int,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        keys_are_guarded: bool = False,
    ) -> None:
        """`keys_are_guarded`: the service manager guards the device file, so its mode says nothing."""
        loop = asyncio.get_running_loop()
        self.config = config
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.progress = Progress()
        self._clock = clock
        self._keys_are_guarded = keys_are_guarded
        self._floor_saved = clock.wall()
        watch = ClockWatch(clock, floor=read_floor(config.clock.floor_file))
        self._watch = watch
        wheel = DeadlineWheel(loop.time, loop.call_at)

        self.keyring = Keyring(config.hub.hostname, capacity=2 * devices)
        tokens = config.tokens
        self._tokens = HubTokens(
            self.keyring.signer,
            self.keyring.by_identity,
            clock,
            lambda: watch.trusted,
            tokens.lifetime,
            self.metrics,
        )
        self._budget: ConnectBudget[HubSession[Identity]] = ConnectBudget(
            config.hub.budget.connects_per_second
        )
        self.conductor: Renewal[Identity] = Renewal(
            timetable=RenewalTimetable(tokens.renew_earliest, tokens.renew_latest),
            budget=self._budget,
            lifetime=tokens.lifetime,
            uniform=random.Random().uniform,  # noqa: S311 - spreads retries, guards nothing
            policy=session_policy(config),
            trusted=watch.trusted,
        )
        self._worker = Worker(loop)
        self._dialer = make_dialer(loop, config, self._worker)
        self._carrier = Carrier(
            self._dialer, wheel, clock, lambda: watch.trusted, spawn, mqtt_settings(config)
        )
        self.dispatch = Dispatch(lane_bounds(config), self.metrics, clock.monotonic)
        self.hub_sessions = HubSessions(
            self.conductor,
            self.dispatch,
            self._tokens,
            self._carrier,
            clock,
            wheel,
            self.metrics,
            linger=config.hub.session.linger,
        )
        self.outbox = OutboxRoom(
            config,
            self.dispatch,
            self.hub_sessions,
            known=self.keyring.by_identity.__contains__,
            clock=clock,
            clock_trusted=lambda: watch.trusted,
            wheel=wheel,
            metrics=self.metrics,
        )
        kept = config.devices.twin_cache
        self._twin_cache = TwinCache(self.outbox.store, clock, wheel) if kept else None
        self.way_back = WayBack(
            Subscriptions(self.outbox.store),
            wheel,
            clock.monotonic,
            self.metrics,
            opening=self.hub_sessions.opens_soon,
            methods=lambda ways: Methods(ways, clock, wheel, self.metrics),
            twins=lambda ways: Twins(
                ways, clock, wheel, self.metrics, self._twin_cache, timeout=TWIN_TIMEOUT_SECONDS
            ),
        )
        self.hub_sessions.way_back = self.way_back
        certificate = certificate_facts(config.listener.certificate)
        self._admission = Admission(
            KeyTableVerifier(self.keyring.signer, self.keyring.indices, lambda: self.keyring.loaded),
            frozenset({config.hub.hostname, *certificate.names}),
            connects_per_device_per_minute=config.listener.connects_per_device_per_minute,
            unready=self._unready,
        )
        self.listener = Listener(
            loop,
            server_context(config.listener.certificate, config.listener.private_key),
            self._admission,
            Intake(self.dispatch, self.hub_sessions, self.way_back, self.metrics),
            wheel=wheel,
            clock=clock,
            clock_trusted=lambda: watch.trusted,
            metrics=self.metrics,
            policy=listener_policy(config),
        )
        self.hub_sessions.on_unparked = self.listener.reconsider
        self._heartbeat = Heartbeat(
            clock,
            watch,
            wheel,
            self.hub_sessions,
            self.progress,
            self.metrics,
            on_trusted=self.listener.reconsider,
            on_look=self._on_look,
        )
        self.status = DaemonStatus(
            config.hub.hostname,
            clock,
            watch,
            self.keyring,
            self.hub_sessions,
            self._budget,
            self.progress,
            self.listener,
        )
        self.status.outbox = self.outbox
        self.status.bind(self.metrics)
        self._set_certificate_expiries(config, certificate.expires)
        status = self.status
        answers = StatusAnswers(
            StatusSources(self.registry, status.alive, status.ready, status.fleet, status.devices),
            _status_access(config, clock),
            clock.monotonic,
        )
        self._status_server = StatusServer(answers.answer)
        self.status_address: Endpoint | UnixSocket | None = None

    async def start(self) -> None:
        """Load the keys, bind the sockets. Raises DeviceFileError, KeyMalformed, ConfigError."""
        config = self.config
        with _bound_for("metrics.address", config.metrics.address):
            self.status_address = await self._status_server.start(config.metrics.address)
        count = self.keyring.load(config.devices.file, check_permissions=not self._keys_are_guarded)
        engine = self.keyring.signer.engine
        self.metrics.build_info.labels(VERSION, engine).set(1)
        self.metrics.config_last_reload_successful.set(1)
        self.way_back.load(await self.outbox.open())
        self._heartbeat.start()
        if self._twin_cache is None:
            forget_twins(self.outbox.store, self.keyring.by_identity)
        with _bound_for("listener.address", config.listener.address):
            await self.listener.start(config.listener.address.host, config.listener.address.port)
        if (websocket := config.listener.websocket_address) is not None:
            with _bound_for("listener.websocket_address", websocket):
                await self.listener.start_websockets(websocket.host, websocket.port)
        self.status.started = True
        _LOG.info(
            "gatewayd %s serves %d identities of %s, signer %s, listening on port %d",
            VERSION,
            count,
            config.hub.hostname,
            engine,
            self.listener.port,
        )

    def apply(self, config: Config, changes: tuple[Change, ...]) -> None:
        """Put a new configuration in force while running: what came is only keys that allow it."""
        now = self._clock.monotonic()
        tokens = config.tokens
        self._budget.retune(config.hub.budget.connects_per_second)
        if any(change.setting.path.startswith("tokens.") for change in changes):
            self._tokens.lifetime = tokens.lifetime
            self.conductor.retimed(tokens.renew_earliest, tokens.renew_latest, tokens.lifetime, now)
        self.conductor.retune(session_policy(config))
        self._carrier.settings = mqtt_settings(config)
        self._dialer.retune(dial_deadlines(config))
        self.dispatch.retune(lane_bounds(config))
        self.outbox.retune(config)
        self.hub_sessions.linger = config.hub.session.linger
        if any(change.setting.path.startswith("listener.") for change in changes):
            self.listener.retune(listener_policy(config))
            self._admission.retune(config.listener.connects_per_device_per_minute)
        self.config = config
        self.hub_sessions.turn()

    async def drain(self) -> None:
        """End in order, within `shutdown.deadline`."""
        deadline = self.config.shutdown.deadline
        self.status.stopping = True
        self.listener.stop_accepting()
        settled = await self._until(
            lambda: not any(True for _ in self.hub_sessions.unsettled()), deadline * RECEIPTS_SHARE
        )
        if not settled:
            await self._store_the_rest(deadline * STORE_SHARE)
        await self.listener.drain(min(1.0, deadline * DEVICES_SHARE))
        sessions = self.hub_sessions.stop()
        rest = deadline * (1.0 - RECEIPTS_SHARE - 2 * STORE_SHARE - DEVICES_SHARE)
        if not await self._until(lambda: self.hub_sessions.open_sessions == 0, rest):
            _LOG.warning(
                "%d of %d hub sessions did not end in time", self.hub_sessions.open_sessions, sessions
            )
        if self._twin_cache is not None:
            self._twin_cache.flush()
        await self.outbox.close(deadline * STORE_SHARE)
        self._heartbeat.stop()
        if self._watch.trusted:
            save_floor(self.config.clock.floor_file, self._clock.wall())
        await self._status_server.close()
        await self._worker.stop()
        self.keyring.close()

    async def _store_the_rest(self, seconds: float) -> None:
        """What the hub has not taken goes to disk."""
        self.outbox.custody.spill_all()
        if not await self._until(lambda: not any(True for _ in self.hub_sessions.unsettled()), seconds):
            _LOG.warning(
                "%d messages are without a receipt; their devices send them again", self.dispatch.unreceipted
            )

    def _unready(self, identity: Identity) -> HeldBecause | None:
        """A device whose hub session the hub refused is not turned away for good: it waits, then is told 3."""
        parked = self.conductor.state(identity) in (State.PARKED, State.STOPPED)
        return HeldBecause.PARKED if parked else None

    def _on_look(self, wall: float) -> None:
        self.outbox.custody.tick()
        self._keep_floor(wall)

    def _keep_floor(self, wall: float) -> None:
        if wall - self._floor_saved >= SAVE_SECONDS:
            self._floor_saved = wall
            save_floor(self.config.clock.floor_file, wall)

    def _set_certificate_expiries(self, config: Config, listener: float) -> None:
        self.metrics.certificate_expiry.labels("listener").set(listener)
        if config.hub.trusted_ca is not None:
            self.metrics.certificate_expiry.labels("hub_ca").set(
                certificate_facts(config.hub.trusted_ca).expires
            )

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition, looking often; whether it came true in time."""
        by = self._clock.monotonic() + seconds
        while not condition():
            if self._clock.monotonic() >= by:
                return False
            await asyncio.sleep(_STEP_SECONDS)
        return True


def _status_access(config: Config, clock: Clock) -> StatusAccess:
    """Who may read the status server. Raises ConfigError when the token's file cannot be used."""
    metrics = config.metrics
    return StatusAccess(
        None if metrics.token_file is None else read_token(metrics.token_file),
        wide=not metrics.address.is_loopback,
        metrics_for_all=metrics.anonymous == "metrics",
        secret=secrets.token_bytes(32),
        monotonic=clock.monotonic,
    )


@contextlib.contextmanager
def _bound_for(key: str, address: Endpoint | UnixSocket) -> Iterator[None]:
    """A socket that cannot be bound is told by the key that asked for it."""
    try:
        yield
    except OSError as error:
        problem = ConfigProblem(key, f"cannot listen on {address}: {error.strerror or error}")
        raise ConfigError((problem,)) from error
