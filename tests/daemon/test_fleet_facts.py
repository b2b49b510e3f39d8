"""The JSON that scripts read: its keys stay, and they are the ones the operations page lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from gatewayd.daemon.fleet_facts import Bar, DevicePage, Renewals, Tokens, devices_json, fleet_json
from tests.support.fleet_shown import BAD, EVIL, GOOD, NOW, device

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def keys(said: Any, prefix: str = "") -> set[str]:
    """Every key of what was said, with the way to it. Names of states are values, not keys."""
    if isinstance(said, list):
        return set().union(*(keys(one, f"{prefix}[]") for one in said))
    if not isinstance(said, dict) or prefix.endswith("by_state"):
        return set()
    found = {f"{prefix}.{key}".lstrip(".") for key in said}
    return found.union(*(keys(value, f"{prefix}.{key}".lstrip(".")) for key, value in said.items()))


FLEET_KEYS = {
    "taken_at", "version", "engine", "hub", "ready", "concerns", "concerns[].what", "concerns[].remedy",
    "devices", "devices.total", "devices.connected", "devices.by_state",
    "renewals", "renewals.done_last_hour", "renewals.failed_last_hour", "renewals.planned_next_hour",
    "renewals.minutes", "renewals.minutes[].at", "renewals.minutes[].done", "renewals.minutes[].failed",
    "renewals.minutes[].planned",
    "tokens", "tokens.in_use", "tokens.expired", "tokens.earliest_expiry", "tokens.earliest_expiry_device",
    "errors", "errors[].cause", "errors[].name", "errors[].count", "errors[].standing", "errors[].last_at",
    "errors[].last_device", "errors[].words", "errors[].remedy",
    "outbox", "outbox.messages", "outbox.bytes", "outbox.max_bytes", "outbox.health", "outbox.remedy",
    "clock", "clock.trusted", "clock.synchronized", "clock.remedy",
    "reload", "reload.at", "reload.succeeded", "reload.problems", "reload.remedy",
}  # fmt: skip
DEVICES_KEYS = {
    "taken_at", "total", "matched", "offset", "devices", "devices[].id", "devices[].state", "devices[].connected",
    "devices[].token_signed", "devices[].token_expires", "devices[].renewal_planned", "devices[].last_error",
    "devices[].last_error.at", "devices[].last_error.cause", "devices[].last_error.words",
    "devices[].last_error.remedy", "devices[].last_error.stands",
}  # fmt: skip


def test_the_keys_of_the_fleet_stay() -> None:
    assert keys(fleet_json(BAD)) == FLEET_KEYS


def test_the_keys_of_devices_stay() -> None:
    assert keys(devices_json(DevicePage(NOW, 1, 1, 0, (device(42),)))) == DEVICES_KEYS


def test_the_operations_page_lists_every_key() -> None:
    page = OPERATIONS.read_text()
    for key in FLEET_KEYS | DEVICES_KEYS:
        assert f"`{key.rpartition('.')[2].removesuffix('[]')}`" in page, key


def test_what_is_not_there_is_null_and_not_absent() -> None:
    fleet = fleet_json(replace(GOOD, outbox=None, tokens=Tokens()))
    assert fleet["outbox"] is None
    assert fleet["tokens"]["earliest_expiry"] is None
    (row,) = devices_json(DevicePage(NOW, 1, 1, 0, (replace(device(1), signed=None, expires=None),)))[
        "devices"
    ]
    assert (row["token_signed"], row["token_expires"], row["last_error"]) == (None, None, None)


def test_strangers_words_come_back_as_they_are() -> None:
    page = DevicePage(NOW, 1, 1, 0, (replace(device(1), id=EVIL),))
    assert json.loads(json.dumps(devices_json(page)))["devices"][0]["id"] == EVIL


def test_the_hours_are_summed_and_the_fullest_minute_is_found() -> None:
    renewals = Renewals((Bar(0.0, 1, 2, 0), Bar(60.0, 3, 0, 4), Bar(120.0, 0, 0, 5)), 1)
    assert (renewals.done, renewals.failed, renewals.planned, renewals.peak) == (4, 2, 9, 7)
    assert Renewals().peak == 0
