"""From the configuration's words to the values each room takes. Pure; used at start and at every reload."""

from __future__ import annotations

from importlib import metadata

from gatewayd.backoff import BackoffPolicy
from gatewayd.daemon.config import Config
from gatewayd.downstream.listener import ListenerPolicy
from gatewayd.flow.dispatch import LaneBounds
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.upstream.dialer import DialDeadlines
from gatewayd.upstream.handover import HandoverTimeouts, Mode
from gatewayd.upstream.mqtt_session import MqttSettings
from gatewayd.upstream.session import SessionPolicy

VERSION = metadata.version("gatewayd")

# A watchdog on a whole attempt, above the sum of its own deadlines: it is reached only when one of them did not fire.
ATTEMPT_MARGIN_SECONDS = 5.0


def handover_timeouts(config: Config) -> HandoverTimeouts:
    """`handover_drain` is shared: half to wait for a moment without messages under way, half to make one."""
    deadlines, tokens = config.hub.deadlines, config.tokens
    return HandoverTimeouts(
        dial=deadlines.dial + deadlines.handshake,
        patience=tokens.handover_drain / 2,
        drain=tokens.handover_drain / 2,
        close=tokens.handover_patience,
        connack=deadlines.connack,
    )


def mqtt_settings(config: Config) -> MqttSettings:
    """How hub sessions over MQTT behave."""
    deadlines, session = config.hub.deadlines, config.hub.session
    return MqttSettings(
        hostname=config.hub.hostname,
        client_type=f"gatewayd/{VERSION}",
        keep_alive=int(session.keep_alive),
        window=session.window,
        mode=Mode(config.tokens.handover),
        timeouts=handover_timeouts(config),
        limits=Limits(
            connect_timeout=deadlines.connack,
            ping_timeout=deadlines.ping,
            disconnect_timeout=config.tokens.handover_patience,
        ),
    )


def dial_deadlines(config: Config) -> DialDeadlines:
    deadlines = config.hub.deadlines
    return DialDeadlines(
        overall=deadlines.dial + deadlines.handshake, connect=deadlines.dial, handshake=deadlines.handshake
    )


def session_policy(config: Config) -> SessionPolicy:
    """Backoff and parking."""
    backoff, timeouts = config.tokens.backoff, handover_timeouts(config)
    return SessionPolicy(
        retry=BackoffPolicy(backoff.first, backoff.ceiling, backoff.stable),
        park_first=backoff.parking_probe,
        park_ceiling=max(backoff.parking_probe, SessionPolicy().park_ceiling),
        attempt_limit=timeouts.total + timeouts.dial + ATTEMPT_MARGIN_SECONDS,
    )


def lane_bounds(config: Config) -> LaneBounds:
    listener = config.listener
    return LaneBounds(
        max_messages=listener.max_unreceipted_messages, max_bytes=listener.max_unreceipted_bytes
    )


def listener_policy(config: Config) -> ListenerPolicy:
    listener = config.listener
    return ListenerPolicy(
        handshake_deadline=listener.handshake_deadline,
        connect_deadline=listener.connect_deadline,
        hold=listener.hold,
        keep_alive_cap=listener.keep_alive_cap,
        max_connections=listener.max_connections,
        connects_per_address_per_second=listener.connects_per_address_per_second,
        expired_token_grace=listener.expired_token_grace,
        # The core parks a device that has more than this unreceipted; the lane pauses reading at the bound before.
        max_unreceipted_messages=2 * listener.max_unreceipted_messages,
    )
