"""What the hub keeps for an identity between connections: subscriptions, what is unacknowledged, its queue. Pure.

With CleanSession 0 subscriptions and the MQTT session outlive the connection: what the device was sent with QoS 1 and
did not acknowledge comes again with the same packet id and DUP. With CleanSession 1, and when the hub has lost the
session, they do not. The queue belongs to the service and outlives both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gatewayd.emulator.cloud_queue import CloudQueue, Entry
from gatewayd.protocol.mqtt.session import Session


@dataclass(slots=True)
class StoredSession:
    """One identity's state at the hub."""

    kept: bool = False  # a CleanSession 0 connection made it: the next one finds session-present
    subscriptions: dict[str, int] = field(default_factory=dict)  # filter -> granted QoS
    queue: CloudQueue = field(default_factory=CloudQueue)
    mqtt: Session = field(default_factory=Session)

    def open(self, *, clean: bool, lost: bool, fresh_ids: bool = False) -> bool:
        """A connection is accepted; says session-present.

        `lost` forgets what was stored (a fault); `fresh_ids` forgets which messages went under which packet id.
        """
        present = self.kept and not clean and not lost
        if not present:
            self.subscriptions.clear()
        if not present or fresh_ids:
            self.mqtt = Session()
            self.queue.unlock(forget=True)
        self.kept = not clean
        return present

    def closed(self) -> None:
        """The connection is over: what the device has not acknowledged is the hub's again."""
        self.queue.unlock(forget=False)

    def lose(self) -> None:
        """Forget the session, as a hub that comes back somewhere else may."""
        self.kept = False
        self.subscriptions.clear()

    def sweep(self, now: float, wall: float) -> None:
        """Let go of cloud messages whose time or deliveries are used up."""
        for entry in self.queue.sweep(now, wall):
            self._forget(entry)

    def purge(self) -> int:
        """Let go of every cloud message that no device has; how many that were."""
        purged = self.queue.purge()
        for entry in purged:
            self._forget(entry)
        return len(purged)

    def _forget(self, entry: Entry) -> None:
        if entry.packet_id:
            self.mqtt.settle(entry.packet_id)
