"""From the configuration to a dialer: transport, endpoint, proxy and its credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayd.daemon.config_load import parse_config
from gatewayd.daemon.hub_dialer import make_dialer
from gatewayd.errors import ConfigError, DialFailed
from gatewayd.transport.worker import Worker
from tests.support.proxy_rig import proxy_rig
from tests.support.stream_owners import Recorder

WHERE = '[hub]\nhostname = "h.net"\n{}\n[listener]\ncertificate = "c"\n[devices]\nfile = "d"\n'


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker(asyncio.get_running_loop())
    yield worker
    assert await worker.stop(within=5.0)


async def test_plain_mqtt_is_dialled_at_its_endpoint(worker: Worker) -> None:
    dialer = make_dialer(asyncio.get_running_loop(), parse_config(WHERE.format("")), worker)
    assert (dialer.endpoint.host, dialer.endpoint.port, dialer.endpoint.hostname) == ("h.net", 8883, "h.net")


@pytest.mark.parametrize(("transport", "port"), [("mqtt", 8883), ("websocket", 443)])
async def test_a_proxy_is_asked_for_the_hub_by_name_with_its_credentials(
    worker: Worker, tmp_path: Path, transport: str, port: int
) -> None:
    secret = tmp_path / "proxy"
    secret.write_text("Aladdin:open sesame\n")
    async with proxy_rig(refuse=503) as proxy:
        text = (
            f'transport = "{transport}"\nproxy = "http://127.0.0.1:{proxy.port}"\n'
            f'proxy_credentials = "{secret}"'
        )
        dialer = make_dialer(asyncio.get_running_loop(), parse_config(WHERE.format(text)), worker)
        with pytest.raises(DialFailed, match=r"proxy: proxy 127\.0\.0\.1: CONNECT was refused with 503"):
            await dialer.dial(Recorder())
        assert proxy.targets == [f"h.net:{port}"]
        # The example of RFC 7617, 2.
        assert b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in proxy.requests[0]


async def test_credentials_that_cannot_be_read_are_the_operators(worker: Worker, tmp_path: Path) -> None:
    text = f'proxy = "http://p:1"\nproxy_credentials = "{tmp_path / "missing"}"'
    with pytest.raises(ConfigError, match="missing"):
        make_dialer(asyncio.get_running_loop(), parse_config(WHERE.format(text)), worker)
