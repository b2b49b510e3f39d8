"""Counters and histograms for what happens with every message: plain numbers, read when somebody looks.

The library's own take a lock and three calls for each step, and five steps a message were 5 % of what a message costs.
These are for one thread: whoever counts and whoever scrapes share the event loop. They look the same on /metrics and to
the code that counts: `labels(...)`, `inc()`, `observe()`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally:
    """One series of a `TallyFamily`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Something happened, once or `amount` times."""
        self.value += amount


class TallyFamily(Collector):
    """A counter with labels."""

    def __init__(self, name: str, text: str, labels: Iterable[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._series: dict[tuple[str, ...], Tally] = {}
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """The series of these label values, at 0 from its first use."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name}: {len(values)} label values for {self._labels}")
        return self._series.setdefault(values, Tally())

    def describe(self) -> Iterator[CounterMetricFamily]:
        """The family without its series: the registry takes each name once."""
        yield CounterMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The family as it is now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, tally in self._series.items():
            family.add_metric(values, tally.value)
        yield family


class TallyHistogram(Collector):
    """A histogram without labels."""

    def __init__(self, name: str, text: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._text = text
        self._bounds = (*buckets, float("inf"))
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """One more of `value`; a bucket holds its own bound."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """As `TallyFamily.describe`."""
        yield HistogramMetricFamily(self._name, self._text)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As it is now; on /metrics buckets are cumulative."""
        buckets = list(zip(map(floatToGoString, self._bounds), accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)
