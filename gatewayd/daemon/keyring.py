"""The fleet's keys: from the device file into the key table, and where each identity's keys lie.

Key text is wiped as it is filed; afterwards keys exist only as midstates in the table's locked memory.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from gatewayd.credentials.device_file import open_device_file
from gatewayd.credentials.secret_file import wipe
from gatewayd.flow.hub_tokens import KeyIndices
from gatewayd.message import Identity
from gatewayd.protocol.iothub.sas import resource
from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.signer import Signer

_LOG: Final = logging.getLogger(__name__)


class Keyring:
    """Keys by identity. `load` may take a second for 100,000 devices; until it is done nobody is called unknown."""

    def __init__(self, hub_hostname: str, *, capacity: int) -> None:
        self.table = KeyTable(max(1, capacity))
        self.signer = Signer(self.table)
        self.by_identity: dict[Identity, KeyIndices] = {}
        self.loaded = False
        self.generation = 0  # of `by_identity`: another number, other identities
        self._hub_hostname = hub_hostname

    def load(self, path: Path, *, check_permissions: bool) -> int:
        """File every key of a device file; how many identities there are. Raises DeviceFileError, KeyMalformed."""
        with open_device_file(path, check_permissions=check_permissions) as file:
            for identity, primary, secondary in file:
                try:
                    self.by_identity[identity] = self._add(identity, primary, secondary)
                finally:
                    wipe(primary)
                    if secondary is not None:
                        wipe(secondary)
        self.loaded = True
        self.generation += 1
        if not self.table.locked:
            _LOG.warning(
                "the keys could not be locked in memory and may reach swap: raise RLIMIT_MEMLOCK (LimitMEMLOCK=)"
            )
        return len(self.by_identity)

    def indices(self, identity: Identity) -> tuple[int, ...] | None:
        """Where the identity's keys lie, primary first; None for one that is not here."""
        keys = self.by_identity.get(identity)
        if keys is None:
            return None
        return (keys.primary,) if keys.secondary is None else (keys.primary, keys.secondary)

    def close(self) -> None:
        """Wipe all keys."""
        self.table.close()

    def _add(self, identity: Identity, primary: bytearray, secondary: bytearray | None) -> KeyIndices:
        audience = resource(self._hub_hostname, identity)
        name = str(identity)
        first = self.table.add(name, primary, audience)
        return KeyIndices(first, None if secondary is None else self.table.add(name, secondary, audience))
