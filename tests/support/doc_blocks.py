"""The parts of docs/ that are made from the code: `python -m tests.support.doc_blocks` writes them anew.

A page holds them between two comments:

    <!-- made from the code: NAME -->
    <!-- end of NAME -->

What stands between is replaced; everything else of the page is people's. tests/test_docs.py compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from gatewayd.upstream.handover import Mode
from tests.support import diagrams, refusal_blocks

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(
    r"(<!-- made from the code: (?P<name>[\w-]+) -->\n)(?P<text>.*?)(<!-- end of (?P=name) -->)", re.DOTALL
)


def decisions_index(folder: Path = DOCS / "decisions") -> str:
    """A line for each decision record: its number and its title."""
    lines = []
    for path in sorted(folder.glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
        number, _, says = title.partition(" ")
        lines.append(f"- [{number.rstrip(':')}]({path.name}) {says}")
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "architecture.md": {
        "rooms": diagrams.rooms_diagram,
        "rooms-table": diagrams.rooms_table,
        "session": diagrams.session_diagram,
        "handover-strict": lambda: diagrams.handover_diagram(Mode.STRICT),
        "handover-fast": lambda: diagrams.handover_diagram(Mode.FAST),
        "handover-failures": lambda: diagrams.handover_failures(Mode.STRICT),
        "mqtt-packets": diagrams.packets_table,
        "mqtt-verbs": diagrams.verbs_table,
    },
    "operations.md": {
        "401003": lambda: refusal_blocks.by_cause(401003),
        "404104": lambda: refusal_blocks.by_cause(404104),
        "400027": lambda: refusal_blocks.by_cause(400027),
        "all-codes": refusal_blocks.all_codes,
    },
    "decisions/README.md": {"index": decisions_index},
}


def with_blocks(text: str, makers: dict[str, Callable[[], str]]) -> str:
    """The page with its blocks made anew. ValueError when page and makers name different blocks."""
    found = [match["name"] for match in _BLOCK.finditer(text)]
    if sorted(found) != sorted(makers):
        raise ValueError(f"the page has the blocks {sorted(found)}, and {sorted(makers)} are made")
    return _BLOCK.sub(lambda match: f"{match[1]}\n{makers[match['name']]()}\n{match[4]}", text)


def main() -> int:
    """Write every page."""
    for page, makers in BLOCKS.items():
        path = DOCS / page
        path.write_text(with_blocks(path.read_text(encoding="utf-8"), makers), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
