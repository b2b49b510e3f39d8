"""Tokens for the hub: which key, how long, and never with a clock that is known wrong."""

from __future__ import annotations

import base64
import hashlib

import pytest
from prometheus_client import CollectorRegistry

from gatewayd.clock import ManualClock
from gatewayd.errors import ClockUntrusted, LocalProtocolError
from gatewayd.flow.hub_tokens import HubTokens, KeyIndices
from gatewayd.message import Identity
from gatewayd.metrics import Metrics
from gatewayd.protocol.iothub.sas import resource
from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.signer import Signer
from tests.support.emulated_hub import sas_token

HOST = "hub.test"
ONE, TWO = Identity("dev-01"), Identity("dev-02")


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


class Desk:
    """Two identities, the second without a secondary key; their keys in a real table."""

    def __init__(self) -> None:
        self.clock = ManualClock(wall=1_800_000_000.25, monotonic=500.0)
        self.trusted = True
        self.registry = CollectorRegistry()
        table = KeyTable(4)
        indices = [
            table.add(str(who), bytearray(base64.b64encode(key(name))), resource(HOST, who))
            for who, name in ((ONE, "primary"), (ONE, "secondary"), (TWO, "only"))
        ]
        self.tokens = HubTokens(
            Signer(table),
            {ONE: KeyIndices(indices[0], indices[1]), TWO: KeyIndices(indices[2])},
            self.clock,
            lambda: self.trusted,
            60.0,
            Metrics(self.registry),
        )


def test_a_token_is_what_the_standard_library_makes_of_the_same_key_and_expiry() -> None:
    token = Desk().tokens.sign(ONE, secondary=False)
    assert token.text.decode() == sas_token(HOST, "dev-01", key("primary"), 1_800_000_061)


def test_its_life_counts_from_the_signing_and_is_rounded_up_to_a_whole_second_of_the_wall_clock() -> None:
    token = Desk().tokens.sign(ONE, secondary=False)
    assert token.signed == 500.0
    assert token.expires == pytest.approx(560.75)


def test_the_secondary_key_signs_when_asked_for() -> None:
    token = Desk().tokens.sign(ONE, secondary=True)
    assert token.text.decode() == sas_token(HOST, "dev-01", key("secondary"), 1_800_000_061)


def test_an_identity_with_one_key_signs_with_it_whatever_is_asked_for() -> None:
    desk = Desk()
    assert desk.tokens.sign(TWO, secondary=True).text == desk.tokens.sign(TWO, secondary=False).text
    assert (desk.tokens.has_secondary(ONE), desk.tokens.has_secondary(TWO)) == (True, False)


def test_nothing_is_signed_while_the_clock_is_known_wrong() -> None:
    desk = Desk()
    desk.trusted = False
    with pytest.raises(ClockUntrusted):
        desk.tokens.sign(ONE, secondary=False)
    assert desk.registry.get_sample_value("gatewayd_token_signatures_total") == 0


def test_every_signature_is_counted() -> None:
    desk = Desk()
    for _ in range(3):
        desk.tokens.sign(ONE, secondary=False)
    assert desk.registry.get_sample_value("gatewayd_token_signatures_total") == 3


def test_an_identity_without_a_key_is_an_error_that_names_it() -> None:
    desk = Desk()
    with pytest.raises(LocalProtocolError, match="dev-03"):
        desk.tokens.sign(Identity("dev-03"), secondary=False)
    assert not desk.tokens.has_secondary(Identity("dev-03"))


def test_another_lifetime_holds_from_the_next_token_on() -> None:
    desk = Desk()
    desk.tokens.lifetime = 10.0
    assert desk.tokens.sign(ONE, secondary=False).expires == pytest.approx(510.75)
