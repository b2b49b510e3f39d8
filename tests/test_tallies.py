"""Tallies against the library's own metrics: the same steps must read the same on /metrics."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from gatewayd.tallies import TallyFamily, TallyHistogram

BUCKETS = (0.005, 0.25, 1.0, 30.0)


@pytest.fixture(autouse=True)
def _no_created_series() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library does not type it


def test_a_family_reads_as_the_librarys_counter_does() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tallies = TallyFamily("gatewayd_messages", "Messages.", ("direction", "stage"), ours)
    counter = Counter("gatewayd_messages", "Messages.", ("direction", "stage"), registry=theirs)
    for family in (tallies, counter):
        family.labels("up", "sent")
        family.labels("up", "received").inc()
        family.labels("up", "received").inc(4)
        family.labels("down", 'odd "\\\n').inc()
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_histogram_reads_as_the_librarys_does() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = TallyHistogram("gatewayd_latency_seconds", "Latency.", BUCKETS, ours)
    histogram = Histogram("gatewayd_latency_seconds", "Latency.", buckets=BUCKETS, registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
    for either in (tally, histogram):
        for value in (0.0, 0.004, 0.005, 0.0051, 0.25, 0.9, 1.0, 29.0, 30.0, 31.0, 1e9):
            either.observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_name_is_taken_once() -> None:
    registry = CollectorRegistry()
    TallyFamily("gatewayd_messages", "Messages.", ("stage",), registry)
    with pytest.raises(ValueError, match="gatewayd_messages"):
        TallyFamily("gatewayd_messages", "Messages.", ("stage",), registry)
    TallyHistogram("gatewayd_latency_seconds", "Latency.", BUCKETS, registry)
    with pytest.raises(ValueError, match="gatewayd_latency_seconds"):
        Histogram("gatewayd_latency_seconds", "Latency.", registry=registry)


def test_a_series_has_a_value_for_each_label() -> None:
    family = TallyFamily("gatewayd_messages", "Messages.", ("direction", "stage"), CollectorRegistry())
    with pytest.raises(ValueError, match="1 label values for"):
        family.labels("up")


def test_a_series_is_the_same_one_each_time() -> None:
    family = TallyFamily("gatewayd_messages", "Messages.", ("stage",), CollectorRegistry())
    assert family.labels("sent") is family.labels("sent")
