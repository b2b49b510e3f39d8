"""Which filters a device has, and what is written of them."""

from __future__ import annotations

from collections.abc import Mapping

from gatewayd.flow.subscriptions import Subscriptions
from gatewayd.message import Identity
from tests.support.kept_subscriptions import KeptSubscriptions

DEV = Identity("dev-01")
C2D, METHODS = "devices/dev-01/messages/devicebound/#", "$iothub/methods/POST/#"


def loaded(store: KeptSubscriptions, kept: Mapping[Identity, Mapping[str, int]]) -> Subscriptions:
    """As after a start that found `kept`."""
    subscriptions = Subscriptions(store)
    subscriptions.load(kept)
    return subscriptions


def test_a_filter_is_done_when_the_store_has_it() -> None:
    store = KeptSubscriptions(at_once=False)
    subscriptions, done = loaded(store, {}), []
    subscriptions.subscribe(DEV, [(C2D, 1)], lambda: done.append(1))
    assert subscriptions.of(DEV) == {C2D: 1}, "it is in force at once"
    assert not done
    store.answer()
    assert done == [1]
    assert store.kept == {DEV: {C2D: 1}}


def test_a_filter_the_store_could_not_write_is_granted_all_the_same() -> None:
    store = KeptSubscriptions(at_once=False)
    subscriptions, done = loaded(store, {}), []
    subscriptions.subscribe(DEV, [(C2D, 1)], lambda: done.append(1))
    store.answer(durable=False)
    assert done == [1]
    assert subscriptions.of(DEV) == {C2D: 1}


def test_a_session_is_present_when_filters_are_kept() -> None:
    subscriptions = loaded(KeptSubscriptions(), {DEV: {C2D: 1}, Identity("dev-02"): {}})
    assert subscriptions.arrived(DEV, clean_session=False)
    assert not subscriptions.arrived(Identity("dev-02"), clean_session=False)
    assert not subscriptions.arrived(Identity("dev-03"), clean_session=False)


def test_filters_outlive_the_connection() -> None:
    subscriptions = loaded(KeptSubscriptions(), {})
    subscriptions.arrived(DEV, clean_session=False)
    subscriptions.subscribe(DEV, [(C2D, 1)], lambda: None)
    subscriptions.left(DEV)
    assert subscriptions.arrived(DEV, clean_session=False)
    assert subscriptions.of(DEV) == {C2D: 1}


def test_a_clean_session_forgets_what_was_kept_and_leaves_nothing() -> None:
    store = KeptSubscriptions()
    store.kept[DEV] = {C2D: 1}
    subscriptions, done = loaded(store, store.kept), []
    assert not subscriptions.arrived(DEV, clean_session=True)
    assert store.kept == {}
    assert subscriptions.of(DEV) == {}
    subscriptions.subscribe(DEV, [(METHODS, 1)], lambda: done.append(1))
    assert done == [1]
    assert subscriptions.of(DEV) == {METHODS: 1}
    subscriptions.left(DEV)
    assert store.kept == {}
    assert not subscriptions.arrived(DEV, clean_session=False)
    assert subscriptions.of(DEV) == {}


def test_a_filter_that_is_given_up_is_kept_no_more() -> None:
    store = KeptSubscriptions()
    subscriptions, done = loaded(store, {DEV: {C2D: 1, METHODS: 0}}), []
    subscriptions.unsubscribe(DEV, [METHODS, "never/#"], lambda: done.append(1))
    assert store.kept == {DEV: {C2D: 1}}
    subscriptions.unsubscribe(DEV, [C2D], lambda: done.append(2))
    assert store.kept == {}
    assert done == [1, 2]


def test_what_is_kept_already_is_not_written_again() -> None:
    store = KeptSubscriptions()
    subscriptions, done = loaded(store, {DEV: {C2D: 1}}), []
    subscriptions.subscribe(DEV, [(C2D, 1)], lambda: done.append(1))
    assert done == [1]
    assert store.writes == 0


def test_what_is_being_written_is_done_only_with_its_write() -> None:
    store = KeptSubscriptions(at_once=False)
    subscriptions, done = loaded(store, {}), []
    subscriptions.subscribe(DEV, [(C2D, 1)], lambda: done.append(1))
    subscriptions.subscribe(DEV, [(C2D, 1)], lambda: done.append(2))
    assert not done
    store.answer()
    store.answer()
    assert done == [1, 2]


def test_what_the_hub_queues_is_asked_of_it_with_qos_1() -> None:
    module = Identity("dev-01", "mod")
    inputs = "devices/dev-01/modules/mod/inputs/#"
    subscriptions = loaded(KeptSubscriptions(), {DEV: {C2D: 0, METHODS: 0}, module: {inputs: 0}})
    assert subscriptions.at_hub(DEV) == {C2D: 1, METHODS: 0}
    assert subscriptions.at_hub(module) == {inputs: 1}
