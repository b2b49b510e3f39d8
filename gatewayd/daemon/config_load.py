"""From the text of a file to a `Config`, or to every problem of it at once.

A mistake in one key does not hide a mistake in another: the keys that are wrong are set aside, what is left is read
again with defaults in their place, and the rules between keys are asked as far as they do not read a key set aside.
Files that the keys name are not opened here.
Each problem has the path of its key, its line where it can be found, and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gatewayd.daemon.config import Config, sections, settings
from gatewayd.daemon.config_lines import line_of
from gatewayd.daemon.config_rules import broken_rules
from gatewayd.daemon.config_values import CREDENTIALS_OF_THE_UNIT, Surroundings
from gatewayd.errors import ConfigError, ConfigProblem

DEFAULT_CONFIG_FILE = Path("/etc/gatewayd/gatewayd.toml")

# A configuration has some fifty keys; a file beyond this is something else.
MAX_FILE_BYTES = 1 << 20

# What stands in for a required key that is missing or wrong, so that the other keys can still be judged.
_STAND_INS = {
    "hub.hostname": "stand-in.invalid",
    "listener.certificate": "/nonexistent",
    "devices.file": "/nonexistent",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says. With problems, `config` holds defaults and stand-ins at the paths in `wrong`."""

    config: Config
    problems: tuple[ConfigProblem, ...]
    text: str

    @property
    def wrong(self) -> frozenset[str]:
        """The keys and tables of `config` that are not what was written."""
        return frozenset(problem.path for problem in self.problems)


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in a file. ConfigError with every problem when it cannot be used."""
    reading = read_file(path, os.environ if environ is None else environ)
    if reading.problems:
        raise ConfigError(reading.problems)
    return reading.config


def parse_config(text: str, surroundings: Surroundings | None = None) -> Config:
    """The configuration in a text. ConfigError with every problem when it cannot be used."""
    reading = read_text(text, surroundings or Surroundings())
    if reading.problems:
        raise ConfigError(reading.problems)
    return reading.config


def read_file(path: Path, environ: Mapping[str, str]) -> Reading:
    """What a file says. ConfigError only when it is no configuration at all, so that nothing else can be said."""
    try:
        with path.open("rb") as file:
            written = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError((ConfigProblem(str(path), f"cannot be read: {error.strerror}"),)) from error
    if len(written) > MAX_FILE_BYTES:
        limit = f"at most {MAX_FILE_BYTES} bytes"
        raise ConfigError((ConfigProblem(str(path), "is too large to be a configuration", limit),))
    try:
        text = written.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError((ConfigProblem(str(path), f"is not UTF-8 at byte {error.start}"),)) from error
    return read_text(text, surroundings_of(path, environ), str(path))


def read_text(text: str, surroundings: Surroundings, name: str = "configuration") -> Reading:
    """What a text says. ConfigError only when it is not TOML."""
    try:
        written = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError((ConfigProblem(name, f"is not TOML: {error}"),)) from error
    config, problems = _read(written, surroundings)
    problems += broken_rules(config, skip={problem.path for problem in problems})
    return Reading(config, with_lines(problems, text), text)


def with_lines(problems: Iterable[ConfigProblem], text: str) -> tuple[ConfigProblem, ...]:
    """The problems with the lines of their keys in `text`."""
    return tuple(replace(problem, line=line_of(problem.path, text)) for problem in problems)


def surroundings_of(path: Path, environ: Mapping[str, str]) -> Surroundings:
    """What the values of a file may refer to."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return Surroundings(
        folder=path.absolute().parent,
        credentials=Path(credentials) if credentials else CREDENTIALS_OF_THE_UNIT,
    )


def _read(written: dict[str, Any], surroundings: Surroundings) -> tuple[Config, list[ConfigProblem]]:
    """The values and their problems; what was wrong is replaced by its default or a stand-in."""
    for section in {path.partition(".")[0] for path in _STAND_INS}:
        written.setdefault(section, {})
    try:
        return Config.model_validate(written, context=surroundings), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    for details in found:
        _set_aside(written, details["loc"])
    for path, stand_in in _STAND_INS.items():
        section, _, key = path.partition(".")
        written.setdefault(section, {}).setdefault(key, stand_in)
    # What is left was read before without complaint, and nothing required is missing now.
    return Config.model_validate(written, context=surroundings), [_problem(details) for details in found]


def _set_aside(written: dict[str, Any], loc: tuple[int | str, ...]) -> None:
    table = written
    for step in loc[:-1]:
        table = table[str(step)]
    table.pop(str(loc[-1]), None)


def _problem(details: ErrorDetails) -> ConfigProblem:
    path = ".".join(str(step) for step in details["loc"])
    match details["type"]:
        case "not_allowed":
            return ConfigProblem(path, details["ctx"]["problem"], details["ctx"]["allowed"])
        case "missing":
            return ConfigProblem(path, "is required and missing", _allowed(path))
        case "extra_forbidden":
            return _unknown(path)
        case _:
            return ConfigProblem(path, "must be a table", f"[{path}] and its keys")


def _allowed(path: str) -> str:
    return next(setting.kind.allowed for setting in settings() if setting.path == path)


def _unknown(path: str) -> ConfigProblem:
    """An unknown key, and the one that was probably meant; all that may stand there when no guess is near."""
    table, _, name = path.rpartition(".")
    known = [*(setting.path for setting in settings()), *sections()]
    siblings = [entry.rpartition(".")[2] for entry in known if entry.rpartition(".")[0] == table]
    meant = [entry for entry in known if entry.rpartition(".")[2] == name]
    if close := difflib.get_close_matches(name, siblings, n=1):
        meant = [f"{table}.{close[0]}" if table else close[0]]
    if meant:
        return ConfigProblem(path, f"is not a key of gatewayd; did you mean {meant[0]}?")
    return ConfigProblem(path, "is not a key of gatewayd", ", ".join(siblings))
