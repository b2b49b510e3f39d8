"""Where a socket goes: one numeric address with its family, as the resolver answers it.

Names are not resolved here; `worker.Worker.resolve` does that off the loop.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A numeric TCP address. `sockaddr` is what `socket.connect` takes for `family`."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]

    @property
    def host(self) -> str:
        return self.sockaddr[0]

    @property
    def port(self) -> int:
        return self.sockaddr[1]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.family == socket.AF_INET6 else f"{self.host}:{self.port}"

    @classmethod
    def numeric(cls, host: str, port: int) -> SocketAddress:
        """From "192.0.2.1" or "2001:db8::1". Raises ValueError for a name: this never asks a resolver."""
        try:
            answers = socket.getaddrinfo(
                host,
                port,
                type=socket.SOCK_STREAM,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
        except socket.gaierror as error:
            raise ValueError(f"{host!r}: expected a numeric IPv4 or IPv6 address") from error
        return from_getaddrinfo(answers)[0]


# One answer of socket.getaddrinfo: family, type, protocol, canonical name, socket address.
AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


def from_getaddrinfo(answers: Sequence[AddressInfo]) -> tuple[SocketAddress, ...]:
    """The TCP addresses among the resolver's answers, in its order, each once."""
    found: dict[SocketAddress, None] = {}
    for family, _type, _protocol, _name, sockaddr in answers:
        if isinstance(sockaddr[0], str):
            found[SocketAddress(family, sockaddr)] = None
    return tuple(found)
