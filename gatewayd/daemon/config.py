"""The configuration as values: every key, its meaning, default and bounds, and whether SIGHUP applies it.

This is the one list. The reference in docs/configuration.md and the example file are generated from it, error messages
quote it, and a reload asks it which keys may change while the daemon runs. A `Config` that exists is valid key by key;
what the keys mean together is judged in config_rules.py, what the files hold in config_files.py, and reading a file is
config_load.py.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gatewayd.daemon.config_topic_rules import TopicRules
from gatewayd.daemon.config_values import (
    Address,
    Choice,
    Duration,
    Endpoint,
    File,
    Flag,
    Fraction,
    Hostname,
    HttpProxy,
    Kind,
    Size,
    StatusAddress,
    UnixSocket,
    Whole,
)
from gatewayd.flow.storing_rules import TopicRule

# The ports IoT Hub listens on: MQTT over TLS, and MQTT over WebSocket.
HUB_MQTT_PORT = 8883
HUB_WEBSOCKET_PORT = 443


class Applies(enum.Enum):
    """When a changed key takes effect."""

    TUNING = "SIGHUP"
    RESTART = "restart"


TUNING, RESTART = Applies.TUNING, Applies.RESTART


def setting(default: object, applies: Applies, says: str) -> Any:
    """A key. `default` is written as in the file and read the same way; `...` makes the key required, None optional."""
    extra: JsonDict = {"applies": applies.value}
    if default is None:
        return Field(default=None, description=says, json_schema_extra=extra)
    return Field(default=default, validate_default=True, description=says, json_schema_extra=extra)


class Section(BaseModel):
    """A table of the file: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Endpoints(Section):
    """Where to dial instead of the hub's own name. The certificate is still checked against `hub.hostname`."""

    mqtt: Annotated[Endpoint | None, Address(listens=False)] = setting(
        None, RESTART, "Where MQTT to the hub is dialled, when not at `hub.hostname` itself on port 8883."
    )
    websocket: Annotated[Endpoint | None, Address(listens=False)] = setting(
        None,
        RESTART,
        "Where MQTT over WebSocket to the hub is dialled, when not at `hub.hostname` itself on port 443.",
    )


class Budget(Section):
    """How fast new connections to the hub may be opened."""

    connects_per_second: Annotated[int, Whole(1, 1000, "connections")] = setting(
        50,
        TUNING,
        "New hub connections in any one second, renewals included. "
        "An S1 hub allows at least 100 a second, for all of its clients together.",
    )
    reserve: Annotated[float, Fraction(0.0, 0.9)] = setting(
        0.20,
        TUNING,
        "Share of the budget that renewals must leave free for reconnects; a timetable that needs more is refused.",
    )
    # An S1 hub takes max(100/s, 12/s per unit) device-to-cloud messages, of all its clients together.
    sends_per_second: Annotated[int, Whole(1, 100_000, "messages")] = setting(
        100,
        TUNING,
        "Messages a second up to which the outbox fills what devices leave free when it drains. "
        "Devices' own messages are never held back by it. An S1 hub takes at least 100 a second in all.",
    )


class Deadlines(Section):
    """How long gatewayd waits for the hub before it calls an attempt failed."""

    dial: Annotated[float, Duration("100ms", "60s")] = setting(
        "10s",
        TUNING,
        "Name lookup and TCP connection together; a proxy may take as long again for its answer.",
    )
    handshake: Annotated[float, Duration("100ms", "60s")] = setting(
        "15s", TUNING, "The TLS handshake; a WebSocket upgrade may take as long again."
    )
    connack: Annotated[float, Duration("100ms", "60s")] = setting(
        "15s", TUNING, "The hub's answer to CONNECT."
    )
    ping: Annotated[float, Duration("100ms", "60s")] = setting(
        "20s", TUNING, "The hub's answer to a keep-alive ping; a silent hub is then called gone."
    )


class HubSession(Section):
    """The presence of one identity at the hub."""

    # 1177 s x 1.5 is the hub's cap of 29.45 minutes: a larger value would not be kept.
    keep_alive: Annotated[float, Duration("5s", "1177s")] = setting(
        "230s",
        TUNING,
        "Keep-alive of a hub connection. The default stays below the 4 minutes "
        "after which Azure's load balancer drops a silent connection.",
    )
    window: Annotated[int, Whole(1, 1000, "messages")] = setting(
        16, TUNING, "Messages of one device that may wait for the hub's acknowledgement at a time."
    )
    linger: Annotated[float, Duration("0s", "24h")] = setting(
        "5m", TUNING, "How long a device's hub session stays open after the device has left."
    )


class Hub(Section):
    """The IoT Hub."""

    hostname: Annotated[str, Hostname()] = setting(
        ..., RESTART, "Name of the IoT Hub. Tokens are made for it and its certificate must carry it."
    )
    transport: Annotated[Literal["mqtt", "websocket"], Choice(("mqtt", "websocket"), later=("amqp",))] = (
        setting(
            "mqtt",
            RESTART,
            "How the hub is spoken to: `mqtt` on port 8883, or `websocket`, the same MQTT in WebSocket frames on "
            "port 443, for networks that let nothing else out.",
        )
    )
    proxy: Annotated[Endpoint | None, HttpProxy()] = setting(
        None,
        RESTART,
        "HTTP proxy through which the hub is reached, by CONNECT. TLS runs through it to the hub, and the proxy looks "
        "up the hub's name.",
    )
    proxy_credentials: Annotated[Path | None, File()] = setting(
        None, RESTART, "File with one line `user:password` for the proxy, readable by gatewayd alone."
    )
    trusted_ca: Annotated[Path | None, File()] = setting(
        None, RESTART, "PEM file of the authorities trusted for the hub, instead of the system's."
    )
    endpoints: Endpoints = Field(default_factory=Endpoints)
    budget: Budget = Field(default_factory=Budget)
    deadlines: Deadlines = Field(default_factory=Deadlines)
    session: HubSession = Field(default_factory=HubSession)

    @property
    def dialled(self) -> Endpoint:
        """Where the hub is dialled, on the transport that is chosen."""
        if self.transport == "websocket":
            return self.endpoints.websocket or Endpoint(self.hostname, HUB_WEBSOCKET_PORT)
        return self.endpoints.mqtt or Endpoint(self.hostname, HUB_MQTT_PORT)


class TokenBackoff(Section):
    """Pauses between attempts to open a hub session that failed."""

    first: Annotated[float, Duration("100ms", "60s")] = setting(
        "1s", TUNING, "The shortest pause after a failure."
    )
    ceiling: Annotated[float, Duration("1s", "1h")] = setting("60s", TUNING, "The longest pause.")
    stable: Annotated[float, Duration("1s", "1h")] = setting(
        "60s", TUNING, "How long a session must last before pauses start over at the shortest."
    )
    parking_probe: Annotated[float, Duration("10s", "24h")] = setting(
        "10m", TUNING, "How often a device that the hub refused for good is tried again."
    )


class Tokens(Section):
    """SAS tokens: how long they live, when and how they are renewed."""

    # The longest lifetime bounds how long a leaked token works; the hub itself documents no maximum.
    lifetime: Annotated[float, Duration("10s", "24h")] = setting(
        "60m", TUNING, "Life of a token that gatewayd signs."
    )
    renew_earliest: Annotated[float, Fraction(0.10, 0.95)] = setting(
        0.70, TUNING, "Start of the window for renewals, as a share of the token's life."
    )
    renew_latest: Annotated[float, Fraction(0.10, 0.95)] = setting(
        0.85, TUNING, "End of the window for renewals, as a share of the token's life."
    )
    handover: Annotated[Literal["strict", "fast"], Choice(("strict", "fast"))] = setting(
        "strict",
        TUNING,
        "`strict` waits until the hub has closed the old connection before it sends CONNECT on the new one: two "
        "round trips without a connection. `fast` does not wait: one round trip, and the hub may count a 400027.",
    )
    handover_drain: Annotated[float, Duration("0s", "30s")] = setting(
        "2s", TUNING, "How long a renewal waits for messages on their way before it ends the old connection."
    )
    handover_patience: Annotated[float, Duration("100ms", "30s")] = setting(
        "5s", TUNING, "How long `strict` waits for the hub to close the old connection."
    )
    backoff: TokenBackoff = Field(default_factory=TokenBackoff)


class Listener(Section):
    """Where devices connect."""

    address: Annotated[Endpoint, Address(listens=True)] = setting(
        "0.0.0.0:8883", RESTART, "Where gatewayd listens for devices, MQTT over TLS."
    )
    websocket_address: Annotated[Endpoint | None, Address(listens=True)] = setting(
        None,
        RESTART,
        "Where gatewayd listens for MQTT over WebSocket too, at the path `/$iothub/websocket`. Device SDKs dial port "
        "443; a port below 1024 needs CAP_NET_BIND_SERVICE.",
    )
    certificate: Annotated[Path, File()] = setting(
        ...,
        RESTART,
        "PEM file with the gateway's certificate and the chain up to the authority devices trust.",
    )
    private_key: Annotated[Path | None, File()] = setting(
        None, RESTART, "PEM file with the private key, when it is not in the certificate's file."
    )
    handshake_deadline: Annotated[float, Duration("1s", "60s")] = setting(
        "15s", TUNING, "How long a device may take for the TLS handshake."
    )
    connect_deadline: Annotated[float, Duration("1s", "60s")] = setting(
        "15s",
        TUNING,
        "How long a device may take from the handshake to its CONNECT; over WebSocket for the upgrade, and again from "
        "there to its CONNECT.",
    )
    # SDKs wait at least 30 s for CONNACK; the answer must come before they give up.
    hold: Annotated[float, Duration("0s", "25s")] = setting(
        "20s",
        TUNING,
        "How long a CONNECT waits when gatewayd cannot serve it yet, before it is answered with code 3. "
        "A fast refusal makes some SDKs storm.",
    )
    keep_alive_cap: Annotated[float, Duration("10s", "1767s")] = setting(
        "1767s", TUNING, "The longest keep-alive granted to a device; one that asks for none gets this."
    )
    max_connections: Annotated[int, Whole(1, 100_000, "connections")] = setting(
        10_000, TUNING, "Device connections open at a time."
    )
    connects_per_device_per_minute: Annotated[int, Whole(1, 10_000, "connections")] = setting(
        30, TUNING, "CONNECTs taken from one device id in a minute; more wait for `hold`."
    )
    connects_per_address_per_second: Annotated[int, Whole(1, 10_000, "connections")] = setting(
        200, TUNING, "Connections taken from one address in a second; many devices may stand behind one."
    )
    # The hub's own grace: a connection is cut up to 10 minutes after its token expired.
    expired_token_grace: Annotated[float, Duration("0s", "1h")] = setting(
        "10m", TUNING, "How long a device stays connected after the token it came with has expired."
    )
    max_unreceipted_messages: Annotated[int, Whole(1, 10_000, "messages")] = setting(
        100, TUNING, "Messages of one device held without a receipt before it is not read any more."
    )
    # One message may have 256 KiB and its topic; a smaller bound would stop it for ever.
    max_unreceipted_bytes: Annotated[int, Size("512KiB", "64MiB")] = setting(
        "1MiB", TUNING, "Bytes of one device held without a receipt before it is not read any more."
    )


class Outbox(Section):
    """Where messages wait on disk that the hub cannot take now."""

    path: Annotated[Path, File()] = setting(
        "/var/lib/gatewayd/outbox.db",
        RESTART,
        "The file of stored messages, in a folder gatewayd may write to.",
    )
    max_bytes: Annotated[int, Size("1MiB", "1024GiB")] = setting(
        "512MiB", TUNING, "How much may be stored; `when_full` says what happens then."
    )
    when_full: Annotated[
        Literal["stop", "drop_oldest", "drop_lowest_priority"],
        Choice(("stop", "drop_oldest", "drop_lowest_priority")),
    ] = setting(
        "stop",
        TUNING,
        "`stop` gives no more receipts, so devices keep their messages and lose none. The others drop what is "
        "stored, oldest first, of the lowest priority first or of all, and count it.",
    )
    # SDKs give a PUBACK 30 s before they call a message lost.
    spill_after: Annotated[float, Duration("100ms", "20s")] = setting(
        "5s", TUNING, "How long a message waits for the hub in memory before it is stored and receipted."
    )
    ttl: Annotated[float | None, Duration("1s", "365d")] = setting(
        None, TUNING, "How long a stored message is kept; without it for as long as it takes."
    )
    store_qos0: Annotated[bool, Flag()] = setting(
        False, TUNING, "Also store messages with QoS 0 while the hub is away, instead of dropping them."
    )
    rules: Annotated[tuple[TopicRule, ...], TopicRules()] = setting(
        [],
        TUNING,
        "Priority and time to live by topic; `*` stands for any characters, the first match decides. Messages of a "
        "higher priority leave the outbox first; the order of a device's messages is kept within a priority.",
    )


class Devices(Section):
    """Who may connect, and the keys to sign with."""

    file: Annotated[Path, File()] = setting(
        ..., RESTART, "CSV file of devices, `id,primary_key,secondary_key`, readable by gatewayd alone."
    )
    twin_cache: Annotated[bool, Flag()] = setting(
        False,
        RESTART,
        "Keep the last known twin of each device beside the outbox, and give it to a device that reads its twin while "
        "the hub is away; the log says so. With `false` such a read is answered 503, and kept twins are deleted.",
    )


class Metrics(Section):
    """Metrics, health and the status page."""

    address: Annotated[Endpoint | UnixSocket, StatusAddress()] = setting(
        "127.0.0.1:9464",
        RESTART,
        "Where /metrics, /livez, /readyz and the status page are served. Any user of this machine may read them here, "
        'or whom a socket such as "unix:/run/gatewayd/status.sock" lets in (mode 0660). An address that others can '
        "reach needs `token_file`, or `anonymous`.",
    )
    token_file: Annotated[Path | None, File()] = setting(
        None,
        RESTART,
        "File with the token (16 to 1024 letters, digits and signs) that readers must show: as `Authorization: "
        "Bearer`, or typed into the page. /livez and /readyz never ask for it.",
    )
    anonymous: Annotated[Literal["probes", "metrics"], Choice(("probes", "metrics"))] = setting(
        "probes",
        RESTART,
        "What is told to those who show no token: `probes` is /livez and /readyz; `metrics` is /metrics too, which "
        "names no device. The page and /api, which name them, then need `token_file` where others can reach them.",
    )


class Log(Section):
    """What is logged, and how."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Choice(("debug", "info", "warning", "error"))
    ] = setting("info", TUNING, "The least severe message that is written.")
    format: Annotated[
        Literal["auto", "json", "journald", "text"], Choice(("auto", "json", "journald", "text"))
    ] = setting(
        "auto", RESTART, "`auto` means journald under systemd, text on a terminal, JSON lines otherwise."
    )


class ClockSettings(Section):
    """What is remembered about the time."""

    floor_file: Annotated[Path, File()] = setting(
        "/var/lib/gatewayd/clock-floor",
        RESTART,
        "Where the last good time is kept; after a boot nothing is signed with an earlier one.",
    )


class Shutdown(Section):
    """The end of a run."""

    deadline: Annotated[float, Duration("1s", "60s")] = setting(
        "10s", TUNING, "How long messages on their way may take when gatewayd stops; then it leaves."
    )


class Config(Section):
    """The whole file."""

    hub: Hub
    tokens: Tokens = Field(default_factory=Tokens)
    listener: Listener
    outbox: Outbox = Field(default_factory=Outbox)
    devices: Devices
    metrics: Metrics = Field(default_factory=Metrics)
    log: Log = Field(default_factory=Log)
    clock: ClockSettings = Field(default_factory=ClockSettings)
    shutdown: Shutdown = Field(default_factory=Shutdown)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key as documentation and reload see it. `default` is as written in the file; None where there is none."""

    path: str
    kind: Kind
    says: str
    applies: Applies
    required: bool
    default: str | None

    @property
    def section(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def key(self) -> str:
        return self.path.rpartition(".")[2]

    def value_in(self, config: Config) -> object:
        """What a configuration says for this key."""
        value: object = config
        for name in self.path.split("."):
            value = getattr(value, name)
        return value


def settings() -> tuple[Setting, ...]:
    """Every key, in the order of the file."""
    return tuple(_settings_of(Config, ""))


def sections() -> dict[str, str]:
    """Every table of the file and what it is about, in the order of the file."""
    return dict(_sections_of(Config, ""))


def _settings_of(section: type[Section], prefix: str) -> Iterator[Setting]:
    fields = section.model_fields.items()
    # TOML wants the keys of a table before its sub-tables.
    for name, field in fields:
        if not _is_section(field):
            yield _setting(prefix + name, field)
    for name, field in fields:
        if _is_section(field):
            yield from _settings_of(_section_type(field), f"{prefix}{name}.")


def _sections_of(section: type[Section], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        if _is_section(field):
            inner = _section_type(field)
            yield prefix + name, (inner.__doc__ or "").strip()
            yield from _sections_of(inner, f"{prefix}{name}.")


def _setting(path: str, field: FieldInfo) -> Setting:
    kind = next(extra for extra in field.metadata if isinstance(extra, Kind))
    assert isinstance(field.json_schema_extra, dict)
    has_default = field.default is not None and field.default is not PydanticUndefined
    written = None
    if has_default:
        written = f'"{field.default}"' if isinstance(field.default, str) else kind.show(field.default)
    return Setting(
        path=path,
        kind=kind,
        says=field.description or "",
        applies=Applies(field.json_schema_extra["applies"]),
        required=field.is_required(),
        default=written,
    )


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Section)


def _section_type(field: FieldInfo) -> type[Section]:
    assert isinstance(field.annotation, type)
    assert issubclass(field.annotation, Section)
    return field.annotation
