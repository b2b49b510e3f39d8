"""Every metric family in one list, on a registry passed in.

Promises: names are `gatewayd_<thing>_<unit>[_total]`; every series that an alert may watch exists at 0 from the start;
no label holds a device id, so the number of series does not grow with the fleet; expiries are absolute timestamps.
Gauges that describe the present are read at scrape time from callables that assembly binds, so no room keeps a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from gatewayd.message import DropReason
from gatewayd.tallies import TallyFamily, TallyHistogram

# The library adds a `_created` series to every counter and histogram: many more series, which no alert reads.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library does not type it

# Chosen around what is promised: a handover is two round trips (tens to hundreds of milliseconds), a receipt one.
GAP_BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATENCY_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0)
WAIT_BUCKETS_SECONDS = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)
LATENESS_BUCKETS_SECONDS = (0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0)

HUB_ERROR_SERIES: tuple[tuple[str, str], ...] = (
    ("401003", "expired"),
    ("401003", "credential"),
    ("404104", "closed"),
    ("400027", "suspected"),
    ("503001", "busy"),
)
DISCONNECT_SERIES: tuple[tuple[str, str, str], ...] = (
    ("hub", "true", "renewal"),
    ("hub", "true", "linger"),
    ("hub", "true", "shutdown"),
    ("hub", "false", "closed"),
    ("device", "true", "disconnect"),
    ("device", "false", "closed"),
    ("device", "false", "takeover"),
)
MESSAGE_STAGES = ("received", "sent", "acknowledged", "stored", "receipted")
CLOUD_MESSAGE_STAGES = ("received", "sent", "acknowledged")
RENEWAL_RESULTS = ("ok", "failed")
METHOD_RESULTS = ("replied", "expired", "no_device", "no_hub", "too_many")
TWIN_OPERATIONS = ("get", "patch", "check")
TWIN_RESULTS = ("ok", "refused", "failed", "no_hub", "cached", "too_many", "abandoned")


class Metrics:
    """The families. Attributes are named after the metric without its `gatewayd_` prefix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(f"gatewayd_{name}", text, tuple(labels), registry=registry)

        def gauge(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(f"gatewayd_{name}", text, tuple(labels), registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"gatewayd_{name}", text, buckets=buckets, registry=registry)

        self.hub_errors = counter(
            "hub_errors",
            "What the hub refused or cut, by IoT Hub error code and cause; on MQTT the code is inferred.",
            ("code", "cause"),
        )
        self.disconnects = counter(
            "disconnects",
            "Ended connections: on the hub or the device side, planned (DISCONNECT came first) or not.",
            ("side", "planned", "reason"),
        )
        self.devices = gauge("devices", "Identities by the state of their hub session.", ("state",))
        self.devices_connected = gauge("devices_connected", "Devices connected to the listener now.")
        self.token_signatures = counter("token_signatures", "SAS tokens signed for the hub.")
        self.token_renewals = counter(
            "token_renewals", "Token renewals by transport and result.", ("transport", "result")
        )
        self.token_renewal_lateness = histogram(
            "token_renewal_lateness_seconds",
            "How long after its planned instant a renewal was done.",
            LATENESS_BUCKETS_SECONDS,
        )
        self.token_renewal_gap = histogram(
            "token_renewal_gap_seconds",
            "How long a device's messages waited here during a handover.",
            GAP_BUCKETS_SECONDS,
        )
        self.token_renewal_drain = histogram(
            "token_renewal_drain_seconds",
            "How long a handover waited for the hub to acknowledge what was under way.",
            GAP_BUCKETS_SECONDS,
        )
        self.token_earliest_expiry = gauge(
            "token_earliest_expiry_timestamp_seconds",
            "When the first of all tokens in use expires; 0 while none is in use.",
        )
        self.tokens_expired = gauge("tokens_expired", "Tokens in use past their expiry; must be 0.")
        self.renewals_due = gauge("renewals_due", "Renewals that are due and not yet done.")
        self.connect_budget_available = gauge(
            "connect_budget_available", "Hub connections that may be opened right now."
        )
        self.connect_wait = histogram(
            "connect_wait_seconds",
            "How long a hub connection waited for the connect budget.",
            WAIT_BUCKETS_SECONDS,
        )
        self.messages = TallyFamily(
            "gatewayd_messages",
            "Messages by direction and stage of custody.",
            ("direction", "stage"),
            registry,
        )
        self.messages_dropped = counter(
            "messages_dropped", "Messages dropped, each by a written rule.", ("reason",)
        )
        self.method_calls = counter("method_calls", "Direct method calls, each by its end.", ("result",))
        self.twin_requests = counter(
            "twin_requests", "Twin requests by operation, each by its end.", ("operation", "result")
        )
        self.messages_unreceipted = gauge(
            "messages_unreceipted", "Messages held in memory that their devices still own."
        )
        self.outbox_messages = gauge("outbox_messages", "Messages stored on disk.")
        self.outbox_bytes = gauge(
            "outbox_bytes", "Bytes of stored messages that count against outbox.max_bytes."
        )
        self.outbox_max_bytes = gauge("outbox_max_bytes", "The bound outbox.max_bytes.")
        self.outbox_state = gauge("outbox_state", "1 for what the outbox does now, else 0.", ("state",))
        self.outbox_quarantines = counter(
            "outbox_quarantines",
            "Times the outbox was found damaged and was begun anew beside the damaged file.",
        )
        self.message_latency = TallyHistogram(
            "gatewayd_message_latency_seconds",
            "From a device's QoS 1 publish to its receipt.",
            LATENCY_BUCKETS_SECONDS,
            registry,
        )
        self.device_refusals = counter(
            "device_refusals", "Devices refused or held at the listener, by reason.", ("reason",)
        )
        self.read_pauses = counter(
            "read_pauses", "Times a device was not read because its unreceipted messages were at their bound."
        )
        self.clock_synchronized = gauge(
            "clock_synchronized", "1 when the kernel calls its clock synchronised, else 0."
        )
        self.clock_trusted = gauge("clock_trusted", "0 while the clock is known wrong and nothing is signed.")
        self.clock_steps = counter("clock_steps", "Steps of the wall clock, suspends included.")
        self.certificate_expiry = gauge(
            "certificate_expiry_timestamp_seconds", "When a certificate expires, by its role.", ("role",)
        )
        self.event_loop_lag = gauge("event_loop_lag_seconds", "How late the event loop was at its last look.")
        self.config_last_reload_successful = gauge(
            "config_last_reload_successful", "1 when the last configuration load was accepted, else 0."
        )
        self.build_info = gauge(
            "build_info", "Always 1; the version and the signer's engine are labels.", ("version", "engine")
        )
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        for code, cause in HUB_ERROR_SERIES:
            self.hub_errors.labels(code, cause)
        for side, planned, reason in DISCONNECT_SERIES:
            self.disconnects.labels(side, planned, reason)
        for result in RENEWAL_RESULTS:
            self.token_renewals.labels("mqtt", result)
        for stage in MESSAGE_STAGES:
            self.messages.labels("device_to_cloud", stage)
        for stage in CLOUD_MESSAGE_STAGES:
            self.messages.labels("cloud_to_device", stage)
        for result in METHOD_RESULTS:
            self.method_calls.labels(result)
        for operation in TWIN_OPERATIONS:
            for result in TWIN_RESULTS:
                self.twin_requests.labels(operation, result)
        for drop in DropReason:
            self.messages_dropped.labels(drop.value)

    def bind_devices(self, states: Iterable[str], counts: Callable[[], Mapping[str, int]]) -> None:
        """Read gatewayd_devices{state} from `counts()` at scrape time, one series for each of `states`."""
        for state in states:
            self.devices.labels(state).set_function(lambda state=state: counts().get(state, 0))  # type: ignore[misc]  # mypy cannot see the default argument's type
