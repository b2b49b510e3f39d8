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
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry

from gatewayd.clock import Clock, ClockWatch
from gatewayd.daemon.certificate_facts import certificate_facts
from gatewayd.daemon.clock_floor import SAVE_SECONDS, read_floor, save_floor
from gatewayd.daemon.config import Config
from gatewayd.daemon.config_values import Endpoint
from gatewayd.daemon.heartbeat import Heartbeat
from gatewayd.daemon.keyring import Keyring
from gatewayd.daemon.progress import Progress
from gatewayd.daemon.reload import Change
from gatewayd.daemon.status import DaemonStatus
from gatewayd.daemon.status_server import StatusServer, StatusSources
from gatewayd.daemon.tuning import (
    HUB_STREAM_LIMITS,
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
from gatewayd.flow.renewal import Renewal
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.tokens.renewal_timetable import RenewalTimetable
from gatewayd.transport.deadline_wheel import DeadlineWheel
from gatewayd.transport.tls_contexts import client_context, server_context
from gatewayd.transport.worker import Worker
from gatewayd.upstream.budget import ConnectBudget
from gatewayd.upstream.dialer import Dialer
from gatewayd.upstream.dialer import Endpoint as HubEndpoint
from gatewayd.upstream.mqtt_link import Carrier
from gatewayd.upstream.session import HubSession, State

_LOG: Final = logging.getLogger(__name__)

# Of the time a stop may take: how much for receipts, and for closing devices. The hub sessions have the rest.
RECEIPTS_SHARE: Final = 0.4
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
        endpoint = config.hub.mqtt_endpoint
        self._dialer = Dialer(
            loop,
            HubEndpoint(endpoint.host, endpoint.port, config.hub.hostname),
            client_context(config.hub.trusted_ca),
            self._worker,
            deadlines=dial_deadlines(config),
            limits=HUB_STREAM_LIMITS,
        )
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
            Intake(self.dispatch, self.hub_sessions, self.metrics),
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
            on_look=self._keep_floor,
        )
        self.status = DaemonStatus(
            config.hub.hostname, clock, watch, self.keyring, self.hub_sessions, self._budget, self.progress
        )
        self.status.bind(self.metrics)
        self._set_certificate_expiries(config, certificate.expires)
        self._status_server = StatusServer(
            StatusSources(self.registry, self.status.alive, self.status.ready, self.status.snapshot)
        )
        self.status_address: Endpoint | None = None

    async def start(self) -> None:
        """Load the keys, bind the sockets. Raises DeviceFileError, KeyMalformed, ConfigError."""
        config = self.config
        with _bound_for("metrics.address", config.metrics.address):
            self.status_address = await self._status_server.start(config.metrics.address)
        count = self.keyring.load(config.devices.file, check_permissions=not self._keys_are_guarded)
        engine = self.keyring.signer.engine
        self.metrics.build_info.labels(VERSION, engine).set(1)
        self.metrics.config_last_reload_successful.set(1)
        self._heartbeat.start()
        with _bound_for("listener.address", config.listener.address):
            await self.listener.start(config.listener.address.host, config.listener.address.port)
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
            _LOG.warning(
                "%d messages are without a receipt; their devices send them again", self.dispatch.unreceipted
            )
        await self.listener.drain(min(1.0, deadline * DEVICES_SHARE))
        sessions = self.hub_sessions.stop()
        rest = deadline * (1.0 - RECEIPTS_SHARE - DEVICES_SHARE)
        if not await self._until(lambda: self.hub_sessions.open_sessions == 0, rest):
            _LOG.warning(
                "%d of %d hub sessions did not end in time", self.hub_sessions.open_sessions, sessions
            )
        self._heartbeat.stop()
        if self._watch.trusted:
            save_floor(self.config.clock.floor_file, self._clock.wall())
        await self._status_server.close()
        await self._worker.stop()
        self.keyring.close()

    def _unready(self, identity: Identity) -> HeldBecause | None:
        """A device whose hub session the hub refused is not turned away for good: it waits, then is told 3."""
        parked = self.conductor.state(identity) in (State.PARKED, State.STOPPED)
        return HeldBecause.PARKED if parked else None

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


@contextlib.contextmanager
def _bound_for(key: str, address: Endpoint) -> Iterator[None]:
    """A socket that cannot be bound is told by the key that asked for it."""
    try:
        yield
    except OSError as error:
        problem = ConfigProblem(key, f"cannot listen on {address}: {error.strerror or error}")
        raise ConfigError((problem,)) from error
