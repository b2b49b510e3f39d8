"""The status page: read by another mind than the one that wrote it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from gatewayd.daemon.device_table import ROWS, DeviceQuery
from gatewayd.daemon.fleet_facts import (
    Cause,
    ClockState,
    Concern,
    DeviceError,
    DeviceFacts,
    DevicePage,
    Expiry,
    FleetFacts,
    Outbox,
    Reload,
    Renewals,
    Tokens,
)
from gatewayd.daemon.status_page import SHOWN, login_page, status_page
from gatewayd.daemon.status_words import STATES
from tests.support.fleet_shown import BAD, EVERY_STATE, EVIL, GOOD, NOW, device, page

VOID = frozenset({"meta", "link", "input", "br"})
SELF_CLOSED = frozenset({"rect", "line"})


class Reader(HTMLParser):
    """An independent reading of the page: its text, its tags with their attributes, and whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"an attribute of {tag} stands twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert tag in SELF_CLOSED

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(
    facts: FleetFacts = GOOD,
    rows: DevicePage | None = None,
    query: DeviceQuery | None = None,
    *,
    login: bool = False,
) -> Reader:
    return Reader(status_page(facts, rows or page(), query or DeviceQuery(), files="abc", login=login))


def test_it_shows_the_fleet_at_a_glance() -> None:
    text = read().text
    for words in (
        "● ready",
        "contoso.azure-devices.net",
        "2027-01-15 08:00:00 UTC",
        "version 0.1.0, signer sha-ni x2",
        "Devices 500",
        "491 connected here",
        "at the hub 488",
        "parked 2",
        "Tokens in use 489 the first ends in 9 min pump-0117",
        "0 B of 512.0 MiB on disk",
        "Clock ● good",
        "Configuration ● in force read 3 d ago",
        "planned for the next hour",
        "401003 credential IoTHubUnauthorized 2 9 3 min ago pump-0042",
    ):
        assert words in text


def test_every_cause_stands_beside_what_to_do() -> None:
    text = read().text
    for cause in GOOD.causes:
        assert cause.remedy in text
        assert cause.words in text


def test_what_is_wrong_is_said_first_with_what_to_do() -> None:
    text = read(BAD).text
    assert "■ not ready" in text
    for concern in BAD.concerns:
        assert f"{concern.what} {concern.remedy}" in text
        assert text.index(concern.what) < text.index("Devices 500")
    assert "1 expired" in text
    assert "the first ended 30 s ago" in text
    assert "at bound" in text
    assert BAD.outbox is not None
    assert BAD.outbox.remedy in text
    assert "Clock ■ known wrong nothing is signed" in text
    assert "refused read 5 min ago tokens.lifetime (line 12): 60 has no unit" in text


def test_what_to_do_is_said_once() -> None:
    text = read(BAD).text
    for concern in BAD.concerns:
        assert text.count(concern.remedy) == 1


def test_a_clock_that_nobody_keeps_is_a_warning() -> None:
    said = read(replace(GOOD, clock=ClockState(True, False, "Look at NTP."))).text
    assert "Clock ▲ not synchronised tokens are signed Look at NTP." in said
    assert "Clock ● good" in read(replace(GOOD, clock=ClockState(True, None))).text


def test_strangers_words_are_escaped_everywhere() -> None:
    facts = replace(
        BAD,
        version=EVIL,
        engine=EVIL,
        hub=EVIL,
        concerns=(Concern(EVIL, EVIL),),
        states=((EVIL, 1), ("up", 3)),
        tokens=Tokens(1, 0, Expiry(EVIL, NOW)),
        causes=(Cause(EVIL, EVIL, 1, 1, NOW, EVIL, EVIL, EVIL),),
        outbox=Outbox(1, 1, 1, EVIL, EVIL),
        clock=ClockState(True, True, EVIL),
        reload=Reload(NOW, False, (EVIL,), EVIL),
    )
    rows = DevicePage(
        NOW,
        99,
        99,
        0,
        (DeviceFacts(EVIL, EVIL, True, NOW, NOW, NOW, DeviceError(NOW, EVIL, EVIL, EVIL, True)),),
    )
    found = read(facts, rows, DeviceQuery(search=EVIL, cause=EVIL, limit=1, offset=1))
    assert [attributes.get("src") for attributes in found.all("script")] == ["static/status.js?abc"]
    shown = found.text.count(EVIL) + found.text.count(EVIL.replace("_", " "))
    assert shown >= 20
    inputs = [attributes["value"] for attributes in found.all("input") if attributes.get("value")]
    assert inputs.count(EVIL) == 2, "the search and the kept cause"
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)


def test_nothing_is_loaded_but_own_files() -> None:
    text = status_page(BAD, page(), DeviceQuery(), files="abc", login=True)
    assert re.findall(r"https?://[^\"' ]*", text) == []
    assert " style=" not in text, "the policy allows no style but the sheet's"
    assert "<style" not in text


def test_everything_has_a_name_for_those_who_do_not_see_it() -> None:
    found = read(BAD, login=True)
    labelled = [attributes for attributes in found.all("svg") if attributes.get("role") == "img"]
    assert [attributes["aria-label"] for attributes in labelled] == [
        "Renewals by the minute: 452 done and 4 failed in the last hour, 485 planned for the next; "
        "at most 11 in one minute."
    ]
    hidden = [attributes for attributes in found.all("svg") if attributes.get("role") != "img"]
    assert all(attributes.get("aria-hidden") == "true" for attributes in hidden)
    assert found.all("html")[0]["lang"] == "en"
    assert all(attributes.get("scope") in {"row", "col"} for attributes in found.all("th"))
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_no_state_is_told_by_colour_alone() -> None:
    found = read(rows=EVERY_STATE)
    for name, word in STATES.items():
        assert f"in-{name}" in found.text
        assert word.word in found.text
    assert all(sign in found.text for sign in "●◐▲■○")


def test_a_state_this_page_does_not_know_is_shown_by_its_name() -> None:
    text = read(
        replace(GOOD, states=(("dreaming", 4),)),
        DevicePage(NOW, 1, 1, 0, (DeviceFacts("d", "dreaming", True),)),
    ).text
    assert "dreaming 4" in text


def test_a_device_has_its_token_and_its_last_error_with_what_to_do_while_it_stands() -> None:
    text = read().text
    assert "pump-0031 ● at the hub ends in 29 min 31 min old, renewal in 19 min –" in text
    error = device(42).error
    assert error is not None
    assert f"pump-0042 ■ parked – 401003 credential 3 min ago {error.remedy}" in text
    assert (
        "pump-0044 ● at the hub ends in 16 min 44 min old, renewal in 6 min 401003 credential 3 min ago , well since"
        in text
    )
    assert "its device is not connected" in read(rows=page(1, 51)).text


def test_the_renewals_stand_as_numbers_beside_the_picture() -> None:
    found = read()
    assert len([one for one in found.all("rect") if one["class"] == "done"]) == 57
    assert "-60 to -50" in found.text
    assert "50 to 60" in found.text


def test_an_empty_daemon_has_a_page() -> None:
    empty = replace(GOOD, devices=0, states=(), renewals=Renewals(), tokens=Tokens(), causes=(), outbox=None)
    text = read(empty, DevicePage(NOW, 0, 0, 0, ())).text
    assert "Devices 0" in text
    assert "none is in use" in text
    assert "None since gatewayd started." in text
    assert "No device here." in text
    assert "outbox" not in text


def test_causes_are_cut_and_say_how_many_are_left_out() -> None:
    causes = tuple(replace(GOOD.causes[0], key=f"{number} x") for number in range(SHOWN + 7))
    assert "7 more causes are not shown." in read(replace(GOOD, causes=causes)).text


def test_a_time_beyond_the_calendar_does_not_break_the_page() -> None:
    text = read(replace(GOOD, taken_at=1e18, tokens=Tokens(1, 0, Expiry("dev-1", 1e18)))).text
    assert "1000000000000000000 s" in text


@pytest.mark.parametrize(
    ("offset", "matched", "links"),
    [
        (0, 20, []),
        (0, 500, ["?offset=50#devices"]),
        (50, 500, ["?#devices", "?offset=100#devices"]),
        (450, 470, ["?offset=400#devices"]),
    ],
)
def test_a_long_list_is_paged_by_links(offset: int, matched: int, links: list[str]) -> None:
    rows = replace(page(), matched=matched, offset=offset)
    found = read(rows=rows, query=DeviceQuery(offset=offset))
    assert [one["href"] for one in found.all("a") if one.get("rel") in {"prev", "next"}] == links


def test_a_column_is_sorted_by_its_head_and_turned_by_a_second_time() -> None:
    query = DeviceQuery(search="pu&mp", sort="expires", offset=ROWS)
    found = read(query=query)
    heads = {one["id"]: one["href"] for one in found.all("a") if str(one.get("id", "")).startswith("by-")}
    assert heads["by-expires"] == "?search=pu%26mp&sort=expires&order=desc#devices"
    assert heads["by-id"] == "?search=pu%26mp#devices"
    assert [one.get("aria-sort") for one in found.all("th") if "aria-sort" in one] == ["ascending"]


def test_the_form_keeps_what_was_asked_for_and_shows_it() -> None:
    found = read(query=DeviceQuery(search='a"b', state="parked", cause="401003 credential", descending=True))
    fields = {one["name"]: one.get("value") for one in found.all("input")}
    assert fields == {"search": 'a"b', "cause": "401003 credential", "order": "desc"}
    assert [one["value"] for one in found.all("option") if "selected" in one] == ["parked"]
    assert "500 of 500 devices, whose last error is 401003 credential show all" in found.text


def test_the_way_out_is_shown_to_who_has_logged_in() -> None:
    assert "Log out" in read(login=True).text
    assert "Log out" not in read().text


def test_the_form_for_the_token_is_labelled_and_says_what_was_wrong() -> None:
    found = Reader(login_page("abc", problem=EVIL))
    assert [one["for"] for one in found.all("label")] == ["token"]
    _, field = found.all("input")
    assert (field["id"], field["type"], field["autocomplete"]) == ("token", "password", "current-password")
    assert EVIL in found.text
    assert found.all("script") == []
