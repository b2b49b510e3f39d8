"""Checks devices' tokens with the native key table: the daemon's `TokenVerifier`.

Every key of a device is tried, also after one has fitted, so that the time taken does not tell which.
"""

from __future__ import annotations

from collections.abc import Callable

from gatewayd.downstream.admission import Verdict
from gatewayd.errors import RemoteProtocolError
from gatewayd.message import Identity
from gatewayd.tokens.signer import Signer


class KeyTableVerifier:
    """`indices` gives where a device's keys lie in the table: primary, secondary; None for a device it does not know.

    `loaded` is False until every device's keys are in the table: until then no device is called unknown.
    """

    __slots__ = ("_indices", "_loaded", "_signer")

    def __init__(
        self,
        signer: Signer,
        indices: Callable[[Identity], tuple[int, ...] | None],
        loaded: Callable[[], bool] = lambda: True,
    ) -> None:
        self._signer = signer
        self._indices = indices
        self._loaded = loaded

    def verify(self, identity: Identity, token: bytes) -> Verdict:
        """See TokenVerifier."""
        if not self._loaded():
            return Verdict.NOT_READY
        indices = self._indices(identity)
        if indices is None:
            return Verdict.UNKNOWN_DEVICE
        try:
            authentic = [self._signer.verify(index, token).authentic for index in indices]
        except RemoteProtocolError:
            return Verdict.FORGED
        return Verdict.AUTHENTIC if any(authentic) else Verdict.FORGED
