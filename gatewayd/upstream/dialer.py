"""Makes connections to one hub: TLS, with WebSocket frames inside where these are wanted, through a proxy where one is.

Each dial asks DNS anew, tries the addresses one after another inside one overall deadline, and ends with a stream or
with DialFailed. Addresses that failed while another one answered go to the end of the next dial's list, so a dead
address (an IPv6 route that leads nowhere, say) costs its timeout once and not at every dial.

The endpoint may be overridden; SNI and the certificate check stay with the hub's host name, so a wrong override can
fail but never reach somebody else. A proxy is in the same position: it is asked for the endpoint by name, so that its
DNS is the one that counts, and TLS runs through it.

One TLS session is kept and offered to every dial, because a resumed handshake costs less than half of the CPU (with
RSA about 0.3 ms instead of 0.8, of which 0.2 are the copy that Python's ssl makes of a session) and, with TLS 1.2, a
round trip less. When the hub declines it, it is replaced by that connection's own. When a handshake that offered it
fails none is offered for a while: should something on the way dislike resumption, every other dial would fail.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, field

from gatewayd.errors import Bounded, DialFailed
from gatewayd.transport.addresses import SocketAddress
from gatewayd.transport.connect_proxy import Tunnel
from gatewayd.transport.stream import Stream, StreamOwner
from gatewayd.transport.tls_stream import StreamLimits, TlsStream
from gatewayd.transport.tls_transport import open_stream
from gatewayd.transport.websocket_transport import open_websocket
from gatewayd.transport.websocket_upgrade import PATH
from gatewayd.transport.worker import Worker

# A full handshake costs about 1 ms of CPU more than a resumed one, so a minute without resumption is cheap.
RESUMPTION_REST_SECONDS = 60.0

HTTPS_PORT = 443
# Java and C# devices say so when they show no client certificate; it keeps the hub from asking for one.
WEBSOCKET_TARGET = f"{PATH}?iothub-no-client-cert=true"

_STAGES = ("resolve", "connect", "proxy", "handshake", "upgrade")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the hub is dialled, and the name it must prove to have."""

    host: str
    port: int
    hostname: str

    @property
    def host_header(self) -> str:
        """How HTTP calls the hub: with a port unless it is the usual one."""
        return self.hostname if self.port == HTTPS_PORT else f"{self.hostname}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """The HTTP proxy through which the hub is reached, and the value of Proxy-Authorization when it wants one."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DialDeadlines:
    """Seconds for a whole dial, and for its stages at one address.

    `connect` is for TCP, and again for a proxy's answer; `handshake` for TLS, and again for a WebSocket upgrade.
    """

    overall: float = 30.0
    connect: float = 10.0
    handshake: float = 10.0


class Dialer:
    """Dials one hub, for any number of identities at the same time."""

    __slots__ = (
        "_context",
        "_deadlines",
        "_endpoint",
        "_limits",
        "_loop",
        "_proxy",
        "_rest_until",
        "_session",
        "_unanswering",
        "_websocket",
        "_worker",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: Endpoint,
        context: ssl.SSLContext,
        worker: Worker,
        *,
        deadlines: DialDeadlines | None = None,
        limits: StreamLimits | None = None,
        websocket: bool = False,
        proxy: Proxy | None = None,
    ) -> None:
        """With `websocket` the streams carry MQTT in WebSocket frames inside the TLS."""
        self._loop = loop
        self._websocket = websocket
        self._proxy = proxy
        self._endpoint = endpoint
        self._context = context
        self._worker = worker
        self._deadlines = deadlines or DialDeadlines()
        self._limits = limits or StreamLimits()
        self._session: ssl.SSLSession | None = None
        self._rest_until = 0.0  # no session is offered before this instant of the loop's time
        self._unanswering: frozenset[SocketAddress] = (
            frozenset()
        )  # of the newest dial that another address answered

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def retune(self, deadlines: DialDeadlines) -> None:
        """Use other deadlines from the next dial on."""
        self._deadlines = deadlines

    async def dial(self, owner: StreamOwner) -> Stream:
        """A stream on which `owner` has been told `stream_ready`. Raises DialFailed; then the owner heard nothing."""
        failures: list[DialFailed] = []
        stage = "resolve"
        try:
            async with asyncio.timeout(self._deadlines.overall):
                addresses = await self._addresses()
                stage = "connect"
                return await self._try_in_turn(addresses, owner, failures)
        except TimeoutError as error:
            before = f"; before that, {failures[-1]}" if failures else ""
            raise DialFailed(stage, f"not done within {self._deadlines.overall:g} s{before}") from error

    async def _addresses(self) -> tuple[SocketAddress, ...]:
        """What DNS says now, those that did not answer last time at the end. The hub's name is a proxy's to resolve."""
        place = self._proxy or self._endpoint
        name = place.host if self._proxy is None else f"proxy {place.host}"
        try:
            addresses = await self._worker.resolve(place.host, place.port)
        except socket.gaierror as error:
            raise DialFailed("resolve", f"{name}: {_dns_in_words(error)}") from error
        except Bounded as error:
            raise DialFailed("resolve", f"{name}: {error}") from error
        if not addresses:
            raise DialFailed("resolve", f"{name}: the name has no address for TCP")
        return tuple(sorted(addresses, key=self._unanswering.__contains__))

    async def _try_in_turn(
        self, addresses: tuple[SocketAddress, ...], owner: StreamOwner, failures: list[DialFailed]
    ) -> Stream:
        for tried, address in enumerate(addresses):
            try:
                stream = await self._try(address, owner)
            except DialFailed as error:
                failures.append(error)
            else:
                self._unanswering = frozenset(addresses[:tried])
                return stream
        # All failed: none of them is worse than the others.
        self._unanswering = frozenset()
        furthest = max(failures, key=lambda failure: _STAGES.index(failure.stage))
        if len(failures) == 1:
            raise furthest
        raise DialFailed(
            furthest.stage, f"{furthest.problem} ({len(failures)} addresses tried)"
        ) from furthest

    async def _try(self, address: SocketAddress, owner: StreamOwner) -> Stream:
        if not self._websocket:
            return await self._open(address, owner)
        return await open_websocket(
            lambda websocket: self._open(address, websocket),
            self._endpoint.host_header,
            owner,
            upgrade_timeout=self._deadlines.handshake,
            target=WEBSOCKET_TARGET,
        )

    async def _open(self, address: SocketAddress, owner: StreamOwner) -> TlsStream:
        offered = self._session if self._loop.time() >= self._rest_until else None
        try:
            stream = await open_stream(
                self._loop,
                address,
                self._context,
                self._endpoint.hostname,
                owner,
                connect_timeout=self._deadlines.connect,
                handshake_timeout=self._deadlines.handshake,
                session=offered,
                on_resumable=self._remember,
                limits=self._limits,
                tunnel=self._tunnel(),
            )
        except DialFailed as error:
            if self._proxy is not None and error.stage in {"connect", "proxy"}:
                raise DialFailed(error.stage, f"proxy {self._proxy.host}: {error.problem}") from error
            if offered is not None and error.stage == "handshake":
                self._session = None
                self._rest_until = self._loop.time() + RESUMPTION_REST_SECONDS
            raise
        if offered is not None and self._session is offered and not stream.session_reused:
            self._session = None
        return stream

    def _tunnel(self) -> Tunnel | None:
        if self._proxy is None:
            return None
        return Tunnel(self._endpoint.host, self._endpoint.port, self._proxy.authorization)

    def _remember(self, stream: TlsStream) -> None:
        # Only when there is none: a copy costs about 0.25 ms, and the one we have is good until the hub declines it.
        if self._session is None:
            self._session = stream.session


def _dns_in_words(error: socket.gaierror) -> str:
    if error.errno == socket.EAI_NONAME:
        return "DNS knows no such name; check the host name"
    if error.errno == socket.EAI_AGAIN:
        return "no DNS server answers; check the network"
    return error.strerror or str(error)
