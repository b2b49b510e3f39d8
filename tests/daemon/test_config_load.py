"""Reading a configuration: every problem at once, each with path, line and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.daemon.config_load import MAX_FILE_BYTES, load_config, parse_config, read_text
from gatewayd.daemon.config_values import Surroundings
from gatewayd.errors import ConfigError, ConfigProblem
from tests.support.config_files import HUB, write_config

FIVE_MISTAKES = """\
[hub]
hostname = "contoso.azure-devices.net"
transport = "amqp"

[tokens]
lifetime = 60
renew_earliest = 0.9
renew_latst = 0.85

[hub.budget]
connects_per_second = 50000

[listener]
adress = "0.0.0.0:8883"

[devices]
file = "devices.csv"
"""


def problems_of(text: str) -> dict[str, ConfigProblem]:
    with pytest.raises(ConfigError) as error:
        parse_config(text)
    return {problem.path: problem for problem in error.value.problems}


def test_a_file_is_read_with_paths_from_its_own_folder(tmp_path: Path) -> None:
    files = write_config(tmp_path)
    config = load_config(files.toml, {})
    assert config.hub.hostname == HUB
    assert config.listener.certificate == files.certificate
    assert config.devices.file == files.devices


def test_every_mistake_is_reported_at_once() -> None:
    assert set(problems_of(FIVE_MISTAKES)) == {
        "hub.transport",
        "tokens.lifetime",
        "tokens.renew_latst",
        "hub.budget.connects_per_second",
        "listener.adress",
        "listener.certificate",
        "tokens.renew_earliest",
    }


@pytest.mark.parametrize(
    ("path", "line", "problem", "allowed"),
    [
        ("hub.transport", 3, '"amqp" is not in this version', '"mqtt" or "websocket"'),
        ("tokens.lifetime", 6, "60 has no unit", 'from "10s" to "24h"'),
        ("tokens.renew_latst", 8, "did you mean tokens.renew_latest?", ""),
        ("hub.budget.connects_per_second", 11, "50000 is out of bounds", "from 1 to 1000"),
        ("listener.adress", 14, "did you mean listener.address?", ""),
        ("listener.certificate", 13, "is required and missing", "a path"),
        ("tokens.renew_earliest", 7, "is not before renew_latest = 0.85", "less than 0.85"),
    ],
)
def test_a_mistake_says_where_it_is_what_it_is_and_what_is_allowed(
    path: str, line: int, problem: str, allowed: str
) -> None:
    found = problems_of(FIVE_MISTAKES)[path]
    assert found.line == line
    assert problem in found.problem
    assert allowed in found.allowed


def test_a_rule_is_not_asked_about_a_key_that_is_wrong_in_itself() -> None:
    text = FIVE_MISTAKES.replace("renew_earliest = 0.9", "renew_earliest = 7")
    assert "is not before" not in problems_of(text)["tokens.renew_earliest"].problem


def test_a_key_in_the_wrong_table_names_the_right_one() -> None:
    found = problems_of('[hub]\nhostname = "h"\nlifetime = "60m"\n')
    assert "did you mean tokens.lifetime?" in found["hub.lifetime"].problem


def test_an_unknown_table_lists_the_known_ones() -> None:
    assert "listener" in problems_of("[[nonsense]]\n")["nonsense"].allowed


def test_a_table_written_as_a_value_is_one_problem() -> None:
    found = problems_of('hub = 3\n[listener]\ncertificate = "c"\n[devices]\nfile = "d"\n')
    assert list(found) == ["hub"]
    assert found["hub"].problem == "must be a table"


def test_an_empty_file_misses_the_required_keys_and_nothing_else() -> None:
    assert set(problems_of("")) == {"hub.hostname", "listener.certificate", "devices.file"}


def test_the_message_of_the_error_holds_every_problem() -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(FIVE_MISTAKES)
    assert all(str(problem) in str(error.value) for problem in error.value.problems)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[hub\n", "is not TOML"),
        (b"a = 1\na = 2\n", "is not TOML"),
        (b"\xff\xfe", "is not UTF-8 at byte 0"),
        (b"#" * (MAX_FILE_BYTES + 1), "is too large"),
        (b"a = " + b"[" * 100_000, "is not TOML"),
    ],
    ids=["syntax", "twice", "encoding", "size", "depth"],
)
def test_a_file_that_is_no_configuration_says_why(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "gatewayd.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        load_config(file, {})


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "absent.toml", {})


def test_a_credential_is_looked_for_where_the_unit_was_given_it(tmp_path: Path) -> None:
    files = write_config(tmp_path)
    files.toml.write_text(files.toml.read_text().replace('"devices.csv"', '"credential:devices.csv"'))
    given_folder = {"CREDENTIALS_DIRECTORY": "/run/credentials/other.service"}
    assert load_config(files.toml, given_folder).devices.file == Path(
        "/run/credentials/other.service/devices.csv"
    )
    assert load_config(files.toml, {}).devices.file == Path("/run/credentials/gatewayd.service/devices.csv")


scalars = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text(max_size=20))
KEYS = [
    "hub",
    "tokens",
    "listener",
    "devices",
    "hostname",
    "lifetime",
    "budget",
    "certificate",
    "file",
    "x.y",
    "",
]


@given(
    st.dictionaries(
        st.sampled_from(KEYS),
        st.one_of(scalars, st.dictionaries(st.sampled_from(KEYS), scalars, max_size=4)),
        max_size=5,
    )
)
def test_any_toml_becomes_a_reading_or_problems_and_never_another_error(written: dict[str, object]) -> None:
    text = to_toml(written)
    reading = read_text(text, Surroundings())
    assert reading.problems or reading.config


def to_toml(table: dict[str, object]) -> str:
    """Enough TOML for the test above: values first, then tables."""
    lines = [f"{basic(key)} = {value(item)}" for key, item in table.items() if not isinstance(item, dict)]
    for key, item in table.items():
        if isinstance(item, dict):
            lines += [f"[{basic(key)}]", *(f"{basic(inner)} = {value(one)}" for inner, one in item.items())]
    return "\n".join(lines)


def value(item: object) -> str:
    if isinstance(item, bool):
        return str(item).lower()
    return basic(item) if isinstance(item, str) else repr(item)


def basic(text: str) -> str:
    return (
        '"'
        + "".join(c if c.isalnum() or c == "." else f"\\U{ord(c):08x}" for c in text if c.isprintable())
        + '"'
    )
