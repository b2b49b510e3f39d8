"""From the configuration's words to the values each room takes. Pure; used at start and at every reload."""

from __future__ import annotations

from importlib import metadata

from gatewayd.backoff import BackoffPolicy
from gatewayd.daemon.config import Config
from gatewayd.downstream.listener import ListenerPolicy
from gatewayd.flow.lane import LaneBounds
from gatewayd.protocol.mqtt.limits import Limits
from gatewayd.transport.tls_stream import StreamLimits
from gatewayd.upstream.dialer import DialDeadlines
from gatewayd.upstream.handover import HandoverTimeouts, Mode
from gatewayd.upstream.mqtt_link import MqttSettings
from gatewayd.upstream.session import SessionPolicy

VERSION = metadata.version("gatewayd")

# A watchdog on a whole attempt, above the sum of its own deadlines: it is reached only when one of them did not fire.
ATTEMPT_MARGIN_SECONDS = 5.0

# What a session has unacknowledged goes out in one write after CONNACK, and a stream that did not take it would break
# at every attempt. What bounds it is the device's lane: `listener.max_unreceipted_bytes` may be 64 MiB at the most, and
# one read may add a little.
HUB_STREAM_LIMITS = StreamLimits(write_cap=(64 + 1) << 20)

# At this many messages without our PUBACK a hub connection is not read, acknowledgements of telemetry included. It is
# out of the hub's reach: 50 messages wait for a device at most, and the hub gives each up after 10 deliveries (its
# default), so a device that acknowledges nothing has at most 500 on one connection, whatever their packet ids.
HUB_MAX_UNACKNOWLEDGED = 512

# A twin request that waits for a hub connection is answered 503 then, before the SDKs give it up.
TWIN_TIMEOUT_SECONDS = 10.0

# A wait of 0 s in the configuration. An automaton's stage needs an end that is later than its beginning.
SHORTEST_WAIT_SECONDS = 0.001


def handover_timeouts(config: Config) -> HandoverTimeouts:
    """`handover_drain` is shared: half to wait for a moment without messages under way, half to make one."""
    deadlines, tokens = config.hub.deadlines, config.tokens
    half = max(SHORTEST_WAIT_SECONDS, tokens.handover_drain / 2)
    return HandoverTimeouts(
        dial=deadlines.dial + deadlines.handshake,
        patience=half,
        drain=half,
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
            max_unacknowledged=HUB_MAX_UNACKNOWLEDGED,
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
        close_limit=timeouts.close + SessionPolicy().close_limit,
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
