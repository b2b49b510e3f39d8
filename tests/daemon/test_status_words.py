"""The words of the status page: nothing that can be is without one."""

from __future__ import annotations

import pytest

from gatewayd.daemon.status import STATE_NAMES
from gatewayd.daemon.status_words import HEALTH, STATES, UNKNOWN_HEALTH, health_remedy


def test_every_state_of_a_hub_session_has_a_word_and_no_other_has() -> None:
    assert set(STATES) == set(STATE_NAMES.values())
    assert len({word.word for word in STATES.values()}) == len(STATES)
    assert all(word.means for word in STATES.values())


@pytest.mark.parametrize("health", [name for name in HEALTH if name != "ok"])
def test_every_health_but_ok_says_what_to_do(health: str) -> None:
    assert health_remedy(health)


def test_a_health_that_is_new_here_is_not_passed_over() -> None:
    assert health_remedy("ok") == ""
    assert health_remedy("on_fire") == UNKNOWN_HEALTH
