"""Names, zeros and labels of the families, read back by the library's own parser."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gatewayd.metrics import Metrics


def scrape() -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    registry = CollectorRegistry()
    Metrics(registry)
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_401003_and_404104_are_there_at_zero_from_the_start() -> None:
    errors = scrape()["gatewayd_hub_errors_total"]
    assert errors[("cause", "expired"), ("code", "401003")] == 0.0
    assert errors[("cause", "closed"), ("code", "404104")] == 0.0


def test_every_end_of_a_method_call_and_of_a_twin_request_is_there_at_zero_from_the_start() -> None:
    families = scrape()
    assert families["gatewayd_method_calls_total"][(("result", "no_hub"),)] == 0.0
    assert families["gatewayd_twin_requests_total"][("operation", "get"), ("result", "cached")] == 0.0


def test_every_name_follows_the_convention() -> None:
    assert [name for name in scrape() if not re.fullmatch(r"gatewayd_[a-z0-9_]+", name)] == []


def test_no_label_holds_a_device() -> None:
    labels = {label for series in scrape().values() for key in series for label, _ in key}
    assert labels.isdisjoint({"device", "device_id", "identity", "client_id"})


def test_states_of_devices_are_read_at_scrape_time() -> None:
    registry = CollectorRegistry()
    counts = {"up": 3}
    Metrics(registry).bind_devices(("up", "parked"), lambda: counts)
    counts["up"] = 5
    assert registry.get_sample_value("gatewayd_devices", {"state": "up"}) == 5.0
    assert registry.get_sample_value("gatewayd_devices", {"state": "parked"}) == 0.0
