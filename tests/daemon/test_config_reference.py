"""The reference is current, and the example is a configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gatewayd.daemon.config import Config, settings
from gatewayd.daemon.config_load import parse_config
from gatewayd.daemon.config_reference import EXAMPLES, example, main, reference

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("name", "expected"), [("configuration.md", reference()), ("gatewayd.example.toml", example())]
)
def test_the_files_in_docs_are_what_the_models_say(name: str, expected: str) -> None:
    current = (DOCS / name).read_text(encoding="utf-8")
    assert current == expected, "run: python -m gatewayd.daemon.config_reference docs"


def test_every_key_stands_in_the_reference_with_its_default() -> None:
    page = reference()
    for setting in settings():
        assert f"| `{setting.key}` |" in page
        assert setting.kind.allowed in page


def test_the_example_as_it_is_means_the_defaults() -> None:
    config = parse_config(example())
    for setting in settings():
        if setting.default is None and not setting.required:
            assert setting.value_in(config) is None


def test_the_example_with_every_line_set_is_a_configuration_too() -> None:
    everything = re.sub(r"^#(?=[a-z_]+ = )", "", example(), flags=re.MULTILINE)
    config = parse_config(everything)
    defaults = parse_config(example())
    for setting in settings():
        if setting.path not in EXAMPLES:
            assert setting.value_in(config) == setting.value_in(defaults), setting.path


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["configuration.md", "gatewayd.example.toml"]


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == Config.model_json_schema()
