"""What the hub is asked for, connection after connection."""

from __future__ import annotations

from gatewayd.upstream.hub_subscriptions import Difference, HubSubscriptions

A, B, C = "a/#", "b/#", "c/#"


def connected(
    *documented: str, wanted: dict[str, int] | None = None, present: bool = False
) -> HubSubscriptions:
    subscriptions = HubSubscriptions(documented)
    subscriptions.want(wanted or {})
    subscriptions.connected(present)
    return subscriptions


class Link:
    """Notes what is said on it."""

    def __init__(self) -> None:
        self.said: list[tuple[str, tuple[str, ...]]] = []

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> int:
        self.said.append(("subscribe", tuple(name for name, _ in filters)))
        return len(self.said)

    def unsubscribe(self, filters: tuple[str, ...]) -> int:
        self.said.append(("unsubscribe", filters))
        return len(self.said)


def tell(subscriptions: HubSubscriptions) -> Link:
    """Say the difference and have it answered as asked."""
    difference, link = subscriptions.difference(), Link()
    assert difference is not None
    subscriptions.tell(link)
    for packet_id, (what, _) in enumerate(link.said, 1):
        if what == "unsubscribe":
            subscriptions.confirmed_give_up(packet_id)
        else:
            subscriptions.granted(packet_id, tuple(qos for _, qos in difference.ask_for))
    return link


def test_nothing_is_said_before_a_connection() -> None:
    subscriptions = HubSubscriptions((A,))
    subscriptions.want({A: 1})
    assert subscriptions.difference() is None
    assert not subscriptions.confirmed


def test_nothing_wanted_and_nothing_held_is_confirmed_at_once() -> None:
    assert connected(A, B).confirmed


def test_all_that_is_wanted_is_asked_for_at_once_and_confirmed_by_the_answer() -> None:
    subscriptions = connected(A, B, wanted={A: 1, B: 0})
    assert subscriptions.difference() == Difference((), ((A, 1), (B, 0)))
    subscriptions.asked_for(5, ((A, 1), (B, 0)))
    assert subscriptions.difference() is None
    assert not subscriptions.confirmed
    assert subscriptions.granted(5, (1, 0)) == frozenset()
    assert subscriptions.confirmed


def test_all_is_asked_for_again_on_a_connection_whose_session_is_said_to_be_present() -> None:
    subscriptions = connected(A, wanted={A: 1})
    tell(subscriptions)
    subscriptions.connected(True)
    assert not subscriptions.confirmed
    assert subscriptions.difference() == Difference((), ((A, 1),))


def test_what_a_present_session_may_hold_of_an_earlier_life_is_given_up() -> None:
    subscriptions = connected(A, B, C, wanted={B: 1}, present=True)
    assert subscriptions.difference() == Difference((A, C), ((B, 1),))
    assert tell(subscriptions).said == [("unsubscribe", (A, C)), ("subscribe", (B,))]
    assert subscriptions.confirmed
    subscriptions.connected(True)
    assert subscriptions.difference() == Difference((), ((B, 1),))


def test_a_new_session_holds_nothing_that_must_be_given_up() -> None:
    assert connected(A, B, present=False).difference() is None


def test_what_is_wanted_no_more_while_there_is_no_connection_is_given_up_on_the_next() -> None:
    subscriptions = connected(A, wanted={A: 1})
    tell(subscriptions)
    subscriptions.want({})
    subscriptions.connected(True)
    assert subscriptions.difference() == Difference((A,), ())


def test_a_change_of_mind_while_an_answer_is_due_is_said_at_once_and_waits_for_both_answers() -> None:
    subscriptions = connected(A, wanted={A: 1})
    subscriptions.asked_for(1, ((A, 1),))
    subscriptions.want({})
    assert subscriptions.difference() == Difference((A,), ())
    subscriptions.given_up(2, (A,))
    subscriptions.want({A: 1})
    subscriptions.asked_for(3, ((A, 1),))
    subscriptions.granted(1, (1,))
    subscriptions.confirmed_give_up(2)
    assert not subscriptions.confirmed
    subscriptions.granted(3, (1,))
    assert subscriptions.confirmed
    subscriptions.want({})
    assert subscriptions.difference() == Difference((A,), ()), "the hub holds it since the last SUBSCRIBE"


def test_another_qos_is_asked_for() -> None:
    subscriptions = connected(A, wanted={A: 0})
    tell(subscriptions)
    subscriptions.want({A: 1})
    assert subscriptions.difference() == Difference((), ((A, 1),))


def test_a_refused_filter_is_known_and_asked_for_again_only_on_the_next_connection() -> None:
    subscriptions = connected(A, B, wanted={A: 1, B: 1})
    subscriptions.asked_for(1, ((A, 1), (B, 1)))
    assert subscriptions.granted(1, (1, 0x80)) == {B}
    assert subscriptions.confirmed
    assert subscriptions.refused == {B}
    assert subscriptions.difference() is None
    subscriptions.connected(False)
    assert subscriptions.refused == frozenset()
    assert subscriptions.difference() == Difference((), ((A, 1), (B, 1)))


def test_an_answer_to_a_request_of_an_older_connection_settles_nothing() -> None:
    subscriptions = connected(A, wanted={A: 1})
    subscriptions.asked_for(1, ((A, 1),))
    subscriptions.connected(True)
    assert subscriptions.granted(1, (1,)) == frozenset()
    assert not subscriptions.confirmed


def test_nothing_is_said_when_nothing_differs() -> None:
    subscriptions, link = connected(A), Link()
    subscriptions.tell(link)
    assert link.said == []
