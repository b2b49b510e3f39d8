"""Finding a key in a TOML text."""

from __future__ import annotations

import pytest

from gatewayd.daemon.config_lines import line_of

TEXT = """\
# [hub]
top = 1
[hub]  # the hub
hostname = "lifetime = 3"
budget.reserve = 0.2

[ "tokens" ]
'lifetime' = "60m"
[tokens . backoff]
first = "1s"
[[array]]
inside = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("top", 2),
        ("hub", 3),
        ("hub.hostname", 4),
        ("hub.budget.reserve", 5),
        ("tokens.lifetime", 8),
        ("tokens.backoff.first", 10),
        ("tokens.backoff.absent", 9),
        ("hub.absent", 3),
        ("absent", None),
        ("array", None),
        ("", None),
    ],
)
def test_a_key_is_found_or_else_the_table_around_it(path: str, line: int | None) -> None:
    assert line_of(path, TEXT) == line
