"""Where in a TOML text a key stands. For error messages only.

tomllib does not say where a value came from, so this looks for headers and keys line by line. It knows the forms an
operator writes ([table], key = value, dotted keys, quoted keys) and answers None rather than guess for the others.
"""

from __future__ import annotations

import re

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)


def line_of(path: str, text: str) -> int | None:
    """The line, from 1, of the key or table `path`; the nearest table around it when the key is not there."""
    places = _places(text)
    while path:
        if path in places:
            return places[path]
        path = path.rpartition(".")[0]
    return None


def _places(text: str) -> dict[str, int]:
    places: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _plain(header[1])
            places.setdefault(table, number)
        elif key := _KEY.match(line):
            name = _plain(key[1])
            places.setdefault(f"{table}.{name}" if table else name, number)
    return places


def _plain(name: str) -> str:
    return ".".join(step.strip().strip("\"'") for step in name.split("."))
