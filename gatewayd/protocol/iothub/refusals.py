"""IoT Hub's refusals: one table of code, cause, how it shows, what we do, and what the operator should do.

Logs, metrics, the status page and `gatewayd explain` read this table and nothing else, so that one refusal
has one name everywhere. Codes, names and texts follow Microsoft's article "Troubleshoot Azure IoT Hub error
codes"; 503003 is named as in the ErrorCode enumeration of the Azure service SDK for .NET.

Over MQTT 3.1.1 the hub says nothing but CONNACK 3 or 5, or a closed socket. What `classify_connack` and
`classify_close` give is therefore an `Inference`: the likeliest row, and the observation it rests on. It is
never the hub's own word, and its text says so. Both are pure; they look at nothing but their arguments.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

# A thief of our identity comes back at once or after 10 s (azure-iot-device `connection_retry_interval`),
# with TLS and a loaded hub on top: connections that live shorter than this, this often in a row, have a twin.
DUPLICATE_SPELL_SECONDS: Final = 30.0
DUPLICATE_REPEATS: Final = 3
# The hub's clock may run ahead of ours by a little; a close this long before `se` still counts as expiry.
EXPIRY_TOLERANCE_SECONDS: Final = 5.0


class Ask(enum.Enum):
    """What a refusal asks of us."""

    WAIT = "wait and retry, paced"
    SIGN_AGAIN = "sign a new token and reconnect, paced"
    TRY_SECONDARY = "try the other key"
    PARK = "park the device and probe slowly"
    STOP = "stop; nothing retries by itself"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row. `ask` is what we do first, `then` when that has been tried in vain.

    `cause` is the metric label. `hub_log` is the text of the hub's diagnostic log, with * for what varies.
    `retryable`: the same credential may work later. `planned`: our own doing, not counted as a fault.
    """

    code: int
    cause: str
    name: str
    hub_log: str
    mqtt: str
    amqp: str
    ask: Ask
    then: Ask
    remedy: str
    retryable: bool
    planned: bool = False

    def __str__(self) -> str:
        return f"{self.code} {self.name} ({self.cause})"


_CLOSED: Final = "the TCP connection is closed, no packet first"
_NO_MQTT: Final = "does not show on a device's MQTT connection"
_CONNACK_5: Final = "CONNACK 5, the same for every authentication fault"
_CONNACK_3: Final = "CONNACK 3, or the TCP connection is closed"
_401: Final = "put-token status 401, or detach amqp:unauthorized-access"
_BUSY: Final = "detach amqp:link:detach-forced (Server Busy)"

_UNAUTHORIZED: Final = "IoTHubUnauthorized"

# fmt: off
TABLE: Final[tuple[Refusal, ...]] = (
    Refusal(
        400000, "unexpected_answer", "GenericBadRequest", "(a general bad request)",
        "CONNACK 1 or 2, which a classic hub is not known to send", "detach amqp:not-allowed", Ask.PARK,
        Ask.PARK,
        "Check that hub.hostname is a classic IoT Hub: a hub with the MQTT 5 connection profile takes no "
        "MQTT 3.1.1.",
        retryable=False,
    ),
    Refusal(
        400027, "suspected", "ConnectionForcefullyClosedOnNewConnection",
        "Device disconnected: a new connection with the same device id was made",
        f"{_CLOSED}, soon after connect, again and again", "detach amqp:link:stolen", Ask.WAIT, Ask.PARK,
        "Another client uses this device id: a second gateway, a test tool, or the device itself past the "
        "gateway. Find it by its address in the hub's connection log and stop it, or give it an identity "
        "of its own.",
        retryable=True,
    ),
    Refusal(
        400027, "own_handover", "ConnectionForcefullyClosedOnNewConnection",
        "Device disconnected: a new connection with the same device id was made",
        "on a connection we have just left ourselves: only the hub's log has it",
        "does not happen: put-token renews in place",
        Ask.WAIT, Ask.WAIT,
        'Nothing to do: handover = "fast" allows it and loses nothing. handover = "strict" avoids it.',
        retryable=True, planned=True,
    ),
    Refusal(
        400029, "hub_upgrade", "ConnectionForcefullyClosedOnFaultInjection",
        "Existing connections are closed during a service or platform upgrade", _CLOSED,
        "close amqp:connection:forced", Ask.WAIT, Ask.WAIT, "Nothing to do: reconnecting works at once.",
        retryable=True,
    ),
    Refusal(
        400030, "hub_upgrade", "ConnectionRejectedOnFaultInjection",
        "New connections are rejected during a service or platform upgrade", _CONNACK_3,
        "close amqp:connection:forced", Ask.WAIT, Ask.WAIT,
        "Nothing to do: reconnecting works after a while.", retryable=True,
    ),
    Refusal(
        401000, "unauthorized", "GenericUnauthorized", "(unauthorized, not specified)", _CONNACK_5, _401,
        Ask.TRY_SECONDARY, Ask.PARK, "Read it as 401003: see the causes there.", retryable=False,
    ),
    Refusal(
        401001, "hub_not_found", "IotHubNotFound", "IoT Hub not found", _CONNACK_5,
        "put-token status 401 or 404, or detach com.microsoft:iot-hub-not-found-error", Ask.PARK, Ask.PARK,
        "Check hub.hostname: the hub was deleted, renamed, or never had this name.", retryable=False,
    ),
    Refusal(
        401002, "unauthorized_access", "IotHubUnauthorizedAccess",
        "The authentication header, rule or key could not be validated", _CONNACK_5, _401, Ask.TRY_SECONDARY,
        Ask.PARK, "Read it as 401003: see the causes there.", retryable=False,
    ),
    Refusal(
        401003, "expired", _UNAUTHORIZED,
        "Authentication failed for this device, renew token or certificate and reconnect",
        f"{_CLOSED}, at the token's expiry or within the hub's grace of some minutes; CONNACK 5 when an "
        "expired token is presented",
        _401, Ask.SIGN_AGAIN, Ask.WAIT,
        "A token ran out before it was replaced. Look at renewals that failed or waited for the connect "
        "budget (gatewayd check does the arithmetic), and at the gateway's clock: more than 5 minutes off "
        "is enough.",
        retryable=True,
    ),
    Refusal(
        401003, "no_authorization", _UNAUTHORIZED, "Authorization header missing", _CONNACK_5,
        "detach amqp:unauthorized-access at attach, no put-token seen", Ask.PARK, Ask.PARK,
        "The connection carried neither a token nor a certificate. Check that this device has a key or a "
        "certificate here, and that the hub's registry expects that kind.",
        retryable=False,
    ),
    Refusal(
        401003, "unknown_device", _UNAUTHORIZED, "IotHub '*' does not contain the specified device '*'",
        _CONNACK_5, "put-token status 404 or 401", Ask.PARK, Ask.PARK,
        "Create the device in the hub's registry, or take it out of the device file. Ids are "
        "case-sensitive. After a provisioning move, check that hub.hostname is the hub it was assigned to.",
        retryable=False,
    ),
    Refusal(
        401003, "rule_without_right", _UNAUTHORIZED, "Authorization rule '*' does not allow access for '*'",
        _CONNACK_5, _401, Ask.PARK, Ask.PARK,
        "The shared access policy named in the token lacks DeviceConnect. Use the policy 'device', or give"
        " this one that right.",
        retryable=False,
    ),
    Refusal(
        401003, "bad_token_or_certificate", _UNAUTHORIZED,
        "Authentication failed for this device, renew token or certificate and reconnect", _CONNACK_5, _401,
        Ask.TRY_SECONDARY, Ask.PARK,
        "The signature does not match the registry's keys, or the certificate is not valid. Compare the "
        "key in the device file with the registry (regenerated lately?), and look at the certificate's "
        "dates and chain.",
        retryable=False,
    ),
    Refusal(
        401003, "thumbprint", _UNAUTHORIZED,
        "Thumbprint does not match configuration: Thumbprint: SHA1Hash=*, SHA2Hash=*; Configuration: "
        "PrimaryThumbprint=*, SecondaryThumbprint=*",
        _CONNACK_5, "detach amqp:unauthorized-access", Ask.PARK, Ask.PARK,
        "Enter the thumbprint of the certificate in use as primary or secondary in the registry, or "
        "install the certificate that belongs to it.",
        retryable=False,
    ),
    Refusal(
        401003, "credential", _UNAUTHORIZED, "(any of the texts of 401003; MQTT cannot say which)",
        _CONNACK_5, "does not happen: AMQP names the cause", Ask.TRY_SECONDARY, Ask.PARK,
        "The token was fresh and the clock good, so the hub does not know or does not allow this "
        "credential: the device is deleted or disabled, or its key was regenerated. The hub's diagnostic "
        "log has the exact text.",
        retryable=False,
    ),
    Refusal(
        401003, "principal", _UNAUTHORIZED,
        "Principal * is not authorized for * on * due to no assigned permissions", _NO_MQTT,
        "does not show on a device's link", Ask.STOP, Ask.STOP,
        "This is about a caller that signs in with Microsoft Entra ID, not about a device: give that "
        "caller a role on the hub, such as IoT Hub Data Owner.",
        retryable=False,
    ),
    Refusal(
        401004, "elastic_pool_not_found", "ElasticPoolNotFound", "The elastic pool was not found", _CONNACK_5,
        _401, Ask.PARK, Ask.PARK, "Check hub.hostname, and that the hub still exists.", retryable=False,
    ),
    Refusal(
        403001, "hub_suspended", "IotHubSuspended", "The IoT hub has been suspended", _CONNACK_3,
        "detach com.microsoft:iot-hub-suspended", Ask.WAIT, Ask.PARK,
        "Look at the subscription's spending limit and its bills.", retryable=True,
    ),
    Refusal(
        403002, "daily_quota", "IotHubQuotaExceeded", "Total number of messages exceeded the allocated quota",
        f"messages are not acknowledged, then {_CLOSED}", "rejected amqp:resource-limit-exceeded", Ask.WAIT,
        Ask.WAIT,
        "The hub's messages of this day are used up. Add units or wait for midnight UTC; messages are kept"
        " here.",
        retryable=True,
    ),
    Refusal(
        403004, "queue_depth", "DeviceMaximumQueueDepthExceeded",
        "More than 50 messages wait for this device", _NO_MQTT, "amqp:resource-limit-exceeded to the service",
        Ask.WAIT, Ask.WAIT,
        "Cloud messages wait for a device that does not take them. Bring the device back, or purge its "
        "queue.",
        retryable=True,
    ),
    Refusal(
        403005, "cbs_tokens", "IotHubMaxCbsTokenExceeded", "More than 1000 tokens on one AMQP connection",
        _NO_MQTT, "put-token status 500, text 'maximum number of tokens per connection'", Ask.WAIT, Ask.STOP,
        "Lower the number of devices per AMQP connection.", retryable=False,
    ),
    Refusal(
        403006, "file_uploads", "DeviceMaximumActiveFileUploadLimitExceeded",
        "Too many file uploads of this device", _NO_MQTT, "does not show on a link", Ask.WAIT, Ask.WAIT,
        "Let the device finish or abandon its uploads.", retryable=True,
    ),
    Refusal(
        403010, "tier", "OperationNotAvailableInCurrentTier", "The operation is not in this tier", _CLOSED,
        "detach amqp:not-allowed", Ask.PARK, Ask.PARK,
        "Methods, twins and cloud messages need a standard tier hub.", retryable=False,
    ),
    Refusal(
        403012, "device_disabled", "DeviceDisabled", "The device is disabled", _CONNACK_5, _401, Ask.PARK,
        Ask.PARK, "Enable the device in the registry, or take it out of the device file.", retryable=False,
    ),
    Refusal(
        403800, "methods_in_flight", "DeviceMaximumInflightMethodExceeded",
        "Too many direct methods in flight", _NO_MQTT, "does not show on a link", Ask.WAIT, Ask.WAIT,
        "Call fewer methods of one device at once.", retryable=True,
    ),
    Refusal(
        404001, "device_not_found", "DeviceNotFound", "Device '*' not registered", _CONNACK_5,
        "put-token status 404, or detach amqp:not-found", Ask.PARK, Ask.PARK,
        "Create the device in the hub's registry, or take it out of the device file. Ids are case-sensitive.",
        retryable=False,
    ),
    Refusal(
        404006, "address_not_found", "AmqpAddressNotFound", "The AMQP address does not exist", _NO_MQTT,
        "detach amqp:not-found", Ask.STOP, Ask.STOP,
        "A fault of this gateway: report it with the link's address.", retryable=False,
    ),
    Refusal(
        404010, "module_not_found", "ModuleNotFound", "Module '*' on device '*' not registered", _CONNACK_5,
        "put-token status 404, or detach amqp:not-found", Ask.PARK, Ask.PARK,
        "Create the module under its device in the registry, or take it out of the device file.",
        retryable=False,
    ),
    Refusal(
        404012, "failing_over", "IotHubFailingOver", "The IoT hub is failing over", _CONNACK_3,
        "close amqp:connection:forced", Ask.WAIT, Ask.WAIT,
        "Nothing to do: the hub moves to another region. The name is looked up anew at each dial.",
        retryable=True,
    ),
    Refusal(
        404103, "not_online", "DeviceNotOnline", "The device is not connected or has no method subscription",
        _NO_MQTT, "does not show on a link: the caller of the method gets it", Ask.WAIT, Ask.WAIT,
        "A method was called on an absent device. See whether the device is meant to be there.",
        retryable=True,
    ),
    Refusal(
        404104, "closed", "DeviceConnectionClosedRemotely",
        "The connection was closed by the device, or its keep-alive was missed, or its token expired",
        f"{_CLOSED}; the hub gives no reason", "close amqp:connection:forced, or a bare end of the stream",
        Ask.WAIT, Ask.WAIT,
        "The line broke, or the hub closed it without a word. One device now and then is the network; all "
        "at once is the uplink or the hub. Right after a 401003 it is that refusal's echo.",
        retryable=True,
    ),
    Refusal(
        409002, "link_conflict", "LinkCreationConflict", "Another link of this device is still closing",
        _CLOSED, "detach com.microsoft:link-creation-conflict or amqp:link:stolen", Ask.WAIT, Ask.WAIT,
        "Nothing to do once; if it repeats, another client uses this device id (see 400027).", retryable=True,
    ),
    Refusal(
        412002, "lock_lost", "DeviceMessageLockLost", "The lock of a cloud message ran out", _NO_MQTT,
        "disposition answered com.microsoft:message-lock-lost", Ask.WAIT, Ask.WAIT,
        "The device took longer than a minute to acknowledge; the hub sends the message again.",
        retryable=True,
    ),
    Refusal(
        413001, "too_large", "MessageTooLarge", "The message is larger than 256 KB", _CLOSED,
        "rejected amqp:link:message-size-exceeded", Ask.STOP, Ask.STOP,
        "Send smaller messages: topic properties and payload count together. The listener refuses such a "
        "message before it gets here.",
        retryable=False,
    ),
    Refusal(
        429001, "throttled", "ThrottlingException", "The hub's request rate is exceeded",
        f"acknowledgements are late, then {_CLOSED}; at connect CONNACK 3",
        "rejected com.microsoft:device-container-throttled", Ask.WAIT, Ask.WAIT,
        "Lower hub.budget.connects_per_second or the devices' rate, or add units to the hub.", retryable=True,
    ),
    Refusal(
        429002, "throttle_backlog", "ThrottleBacklogLimitExceeded", "Too many throttled requests wait",
        _CLOSED, "detach amqp:resource-limit-exceeded", Ask.WAIT, Ask.WAIT,
        "Lower the devices' rate, or add units to the hub.", retryable=True,
    ),
    Refusal(
        429003, "throttle_timeout", "ThrottlingBacklogTimeout", "A throttled request waited too long",
        _CLOSED, "rejected com.microsoft:device-container-throttled", Ask.WAIT, Ask.WAIT,
        "Lower the devices' rate, or add units to the hub.", retryable=True,
    ),
    Refusal(
        429005, "device_throttled", "DeviceThrottlingLimitExceeded", "This device alone sends too fast",
        _CLOSED, "rejected com.microsoft:device-container-throttled", Ask.WAIT, Ask.WAIT,
        "Lower this device's rate.", retryable=True,
    ),
    Refusal(
        500001, "internal", "ServerError", "An internal error of the hub", _CONNACK_3,
        "detach amqp:internal-error", Ask.WAIT, Ask.WAIT,
        "Nothing to do; if it lasts, look at the Azure status page.", retryable=True,
    ),
    Refusal(
        500008, "internal_timeout", "GenericTimeout", "The hub timed out inside", _CONNACK_3,
        "detach com.microsoft:timeout", Ask.WAIT, Ask.WAIT,
        "Nothing to do; if it lasts, look at the Azure status page.", retryable=True,
    ),
    Refusal(
        503001, "busy", "ServiceUnavailable", "The hub is busy or throttles new connections", _CONNACK_3,
        _BUSY, Ask.WAIT, Ask.WAIT,
        "All dials slow down together for a while. If it repeats, lower hub.budget.connects_per_second or "
        "add units.",
        retryable=True,
    ),
    Refusal(
        503003, "partition_not_found", "PartitionNotFound", "A partition of the hub is moving", _CONNACK_3,
        _BUSY, Ask.WAIT, Ask.WAIT, "Nothing to do: reconnecting works.", retryable=True,
    ),
    Refusal(
        503005, "busy", "ServerBusy", "The hub is busy", _CONNACK_3, _BUSY, Ask.WAIT, Ask.WAIT,
        "Nothing to do; if it lasts, look at the Azure status page.", retryable=True,
    ),
    Refusal(
        503008, "link_opens_throttled", "ReceiveLinkOpensThrottled", "Too many receive links are opened",
        _CLOSED, _BUSY, Ask.WAIT, Ask.WAIT, "Nothing to do: links are opened again, paced.", retryable=True,
    ),
    Refusal(
        504101, "gateway_timeout", "GatewayTimeout", "The device did not answer a method in time", _NO_MQTT,
        "does not show on a link: the caller of the method gets it", Ask.WAIT, Ask.WAIT,
        "Call the method with a longer timeout, or see why the device is slow.", retryable=True,
    ),
)
# fmt: on

_BY_KEY: Final = {(row.code, row.cause): row for row in TABLE}


def refusal(code: int, cause: str) -> Refusal:
    """The row of `code` with `cause`; raises KeyError when the table has none."""
    return _BY_KEY[code, cause]


def causes(code: int) -> tuple[Refusal, ...]:
    """All rows of `code`, in the table's order; empty for a code the table does not know."""
    return tuple(row for row in TABLE if row.code == code)


def known_codes() -> tuple[int, ...]:
    """Every code of the table, ascending."""
    return tuple(sorted({row.code for row in TABLE}))


def explain(code: int) -> tuple[str, ...]:
    """What `gatewayd explain CODE` prints, line by line; empty for a code the table does not know."""
    rows = causes(code)
    if not rows:
        return ()
    lines = [f"{code} {rows[0].name}"]
    if len(rows) > 1:
        lines.append(f"{len(rows)} causes share this code.")
    for row in rows:
        lines += [
            "",
            f"cause       {row.cause}" + (" (our own doing, not counted as a fault)" if row.planned else ""),
            f"hub's log   {row.hub_log}",
            f"on MQTT     {row.mqtt}",
            f"on AMQP     {row.amqp}",
            f"we          {row.ask.value}" + (f"; then {row.then.value}" if row.then is not row.ask else ""),
            f"you         {row.remedy}",
        ]
    return tuple(lines)


@dataclass(frozen=True, slots=True)
class Inference:
    """The likeliest row for what MQTT showed, and the observation it rests on. Not the hub's own word."""

    refusal: Refusal
    because: str

    def __str__(self) -> str:
        return f"{self.refusal}, inferred: {self.because}"


def classify_connack(code: int, *, clock_trusted: bool, token_fresh: bool) -> Inference:
    """What a CONNACK other than 0 means. `token_fresh`: the token presented was signed for this very attempt.

    Raises ValueError for 0, which is no refusal.
    """
    if code == 0:
        raise ValueError("CONNACK 0 is no refusal")
    if code == 3:
        return Inference(
            refusal(503001, "busy"), "CONNACK 3: the hub throttles new connections or failed itself"
        )
    if code in (4, 5):
        if not clock_trusted:
            return Inference(refusal(401003, "expired"), f"CONNACK {code} while our clock is not trusted")
        if not token_fresh:
            return Inference(refusal(401003, "expired"), f"CONNACK {code} to a token that was not fresh")
        return Inference(
            refusal(401003, "credential"),
            f"CONNACK {code} with a good clock and a fresh token; MQTT cannot say why",
        )
    return Inference(
        refusal(400000, "unexpected_answer"), f"CONNACK {code}, which a classic hub is not known to send"
    )


def classify_close(
    *,
    connected_for: float | None,
    expired_for: float | None,
    short_lives: int = 0,
) -> Inference:
    """What the hub's closing of a connection, without a packet, means. All times are in seconds.

    `connected_for`: since CONNACK 0, None when there was none. `expired_for`: since the expiry of the token
    in use, negative before it, None for a certificate or an untrusted clock. `short_lives`: how many
    connections in a row, this one included, the hub closed within DUPLICATE_SPELL_SECONDS of CONNACK 0.

    The echo of our own fast handover is not inferred here: the connection it ends is one we have already left.
    """
    if expired_for is not None and expired_for >= -EXPIRY_TOLERANCE_SECONDS:
        return Inference(
            refusal(401003, "expired"), f"closed {expired_for:.0f} s after the expiry of the token in use"
        )
    if connected_for is None:
        return Inference(refusal(503001, "busy"), "closed before CONNACK")
    if connected_for <= DUPLICATE_SPELL_SECONDS and short_lives >= DUPLICATE_REPEATS:
        return Inference(
            refusal(400027, "suspected"),
            f"closed {connected_for:.0f} s after connect, {short_lives} times in a row: suspected",
        )
    return Inference(refusal(404104, "closed"), "closed with a live token, without a word")
