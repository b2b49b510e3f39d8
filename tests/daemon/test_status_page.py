"""The status page."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from gatewayd.daemon.status_page import SHOWN, SeenRefusal, StatusSnapshot, Upcoming, status_page

NOW = 1_800_000_000.0
SNAPSHOT = StatusSnapshot(
    taken_at=NOW,
    version="0.1.0",
    engine="sha-ni x2",
    hub="contoso.azure-devices.net",
    ready=True,
    reasons=(),
    devices=(("connected", 12), ("parked", 1)),
    earliest_expiry=Upcoming("dev-7", NOW + 540),
    next_renewals=(Upcoming("dev-7", NOW + 90),),
    refusals=(
        SeenRefusal(
            NOW - 5, "dev-3", 401003, "IoTHubUnauthorized", "credential", "Compare the key with the registry."
        ),
    ),
)


class Reader(HTMLParser):
    """An independent reading of the page: its text, and whether every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def read(snapshot: StatusSnapshot) -> Reader:
    reader = Reader(status_page(snapshot))
    assert reader.open == []
    return reader


def test_it_shows_devices_expiry_renewals_and_refusals_with_their_remedy() -> None:
    text = read(SNAPSHOT).text
    for word in (
        "ready",
        "contoso.azure-devices.net",
        "sha-ni x2",
        "Devices: 13",
        "connected",
        "parked",
        "dev-7",
        "in 540 s",
        "90 s",
        "dev-3",
        "401003 IoTHubUnauthorized",
        "credential",
        "Compare the key with the registry.",
        "2027-01-15 08:00:00 UTC",
    ):
        assert word in text


def test_strangers_words_are_escaped_everywhere() -> None:
    evil = '<script>alert("x")</script>&amp;'
    page = read(
        replace(
            SNAPSHOT,
            version=evil,
            engine=evil,
            hub=evil,
            reasons=(evil,),
            devices=((evil, 1),),
            earliest_expiry=Upcoming(evil, NOW),
            next_renewals=(Upcoming(evil, NOW),),
            refusals=(SeenRefusal(NOW, evil, 1, evil, evil, evil),),
        )
    )
    assert "script" not in page.seen
    assert page.text.count(evil) == 11


def test_what_is_not_ready_says_why() -> None:
    text = read(replace(SNAPSHOT, ready=False, reasons=("the hub cannot be reached since 12:00",))).text
    assert "not ready" in text
    assert "the hub cannot be reached since 12:00" in text


def test_an_expiry_that_has_passed_is_said_so() -> None:
    assert "30 s ago" in read(replace(SNAPSHOT, earliest_expiry=Upcoming("dev-1", NOW - 30))).text


def test_an_empty_daemon_has_a_page() -> None:
    empty = replace(SNAPSHOT, devices=(), earliest_expiry=None, next_renewals=(), refusals=())
    text = read(empty).text
    assert "Devices: 0" in text
    assert "No token is in use." in text


def test_lists_are_cut_and_say_how_much_is_left_out() -> None:
    many = replace(SNAPSHOT, next_renewals=tuple(Upcoming(f"dev-{n}", NOW + n) for n in range(10_000)))
    page = status_page(many)
    assert f"{10_000 - SHOWN} more are not shown." in page
    assert len(page) < 10_000


def test_a_time_beyond_the_calendar_does_not_break_the_page() -> None:
    page = read(replace(SNAPSHOT, earliest_expiry=Upcoming("dev-1", 1e18)))
    assert "dev-1, 1000000000000000000 s" in page.text
