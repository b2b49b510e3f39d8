"""What is read of the daemon: its own metrics, its own log lines, the kernel's account of its memory."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator

import aiohttp
import psutil
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from gatewayd.clock import ManualClock
from gatewayd.daemon.log_formats import JsonLines
from gatewayd.demo.readings import DaemonLog, DaemonReading, Handover, NotThere, fetch, parse_metrics, rss_kib
from gatewayd.metrics import Metrics


def line(level: int, message: str, **fields: object) -> str:
    """A line as the daemon writes it."""
    record = logging.LogRecord("gatewayd", level, "", 0, message, None, None)
    record.__dict__.update(fields)
    return JsonLines().format(record)


def test_the_daemon_s_own_metrics_are_understood() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.token_renewals.labels("mqtt", "ok").inc(7)
    metrics.token_renewals.labels("mqtt", "failed").inc(2)
    metrics.build_info.labels("0.1.0", "x86 SHA-NI x2").set(1)
    text = generate_latest(metrics.registry).decode()
    assert parse_metrics(text) == DaemonReading(2, "x86 SHA-NI x2")


def test_a_daemon_that_says_nothing_counts_as_nothing() -> None:
    assert parse_metrics("") == DaemonReading(0, "")


def test_gap_and_drain_of_each_renewal_are_taken_from_the_log() -> None:
    log = DaemonLog(ManualClock(monotonic=7.0))
    log.take(line(logging.DEBUG, "renewed", identity="d1", gap_ms=4.5, drain_ms=1.0))
    log.take(line(logging.DEBUG, "renewed", identity="d2", gap_ms=6.0, drain_ms=0.0))
    assert log.handovers == [Handover(7.0, 0.0045, 0.001), Handover(7.0, 0.006, 0.0)]
    assert not log.warnings


def test_warnings_are_kept_up_to_a_bound_and_other_lines_are_not() -> None:
    log = DaemonLog(ManualClock(monotonic=7.0))
    log.take(line(logging.INFO, "started"))
    for number in range(30):
        log.take(line(logging.WARNING, f"trouble {number}"))
    assert len(log.warnings) == 10
    assert json.loads(log.warnings[-1])["message"] == "trouble 29"


@pytest.mark.parametrize("words", ["Traceback (most recent call last):", "[1, 2]", "7"])
def test_what_is_not_a_log_line_is_kept_as_a_warning(words: str) -> None:
    log = DaemonLog(ManualClock(monotonic=7.0))
    log.take(words)
    assert list(log.warnings) == [words]


def test_resident_memory_is_the_kernel_s() -> None:
    ours = psutil.Process().memory_info().rss / 1024
    assert rss_kib(os.getpid()) == pytest.approx(ours, rel=0.1)


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert rss_kib(2**22 + 1) == 0


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async def good(_: web.Request) -> web.Response:
        return web.Response(text="fine")

    async def bad(_: web.Request) -> web.Response:
        return web.Response(status=503, text="not ready")

    application = web.Application()
    application.add_routes([web.get("/good", good), web.get("/bad", bad)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_good_answer_is_its_body(server: str) -> None:
    async with aiohttp.ClientSession() as http:
        assert await fetch(http, f"{server}/good") == "fine"


async def test_any_other_answer_is_none(server: str) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(NotThere, match="503"):
            await fetch(http, f"{server}/bad")
        with pytest.raises(NotThere, match="ClientConnectorError"):
            await fetch(http, "http://127.0.0.1:1/good")
