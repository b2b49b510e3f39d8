"""The dialer that the configuration asks for: which transport, which endpoint, through which proxy."""

from __future__ import annotations

import asyncio

from gatewayd.credentials.proxy_credentials import read_proxy_credentials
from gatewayd.daemon.config import Config
from gatewayd.daemon.tuning import HUB_STREAM_LIMITS, dial_deadlines
from gatewayd.transport.tls_contexts import client_context
from gatewayd.transport.worker import Worker
from gatewayd.upstream.dialer import Dialer, Endpoint, Proxy


def make_dialer(loop: asyncio.AbstractEventLoop, config: Config, worker: Worker) -> Dialer:
    """Raises ConfigError when a file it needs cannot be used."""
    hub = config.hub
    return Dialer(
        loop,
        Endpoint(hub.dialled.host, hub.dialled.port, hub.hostname),
        client_context(hub.trusted_ca),
        worker,
        deadlines=dial_deadlines(config),
        limits=HUB_STREAM_LIMITS,
        websocket=hub.transport == "websocket",
        proxy=_proxy(config),
    )


def _proxy(config: Config) -> Proxy | None:
    hub = config.hub
    if hub.proxy is None:
        return None
    authorization = None
    if hub.proxy_credentials is not None:
        # Who may read the file was judged with all other files, before the start.
        authorization = read_proxy_credentials(hub.proxy_credentials, check_permissions=False)
    return Proxy(hub.proxy.host, hub.proxy.port, authorization)
