"""Every exception says who must act, and how."""

from __future__ import annotations

import inspect

from gatewayd import errors


def test_every_exception_of_ours_says_who_must_act() -> None:
    ours = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(ours) > 5
    assert all(isinstance(kind.acts, errors.Actor) for kind in ours if issubclass(kind, errors.GatewaydError))
    assert all(issubclass(kind, errors.GatewaydError) for kind in ours)


def test_the_tree_in_the_docstring_names_every_exception() -> None:
    ours = [name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert [name for name in ours if name not in (errors.__doc__ or "")] == []


def test_a_config_error_tells_all_problems_with_path_and_what_is_allowed() -> None:
    error = errors.ConfigError(
        (
            errors.ConfigProblem("tokens.lifetime", "60 has no unit", 'a duration such as "60m"'),
            errors.ConfigProblem("hub.hostnam", "unknown key"),
        )
    )
    assert (
        str(error)
        == 'tokens.lifetime: 60 has no unit (allowed: a duration such as "60m"); hub.hostnam: unknown key'
    )
    assert error.acts is errors.Actor.OPERATOR


def test_a_peer_fault_names_the_clause_it_breaks() -> None:
    assert (
        str(errors.RemoteProtocolError("CONNECT twice", clause="MQTT-3.1.0-2"))
        == "CONNECT twice [MQTT-3.1.0-2]"
    )


def test_a_malformed_key_is_named_by_its_identity() -> None:
    error = errors.KeyMalformed("device-1", "not base64")
    assert str(error) == "key of 'device-1': not base64"
