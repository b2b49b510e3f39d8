"""The style sheet, the script and the icon of the status page: own files of the package, read once.

Their address carries a mark of what is in them, so a browser keeps them for long and still sees a new release at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_NAMES: Final = ("status.css", "status.js", "status.svg")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file as it is served."""

    body: bytes
    content_type: str


class StaticFiles:
    """All of them. `mark` changes when one of them does."""

    def __init__(self) -> None:
        folder = resources.files("gatewayd.daemon") / "static"
        self._files = {
            name: StaticFile((folder / name).read_bytes(), _TYPES[name[name.rindex(".") :]])
            for name in _NAMES
        }
        digest = hashlib.sha256(b"".join(one.body for one in self._files.values()))
        self.mark = digest.hexdigest()[:12]

    def find(self, name: str) -> StaticFile | None:
        """The file of this name; no name leads out of the folder, because names are compared and never opened."""
        return self._files.get(name)
