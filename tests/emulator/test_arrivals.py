"""What came, in its order, judged against what was sent."""

from __future__ import annotations

import random
import sys

import pytest

from gatewayd.emulator.arrivals import Arrival, Arrivals, Comparison, digest


def came(*bodies: bytes) -> Arrivals:
    arrivals = Arrivals()
    for number, body in enumerate(bodies):
        arrivals.add(f"n={number}", body, dup=number % 2 == 1)
    return arrivals


def test_each_arrival_has_its_digest_bag_and_flag() -> None:
    arrivals = came(b"x", b"y")
    assert list(arrivals) == [Arrival(digest(b"x"), "n=0", False), Arrival(digest(b"y"), "n=1", True)]
    with pytest.raises(IndexError):
        arrivals[2]


@pytest.mark.parametrize(
    ("bodies", "verdict"),
    [
        ("abc", Comparison([], 0, 0, 0)),
        ("ac", Comparison([1], 0, 0, 0)),
        ("ababc", Comparison([], 0, 2, 0)),
        ("acb", Comparison([], 0, 0, 1)),
        ("abca", Comparison([], 0, 1, 0)),
        ("abcx", Comparison([], 1, 0, 0)),
        ("", Comparison([0, 1, 2], 0, 0, 0)),
    ],
)
def test_loss_doubles_order_and_foreign_messages_are_told_apart(bodies: str, verdict: Comparison) -> None:
    judged = came(*(body.encode() for body in bodies)).compare([b"a", b"b", b"c"])
    assert judged == verdict
    assert judged.is_perfect is (bodies == "abc")


def test_equal_payloads_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="equal"):
        came(b"a").compare([b"a", b"a"])


def test_a_hundred_thousand_messages_are_judged_exactly_and_take_little_memory() -> None:
    dice = random.Random(7)
    sent = [number.to_bytes(4) for number in range(100_000)]
    arrivals = Arrivals()
    repeated = set(dice.sample(range(1, 100_000), 500))
    for number, body in enumerate(sent):
        arrivals.add("%24.mid=12345", body, dup=False)
        if number in repeated:
            arrivals.add("%24.mid=12345", sent[number - 1], dup=True)
    assert arrivals.compare(sent) == Comparison([], 0, 500, 0)
    parts = (arrivals._digests, arrivals._bags, arrivals._bag_ends, arrivals._dups)
    assert sum(map(sys.getsizeof, parts)) < 100_500 * 45
