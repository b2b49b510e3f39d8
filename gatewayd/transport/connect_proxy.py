"""A way through an HTTP proxy: CONNECT is said on the bare connection, and what follows goes to the hub and back.

h11 reads and writes the HTTP. Nothing of the hub's is entrusted to the proxy: TLS begins behind its answer, with the
hub's name checked, so a proxy can refuse, delay or cut, and read nothing.

Bounds: the answer's head has at most `MAX_HEAD_BYTES` and the exchange at most the seconds it is given. Every refusal
is a DialFailed with stage "proxy" and says who must act. A credential is in no message: what the proxy answers is
quoted by its status only, because it may repeat what it was sent.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Final

import h11

from gatewayd.errors import DialFailed

# h11's own default. Real answers have less than 1 KiB, error pages excluded, which are not read.
MAX_HEAD_BYTES: Final = 16384
_READ_BYTES: Final = 4096

# Who must act, by status (RFC 9110, 9.3.6 and 15).
_IN_WORDS: Final = {
    400: "it does not take the request; is it an HTTP proxy that allows CONNECT?",
    403: "its rules forbid {target}; whoever runs the proxy must allow it",
    404: "it knows no CONNECT; is this a web server instead of a proxy?",
    405: "it does not allow CONNECT; whoever runs the proxy must allow it for {target}",
    407: "{credentials}",
    429: "it has too many requests; the next attempt is scheduled",
    502: "it cannot reach {target}; whoever runs the proxy must look at its name lookup and its routes",
    503: "it cannot serve now, or cannot reach {target}; the next attempt is scheduled",
    504: "{target} did not answer it in time; the next attempt is scheduled",
}
_WITHOUT_CREDENTIALS: Final = "it wants a user and a password; set hub.proxy_credentials"
_WITH_CREDENTIALS: Final = "it does not accept the user and password in hub.proxy_credentials"


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Where the proxy is to connect to, and the value of Proxy-Authorization when it wants one."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)

    @property
    def target(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def open_tunnel(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, tunnel: Tunnel, *, within: float
) -> None:
    """Ask the proxy at the other end of `sock` for `tunnel`. Afterwards `sock` leads to its target.

    Raises DialFailed with stage "proxy", also when the answer takes longer than `within` seconds.
    """
    try:
        async with asyncio.timeout(within):
            await _exchange(loop, sock, tunnel)
    except TimeoutError as error:
        raise DialFailed("proxy", f"it did not answer CONNECT within {within:g} s") from error
    except OSError as error:
        raise DialFailed("proxy", f"the connection to it broke: {error.strerror or error}") from error


async def _exchange(loop: asyncio.AbstractEventLoop, sock: socket.socket, tunnel: Tunnel) -> None:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    headers = [("Host", tunnel.target)]
    if tunnel.authorization is not None:
        headers.append(("Proxy-Authorization", tunnel.authorization.decode("ascii")))
    request = http.send(h11.Request(method="CONNECT", target=tunnel.target, headers=headers))
    await loop.sock_sendall(sock, request or b"")
    while True:
        try:
            answer = http.next_event()
        except h11.RemoteProtocolError:
            # No cause is kept: h11 quotes what it could not read, and a proxy may repeat what it was sent.
            raise DialFailed(
                "proxy", "its answer to CONNECT is too long or not HTTP; is it an HTTP proxy?"
            ) from None
        if answer is h11.NEED_DATA:
            data = await loop.sock_recv(sock, _READ_BYTES)
            if not data:
                raise DialFailed("proxy", "it closed the connection instead of answering CONNECT")
            http.receive_data(data)
        elif isinstance(answer, h11.Response):
            break
    if not 200 <= answer.status_code < 300:
        raise DialFailed("proxy", _refusal(answer.status_code, tunnel))
    if http.trailing_data[0]:
        # TLS begins with us: nobody can have said anything in the tunnel yet.
        raise DialFailed("proxy", "it sent more than an answer to CONNECT; is it an HTTP proxy?")


def _refusal(status: int, tunnel: Tunnel) -> str:
    words = _IN_WORDS.get(status, "whoever runs the proxy must act" if status < 500 else _IN_WORDS[503])
    credentials = _WITHOUT_CREDENTIALS if tunnel.authorization is None else _WITH_CREDENTIALS
    return f"CONNECT was refused with {status}: {words.format(target=tunnel.target, credentials=credentials)}"
