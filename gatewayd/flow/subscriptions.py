"""What each device has subscribed to, kept durably per client id.

The SDKs count on it: Azure's Python SDK never subscribes again after a reconnect, whatever CONNACK says of the session,
and Node does so for some topics only. So a subscription outlives the connection and a restart of the gateway, until the
device gives it up or connects with a clean session. Such a one leaves nothing: its filters live as long as its
connection, and what was kept before goes.

Promises: session-present is said only when filters are kept; `done` is called once for each change, when it is on disk
or when the store could not write it now. The store tries again by itself, so a filter is granted either way: a device
is better served by a filter that might not outlive a crash than by none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, Protocol

from gatewayd.message import Identity
from gatewayd.protocol.iothub.operations import Operation, subscriptions

_NONE: Final[Mapping[str, int]] = {}
# What the hub queues for a device and forgets at its PUBACK.
_QUEUED: Final = frozenset({Operation.CLOUD_MESSAGE, Operation.MODULE_INPUT})


class SubscriptionStore(Protocol):
    """Where filters are kept; `store.store_thread.Store` is the one."""

    def keep_subscriptions(
        self, identity: Identity, filters: Mapping[str, int], done: Callable[[bool], None]
    ) -> None:
        """Keep these filters instead of any others; none: forget the identity."""


class Subscriptions:
    """The filters of all devices."""

    def __init__(self, store: SubscriptionStore) -> None:
        self._store = store
        self._kept: dict[Identity, dict[str, int]] = {}
        self._passing: dict[Identity, dict[str, int]] = {}  # of devices with a clean session
        self._being_written: dict[Identity, int] = {}

    def load(self, kept: Mapping[Identity, Mapping[str, int]]) -> None:
        """What the store had at its opening, before any device connects."""
        self._kept = {identity: dict(filters) for identity, filters in kept.items() if filters}

    def arrived(self, identity: Identity, *, clean_session: bool) -> bool:
        """A device connects; whether a session of it is present."""
        if clean_session:
            self._passing[identity] = {}
            if self._kept.pop(identity, None) is not None:
                self._write(identity, lambda _durable: None)
            return False
        self._passing.pop(identity, None)
        return identity in self._kept

    def left(self, identity: Identity) -> None:
        """The device is gone."""
        self._passing.pop(identity, None)

    def of(self, identity: Identity) -> Mapping[str, int]:
        """Filter -> QoS, of a device present or absent."""
        passing = self._passing.get(identity)
        return self._kept.get(identity, _NONE) if passing is None else passing

    def at_hub(self, identity: Identity) -> Mapping[str, int]:
        """The filters to have at the hub while the device is present.

        What the hub queues is asked for with QoS 1 even if the device wants QoS 0: the hub must not forget a message
        before it is written to the device.
        """
        documented = subscriptions(identity)
        return {
            name: 1 if documented.get(name) in _QUEUED else qos for name, qos in self.of(identity).items()
        }

    def subscribe(
        self, identity: Identity, filters: Iterable[tuple[str, int]], done: Callable[[], None]
    ) -> None:
        """The device asks for more."""
        self._change(identity, {**self.of(identity), **dict(filters)}, done)

    def unsubscribe(self, identity: Identity, filters: Iterable[str], done: Callable[[], None]) -> None:
        """The device gives filters up."""
        gone = frozenset(filters)
        kept = {name: qos for name, qos in self.of(identity).items() if name not in gone}
        self._change(identity, kept, done)

    def _change(self, identity: Identity, filters: dict[str, int], done: Callable[[], None]) -> None:
        if identity in self._passing:
            self._passing[identity] = filters
            done()
            return
        if filters == self.of(identity) and identity not in self._being_written:
            done()
            return
        if filters:
            self._kept[identity] = filters
        else:
            self._kept.pop(identity, None)
        self._write(identity, lambda _durable: done())

    def _write(self, identity: Identity, done: Callable[[bool], None]) -> None:
        self._being_written[identity] = self._being_written.get(identity, 0) + 1
        self._store.keep_subscriptions(
            identity, dict(self._kept.get(identity, _NONE)), partial(self._written, identity, done)
        )

    def _written(self, identity: Identity, done: Callable[[bool], None], durable: bool) -> None:
        left = self._being_written[identity] - 1
        if left:
            self._being_written[identity] = left
        else:
            del self._being_written[identity]
        done(durable)
