"""The ledger of cloud messages: what the hub may forget, and what comes a second time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.flow.deliveries import MAX_HELD, WINDOW_BYTES, WINDOW_MESSAGES, Deliveries, Offer
from gatewayd.upstream.hub_message import HubMessage


def message(text: str, packet_id: int = 1, *, size: int = 0) -> HubMessage:
    return HubMessage("devices/d/messages/devicebound/", text.encode().ljust(size, b" "), 1, False, packet_id)


class Hub:
    """Takes PUBACKs while the connection can carry them."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.can_be_told = True

    def tell(self, hub_message: HubMessage) -> bool:
        if self.can_be_told:
            self.told.append(hub_message.payload.decode())
        return self.can_be_told


def send_all(ledger: Deliveries, first_id: int = 1, *, qos: int = 1) -> list[str]:
    """Give the device what its window takes, under ids from `first_id` on."""
    sent: list[str] = []
    while (entry := ledger.next_to_send()) is not None:
        ledger.sent(entry, (first_id + len(sent)) if qos else 0)
        sent.append(entry.message.payload.decode())
    return sent


def test_the_hub_is_told_after_the_device_has_acknowledged() -> None:
    ledger, hub = Deliveries(), Hub()
    assert ledger.offer(message("a")) is Offer.NEW
    assert send_all(ledger) == ["a"]
    assert ledger.settle(hub.tell) == 0
    assert ledger.acknowledged(1)
    assert ledger.settle(hub.tell) == 1
    assert hub.told == ["a"]
    assert len(ledger) == 0


def test_the_hub_is_told_in_its_own_order() -> None:
    ledger, hub = Deliveries(), Hub()
    for text in ("a", "b", "c"):
        ledger.offer(message(text))
    send_all(ledger)
    ledger.acknowledged(2)
    ledger.acknowledged(3)
    assert ledger.settle(hub.tell) == 0
    ledger.acknowledged(1)
    assert ledger.settle(hub.tell) == 3
    assert hub.told == ["a", "b", "c"]


def test_a_message_that_comes_while_the_hub_is_told_of_another_disturbs_nothing() -> None:
    ledger = Deliveries()
    told: list[str] = []
    for text in ("a", "b"):
        ledger.offer(message(text))
    send_all(ledger)

    def tell(hub_message: HubMessage) -> bool:
        told.append(hub_message.payload.decode())
        if len(told) == 1:
            ledger.offer(message("c"))
            ledger.settle(tell)
        return True

    ledger.acknowledged(1)
    ledger.acknowledged(2)
    ledger.settle(tell)
    assert told == ["a", "b"], "each once, in order"
    assert send_all(ledger, 3) == ["c"]


def test_what_was_written_with_qos_0_is_done() -> None:
    ledger, hub = Deliveries(), Hub()
    ledger.offer(message("a"))
    send_all(ledger, qos=0)
    assert ledger.settle(hub.tell) == 1


def test_an_id_that_is_none_of_these_is_not_taken() -> None:
    ledger = Deliveries()
    ledger.offer(message("a"))
    assert not ledger.acknowledged(1), "it only waits"
    send_all(ledger)
    assert not ledger.acknowledged(2)
    assert ledger.acknowledged(1)
    assert not ledger.acknowledged(1)


def test_two_equal_messages_of_one_connection_are_two() -> None:
    ledger = Deliveries()
    assert [ledger.offer(message("on", n)) for n in (1, 2)] == [Offer.NEW, Offer.NEW]
    assert send_all(ledger) == ["on", "on"]


def test_what_the_hub_sends_again_joins_what_the_device_still_has() -> None:
    ledger, hub = Deliveries(), Hub()
    for text in ("a", "b"):
        ledger.offer(message(text))
    send_all(ledger)
    ledger.new_connection()
    assert [ledger.offer(message(text, 9)) for text in ("a", "b", "c")] == [
        Offer.JOINED,
        Offer.JOINED,
        Offer.NEW,
    ]
    assert send_all(ledger, 3) == ["c"]
    for packet_id in (1, 2, 3):
        ledger.acknowledged(packet_id)
    assert ledger.settle(hub.tell) == 3


def test_one_whose_receipt_was_lost_comes_twice_and_those_behind_it_do_not() -> None:
    ledger, hub = Deliveries(), Hub()
    for text in ("a", "b", "c"):
        ledger.offer(message(text))
    send_all(ledger)
    ledger.acknowledged(1)
    assert ledger.settle(hub.tell) == 1, "and then the line breaks"
    ledger.new_connection()
    offers = [ledger.offer(message(text)) for text in ("a", "b", "c", "d")]
    assert offers == [Offer.NEW, Offer.JOINED, Offer.JOINED, Offer.NEW]
    assert send_all(ledger, 4) == ["a", "d"]
    for packet_id in (2, 3):
        ledger.acknowledged(packet_id)
    assert ledger.settle(hub.tell) == 0, "the hub waits for the receipt of the first"
    for packet_id in (4, 5):
        ledger.acknowledged(packet_id)
    assert ledger.settle(hub.tell) == 4
    assert hub.told == ["a", "a", "b", "c", "d"]
    assert len(ledger) == 0


def test_equal_messages_join_one_by_one() -> None:
    ledger = Deliveries()
    for _ in range(2):
        ledger.offer(message("on"))
    send_all(ledger)
    ledger.new_connection()
    assert [ledger.offer(message("on")) for _ in range(3)] == [Offer.JOINED, Offer.JOINED, Offer.NEW]


def test_what_the_device_acknowledged_while_the_hub_was_away_is_told_when_it_is_sent_again() -> None:
    ledger, hub = Deliveries(), Hub()
    ledger.offer(message("a"))
    send_all(ledger)
    hub.can_be_told = False
    ledger.acknowledged(1)
    assert ledger.settle(hub.tell) == 0
    assert len(ledger) == 1
    hub.can_be_told = True
    assert ledger.settle(hub.tell) == 0, "the new connection does not know it yet"
    ledger.new_connection()
    assert ledger.offer(message("a", 2)) is Offer.JOINED
    assert ledger.next_to_send() is None
    assert ledger.settle(hub.tell) == 1
    assert len(ledger) == 0


def test_what_the_device_never_had_is_taken_from_the_new_connection_alone() -> None:
    ledger = Deliveries()
    ledger.offer(message("a"))
    ledger.new_connection()
    assert len(ledger) == 0
    assert ledger.offer(message("a")) is Offer.NEW
    assert send_all(ledger) == ["a"]


def test_what_the_hub_has_passed_over_is_forgotten_when_the_device_is_done_with_it() -> None:
    ledger, hub = Deliveries(), Hub()
    for text in ("expires", "b"):
        ledger.offer(message(text))
    send_all(ledger)
    ledger.new_connection()
    assert ledger.offer(message("b", 5)) is Offer.JOINED
    ledger.acknowledged(1)
    ledger.acknowledged(2)
    assert ledger.settle(hub.tell) == 1
    assert hub.told == ["b"]
    assert len(ledger) == 0


def test_an_equal_message_is_a_new_one_once_the_hub_has_passed_the_first() -> None:
    ledger, hub = Deliveries(), Hub()
    ledger.offer(message("on"))
    send_all(ledger)
    hub.can_be_told = False
    ledger.acknowledged(1)
    ledger.settle(hub.tell)
    ledger.new_connection()
    assert ledger.offer(message("off")) is Offer.NEW
    assert ledger.offer(message("on")) is Offer.NEW
    assert send_all(ledger, 2) == ["off", "on"]


def test_a_device_with_a_new_session_gets_again_what_it_did_not_acknowledge() -> None:
    ledger, hub = Deliveries(), Hub()
    for text in ("a", "b"):
        ledger.offer(message(text))
    send_all(ledger)
    ledger.acknowledged(1)
    ledger.device_forgot()
    assert not ledger.acknowledged(2), "that id is of the older session"
    assert send_all(ledger, 7) == ["b"]
    ledger.acknowledged(7)
    assert ledger.settle(hub.tell) == 2


def test_the_window_bounds_what_is_with_the_device_in_messages() -> None:
    ledger = Deliveries()
    for number in range(WINDOW_MESSAGES + 1):
        ledger.offer(message(str(number)))
    assert len(send_all(ledger)) == WINDOW_MESSAGES
    ledger.acknowledged(1)
    assert send_all(ledger, 100) == [str(WINDOW_MESSAGES)]


def test_the_window_bounds_what_is_with_the_device_in_bytes_but_takes_one_of_any_size() -> None:
    ledger = Deliveries()
    for text in ("a", "b"):
        ledger.offer(message(text, size=WINDOW_BYTES))
    assert len(send_all(ledger)) == 1
    ledger.acknowledged(1)
    assert len(send_all(ledger, 2)) == 1


def test_at_the_bound_a_message_stays_with_the_hub() -> None:
    ledger, hub = Deliveries(), Hub()
    assert {ledger.offer(message(str(number))) for number in range(MAX_HELD)} == {Offer.NEW}
    assert ledger.offer(message("more")) is Offer.NO_ROOM
    assert len(ledger) == MAX_HELD
    send_all(ledger)
    ledger.acknowledged(1)
    ledger.settle(hub.tell)
    assert ledger.offer(message("more")) is Offer.NEW


class Line:
    """A hub that keeps what it has no PUBACK for, a line that may break unnoticed, and a device that acknowledges in
    order. `heard` is what the device was sent.
    """

    def __init__(self) -> None:
        self.ledger = Deliveries()
        self.queue: list[str] = []
        self.heard: list[str] = []
        self.at_device: list[int] = []
        self.lost_receipts = 0
        self.works = True  # the hub hears our PUBACKs
        self.is_known_broken = False
        self._last_id = 0

    def send(self, text: str) -> None:
        self.queue.append(text)
        if self.works:
            self._offer(text)

    def acknowledge(self) -> None:
        """The device acknowledges the oldest it has."""
        if self.at_device:
            assert self.ledger.acknowledged(self.at_device.pop(0))
            self._settle()

    def break_unnoticed(self) -> None:
        self.works = False

    def notice(self) -> None:
        self.works = False
        self.is_known_broken = True

    def reconnect(self) -> None:
        self.works, self.is_known_broken = True, False
        self.ledger.new_connection()
        for text in tuple(self.queue):
            self._offer(text)

    def _offer(self, text: str) -> None:
        assert self.ledger.offer(message(text)) is not Offer.NO_ROOM
        self._settle()
        self._pump()

    def _pump(self) -> None:
        while (entry := self.ledger.next_to_send()) is not None:
            self._last_id += 1
            self.ledger.sent(entry, self._last_id)
            self.at_device.append(self._last_id)
            self.heard.append(entry.message.payload.decode())

    def _settle(self) -> None:
        self.ledger.settle(self._tell)
        self._pump()

    def _tell(self, hub_message: HubMessage) -> bool:
        if self.is_known_broken:
            return False
        if self.works:
            assert self.queue.pop(0) == hub_message.payload.decode(), "in the order of the hub"
        else:
            self.lost_receipts += 1
        return True


STEPS = st.lists(
    st.sampled_from(["send", "send", "acknowledge", "acknowledge", "break", "notice", "reconnect"]),
    max_size=60,
)


def live(steps: list[str], texts: list[str]) -> tuple[Line, list[str]]:
    """Take the steps, then let everything end well; what was sent."""
    line = Line()
    sent: list[str] = []
    for step in steps:
        match step:
            case "send" if len(line.queue) < 40:
                text = texts[len(sent) % len(texts)]
                sent.append(text)
                line.send(text)
            case "acknowledge":
                line.acknowledge()
            case "break":
                line.break_unnoticed()
            case "notice":
                line.notice()
            case "reconnect":
                line.reconnect()
    line.reconnect()
    while line.at_device:
        line.acknowledge()
    assert line.queue == []
    assert len(line.ledger) == 0
    return line, sent


@given(STEPS)
def test_whatever_breaks_all_come_in_order_and_only_lost_receipts_make_doubles(steps: list[str]) -> None:
    line, sent = live(steps, [str(number) for number in range(60)])
    assert list(dict.fromkeys(line.heard)) == sent
    assert len(line.heard) - len(sent) <= line.lost_receipts


@given(STEPS, st.lists(st.sampled_from(["on", "off"]), min_size=1, max_size=5))
def test_whatever_breaks_no_command_is_lost_because_it_equals_another(
    steps: list[str], texts: list[str]
) -> None:
    line, sent = live(steps, texts)
    for text in set(texts):
        assert line.heard.count(text) >= sent.count(text)
