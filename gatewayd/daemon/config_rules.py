"""What the keys of a configuration must mean together. Pure.

Each rule names the keys it reads. When one of them is wrong in itself, the rule is not asked: its answer would be about
a value nobody wrote. The rule about the number of devices needs the device file and is in config_files.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

from gatewayd.daemon.config import Config
from gatewayd.daemon.config_values import duration_text
from gatewayd.errors import ConfigProblem


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule and the keys it reads."""

    reads: tuple[str, ...]
    find: Callable[[Config], Iterator[ConfigProblem]]

    def may_be_asked(self, skip: Set[str]) -> bool:
        """False when a key it reads, or a table around one, is in `skip`."""
        return not any(key == wrong or key.startswith(wrong + ".") for key in self.reads for wrong in skip)


def broken_rules(config: Config, skip: Set[str] = frozenset()) -> list[ConfigProblem]:
    """Every rule that does not hold, except those that read a key in `skip`."""
    return _ask(RULES, config, skip)


def doubts(config: Config, skip: Set[str] = frozenset()) -> list[ConfigProblem]:
    """What works and is probably not meant: warnings of `gatewayd check`, log lines of a start."""
    return _ask(DOUBTS, config, skip)


def longest_attempt(config: Config) -> float:
    """Seconds one renewal may take when every step takes all the time it is given."""
    deadlines, tokens = config.hub.deadlines, config.tokens
    # The new connection is made while the old one still serves, so dial and handshake come first, then the handover.
    seconds = deadlines.dial + deadlines.handshake + tokens.handover_drain + deadlines.connack
    return seconds + (tokens.handover_patience if tokens.handover == "strict" else 0.0)


def _ask(rules: tuple[Rule, ...], config: Config, skip: Set[str]) -> list[ConfigProblem]:
    return [problem for rule in rules if rule.may_be_asked(skip) for problem in rule.find(config)]


def _window_is_a_window(config: Config) -> Iterator[ConfigProblem]:
    tokens = config.tokens
    if tokens.renew_earliest >= tokens.renew_latest:
        yield ConfigProblem(
            "tokens.renew_earliest",
            f"{tokens.renew_earliest:.2f} is not before renew_latest = {tokens.renew_latest:.2f}",
            f"less than {tokens.renew_latest:.2f}",
        )


def _each_deadline_ends_before_expiry(config: Config) -> Iterator[ConfigProblem]:
    """A renewal begun at the end of the window must learn from each single step in time that it failed."""
    deadlines = config.hub.deadlines
    rest = _rest_after_the_window(config)
    for name in ("dial", "handshake", "connack"):
        seconds = getattr(deadlines, name)
        if seconds > rest:
            yield ConfigProblem(
                f"hub.deadlines.{name}",
                f"{duration_text(seconds)} is longer than the {duration_text(rest)} that a token of "
                f"{duration_text(config.tokens.lifetime)} has left at renew_latest = {config.tokens.renew_latest:.2f}",
                f"at most {duration_text(rest)}, or a longer tokens.lifetime, or an earlier tokens.renew_latest",
            )


def _a_whole_attempt_fits(config: Config) -> Iterator[ConfigProblem]:
    rest, attempt = _rest_after_the_window(config), longest_attempt(config)
    if attempt > rest:
        yield ConfigProblem(
            "tokens.lifetime",
            f"a renewal may take {duration_text(attempt)} when the hub is slow at every step, and a token has "
            f"{duration_text(rest)} left at renew_latest = {config.tokens.renew_latest:.2f}",
            "a longer lifetime, an earlier renew_latest, or shorter hub.deadlines",
        )


def _rest_after_the_window(config: Config) -> float:
    return config.tokens.lifetime * (1.0 - config.tokens.renew_latest)


def _backoff_grows(config: Config) -> Iterator[ConfigProblem]:
    backoff = config.tokens.backoff
    if backoff.first > backoff.ceiling:
        yield ConfigProblem(
            "tokens.backoff.first",
            f"{duration_text(backoff.first)} is longer than ceiling = {duration_text(backoff.ceiling)}",
            f"at most {duration_text(backoff.ceiling)}",
        )


def _listeners_differ(config: Config) -> Iterator[ConfigProblem]:
    address, websocket = config.listener.address, config.listener.websocket_address
    taken = [one for one in (address, websocket) if one is not None and one.port != 0]
    if config.metrics.address in taken:
        yield ConfigProblem("metrics.address", "is the address of the listener", "an address of its own")
    if websocket == address and address.port != 0:
        yield ConfigProblem(
            "listener.websocket_address", "is the address of the listener", "an address of its own"
        )


def _credentials_have_a_proxy(config: Config) -> Iterator[ConfigProblem]:
    if config.hub.proxy_credentials is not None and config.hub.proxy is None:
        yield ConfigProblem(
            "hub.proxy_credentials", "there is no proxy they are for", "with hub.proxy, or not at all"
        )


def _endpoints_are_dialled(config: Config) -> Iterator[ConfigProblem]:
    """Where the other transport would be dialled says nothing."""
    endpoints, transport = config.hub.endpoints, config.hub.transport
    for name, endpoint in (("mqtt", endpoints.mqtt), ("websocket", endpoints.websocket)):
        if endpoint is not None and name != transport:
            yield ConfigProblem(
                f"hub.endpoints.{name}",
                f'is not used with hub.transport = "{transport}"',
                "the other transport",
            )


def _devices_find_the_websocket(config: Config) -> Iterator[ConfigProblem]:
    # The port stands in the source of the SDKs, as 8883 does.
    address = config.listener.websocket_address
    if address is not None and address.port != 443:
        yield ConfigProblem(
            "listener.websocket_address",
            f"device SDKs dial port 443 for WebSocket and cannot be told port {address.port}",
            "port 443, unless something before gatewayd forwards it",
        )


def _who_reads_from_outside_is_known(config: Config) -> Iterator[ConfigProblem]:
    """What others can reach asks for a token, or the operator has written that the numbers may be had without."""
    metrics = config.metrics
    if not metrics.address.is_loopback and metrics.token_file is None and metrics.anonymous == "probes":
        yield ConfigProblem(
            "metrics.address",
            f"{metrics.address} can be reached from outside, and nothing says who may read there",
            'metrics.token_file, or metrics.anonymous = "metrics" (numbers for all, no page), or a loopback '
            'address, or "unix:/path"',
        )


def _metrics_stay_here(config: Config) -> Iterator[ConfigProblem]:
    metrics = config.metrics
    if not metrics.address.is_loopback and metrics.token_file is not None:
        yield ConfigProblem(
            "metrics.address",
            f"{metrics.address} can be reached from outside without TLS: who listens on the way reads the token",
            "a loopback address or a socket, with a proxy for TLS in front",
        )
    elif not metrics.address.is_loopback:
        yield ConfigProblem(
            "metrics.address",
            f"{metrics.address} can be reached from outside, and /metrics is told to everyone there",
            "metrics.token_file, where not every neighbour may know how many devices there are and how they fare",
        )


def _the_hub_allows_the_budget(config: Config) -> Iterator[ConfigProblem]:
    # Azure "IoT Hub quotas and throttling": S1 allows max(100/s, 12/s per unit) new device connections.
    if config.hub.budget.connects_per_second > 100:
        yield ConfigProblem(
            "hub.budget.connects_per_second",
            f"{config.hub.budget.connects_per_second} is more than an S1 hub of up to 8 units allows in all",
            "at most 100 unless the hub is larger",
        )


_WINDOW = ("tokens.renew_earliest", "tokens.renew_latest")
_DEADLINES = ("hub.deadlines.dial", "hub.deadlines.handshake", "hub.deadlines.connack")
_HANDOVER = ("tokens.handover", "tokens.handover_drain", "tokens.handover_patience")
_STATUS = ("metrics.address", "metrics.token_file", "metrics.anonymous")

RULES: tuple[Rule, ...] = (
    Rule(_WINDOW, _window_is_a_window),
    Rule(("tokens.lifetime", "tokens.renew_latest", *_DEADLINES), _each_deadline_ends_before_expiry),
    Rule(("tokens.backoff.first", "tokens.backoff.ceiling"), _backoff_grows),
    Rule(("metrics.address", "listener.address", "listener.websocket_address"), _listeners_differ),
    Rule(("hub.proxy", "hub.proxy_credentials"), _credentials_have_a_proxy),
    Rule(_STATUS, _who_reads_from_outside_is_known),
)

DOUBTS: tuple[Rule, ...] = (
    Rule(("tokens.lifetime", "tokens.renew_latest", *_DEADLINES, *_HANDOVER), _a_whole_attempt_fits),
    Rule(_STATUS, _metrics_stay_here),
    Rule(("hub.budget.connects_per_second",), _the_hub_allows_the_budget),
    Rule(("hub.transport", "hub.endpoints.mqtt", "hub.endpoints.websocket"), _endpoints_are_dialled),
    Rule(("listener.websocket_address",), _devices_find_the_websocket),
)
