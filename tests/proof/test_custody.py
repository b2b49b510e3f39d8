"""The judge of custody: what it calls a fault, and what it only counts."""

from __future__ import annotations

import pytest

from tests.proof.custody import DeviceRecord, HubRecord, Verdict, judge


def device(said: int, *receipted: int) -> DeviceRecord:
    return DeviceRecord(said, dict.fromkeys(receipted, 5.0))


def hub(*numbers: int) -> HubRecord:
    return HubRecord(dict.fromkeys(numbers, 4.0))


def verdict(said: DeviceRecord, here: HubRecord) -> Verdict:
    return judge({"dev-01": said}, {"dev-01": here})


def test_what_is_receipted_and_at_the_hub_in_order_holds() -> None:
    found = verdict(device(3, 0, 1, 2), hub(0, 1, 2))
    assert found.holds
    assert (found.receipted, found.unreceipted, found.at_hub, found.early) == (3, 0, 3, 0)


def test_a_receipt_for_what_the_hub_never_got_is_a_loss() -> None:
    found = verdict(device(3, 0, 1, 2), hub(0, 2))
    assert found.lost == (("dev-01", 1),)
    assert not found.holds
    assert "1 lost: dev-01/1" in str(found)


def test_a_device_the_hub_has_never_heard_of_lost_everything() -> None:
    assert judge({"dev-01": device(2, 0, 1)}, {}).lost == (("dev-01", 0), ("dev-01", 1))


def test_a_message_without_receipt_is_still_the_devices_own_wherever_it_is() -> None:
    found = verdict(device(3, 0), hub(0, 1))
    assert found.holds
    assert found.unreceipted == 2


def test_a_message_that_came_first_behind_a_later_one_is_disordered() -> None:
    found = verdict(device(4, 0, 1, 2, 3), hub(0, 2, 1, 3))
    assert found.disordered == (("dev-01", 1),)
    assert not found.holds


def test_doubles_are_counted_and_are_no_fault() -> None:
    here = hub(0)
    here.duplicates = 2
    found = verdict(device(1, 0), here)
    assert found.holds
    assert found.duplicates == 2


def test_a_receipt_older_than_the_arrival_was_given_on_our_own_account() -> None:
    here = HubRecord({0: 4.0, 1: 6.0})
    assert verdict(device(2, 0, 1), here).early == 1


@pytest.mark.parametrize("wrong", ["damaged", "invented", "astray", "stranger", "not said"])
def test_what_nobody_said_or_promised_is_a_fault(wrong: str) -> None:
    said, here = device(1, 0), hub(0)
    devices, arrived = {"dev-01": said}, {"dev-01": here}
    match wrong:
        case "damaged":
            here.damaged.append(0)
        case "invented":
            here.invented = 1
        case "astray":
            said.astray = 1
        case "stranger":
            arrived["dev-02"] = hub(0)
        case "not said":
            here.first[7] = 4.0
    assert not judge(devices, arrived).holds
