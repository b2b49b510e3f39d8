"""The pages of docs/: what is made from the code is current, what people wrote names things that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gatewayd.daemon.config import sections, settings
from gatewayd.flow.in_flight import Stage as MessageStage
from gatewayd.protocol.iothub.refusals import (
    TABLE,
    Refusal,
    causes,
    classify_close,
    classify_connack,
)
from gatewayd.upstream.handover import TRANSITIONS, Mode, Stage
from gatewayd.upstream.session import State
from tests.support import diagrams
from tests.support.doc_blocks import BLOCKS, DOCS, decisions_index, with_blocks
from tests.support.house import FLOORS

ROOT = DOCS.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(DOCS / "decisions").glob("*.md"), *ROOT.glob("systemd/*.md")]
)
# What looks like a key in a page and is a file.
FILES = {"devices.csv", "outbox.db", "outbox.db.lock", "outbox.db.reserve"}
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)?(?:#([\w-]+))?\)")


@pytest.mark.parametrize("page", BLOCKS)
def test_what_is_made_from_the_code_is_current(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text == with_blocks(text, BLOCKS[page]), "run: make docs"


def test_a_stale_block_is_seen() -> None:
    page = "<!-- made from the code: one -->\n\nold\n\n<!-- end of one -->\n"
    assert with_blocks(page, {"one": lambda: "new\n"}) != page
    assert with_blocks(page, {"one": lambda: "old\n"}) == page


def test_a_block_without_a_maker_and_a_maker_without_a_block_are_errors() -> None:
    page = "<!-- made from the code: one -->\n<!-- end of one -->\n"
    with pytest.raises(ValueError, match="one"):
        with_blocks(page, {})
    with pytest.raises(ValueError, match="two"):
        with_blocks(page, {"one": str, "two": str})


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.code} {row.cause}")
def test_every_refusal_stands_in_the_runbooks_with_its_remedy(row: Refusal) -> None:
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith(f"| {row.code} ")]
    assert any(f"`{row.cause}`" in line and row.remedy in line for line in lines)


@pytest.mark.parametrize("code", [401003, 404104, 400027])
def test_the_codes_of_the_field_have_a_runbook_for_each_cause(code: int) -> None:
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    headings = re.findall(rf"^### {code} (.*)$", text, re.MULTILINE)
    assert headings == [row.cause for row in causes(code)]


def test_the_codes_that_can_be_inferred_on_mqtt_are_the_ones_the_page_names() -> None:
    inferred = {
        classify_connack(code, clock_trusted=trusted, token_fresh=fresh).refusal
        for code in range(1, 6)
        for trusted in (True, False)
        for fresh in (True, False)
    } | {
        classify_close(connected_for=up, expired_for=over, short_lives=lives).refusal
        for up in (None, 1.0, 1000.0)
        for over in (None, -1000.0, 1.0)
        for lives in (0, 9)
    }
    text = " ".join((DOCS / "operations.md").read_text(encoding="utf-8").split())
    named = ", ".join(
        f"{code} `{cause}`" for code, cause in sorted((one.code, one.cause) for one in inferred)
    )
    assert f"It reports these: {named}." in text


def test_every_room_and_every_state_is_drawn() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    built = {path.stem for path in (ROOT / "gatewayd").iterdir() if path.stem in FLOORS}
    assert {name for name in built if f"| `{name}` |" not in text} == set()
    assert {state.name for state in State if f"{state.name}" not in diagrams.session_diagram()} == set()
    drawn = diagrams.handover_diagram(Mode.STRICT) + diagrams.handover_failures(Mode.STRICT)
    reached = {then for then, _ in TRANSITIONS[Mode.STRICT].values()}
    assert {stage for stage in reached if stage.name not in drawn} == set()
    assert Stage.DONE in reached


def test_every_module_and_every_stage_that_the_house_names_exists() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rooms = "|".join(path.name for path in (ROOT / "gatewayd").iterdir() if path.is_dir())
    named = set(re.findall(rf"`((?:{rooms})(?:\.\w+)+)`", text)) - {setting.path for setting in settings()}
    assert named
    assert {name for name in named if not _is_module(name)} == set()
    assert not _is_module("flow.no_such_module")
    for stage in MessageStage:
        assert f"| {stage.name} |" in text


def _is_module(name: str) -> bool:
    path = ROOT / "gatewayd" / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_a_new_import_is_drawn(tmp_path: Path) -> None:
    for room in ("flow", "tokens"):
        (tmp_path / "gatewayd" / room).mkdir(parents=True)
        (tmp_path / "gatewayd" / room / "__init__.py").write_text(f'"""The {room}."""\n')
    assert "flow --> tokens" not in diagrams.rooms_diagram(tmp_path)
    (tmp_path / "gatewayd" / "flow" / "a.py").write_text("import gatewayd.tokens\n")
    assert "flow --> tokens" in diagrams.rooms_diagram(tmp_path)
    assert "| 4 | `flow` | The flow | `a` |" in diagrams.rooms_table(tmp_path)


def test_the_index_of_decisions_names_each_record_once() -> None:
    records = sorted(path.name for path in (DOCS / "decisions").glob("[0-9]*.md"))
    assert re.findall(r"\]\((\d{4}-[^)]*\.md)\)", decisions_index()) == records
    numbers = [name[:4] for name in records]
    assert sorted(set(numbers)) == numbers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path = (page.parent / target) if target else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            lost.append(f"{target}#{anchor}")
    assert lost == []


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_metric_that_a_page_names_exists() -> None:
    known = set(re.findall(r"`(gatewayd_\w+)`", (DOCS / "metrics.md").read_text(encoding="utf-8")))
    named = {
        name
        for page in (ROOT / "README.md", DOCS / "operations.md")
        for name in re.findall(r"\b(gatewayd_\w+)", page.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= known


def test_a_key_that_a_page_names_exists() -> None:
    keys = {setting.path for setting in settings()} | set(sections())
    rooms = "|".join(sorted({key.partition(".")[0] for key in keys}))
    for page in (ROOT / "README.md", DOCS / "operations.md", DOCS / "metrics.md"):
        named = set(re.findall(rf"`((?:{rooms})(?:\.\w+)+)`", page.read_text(encoding="utf-8")))
        assert named - keys - FILES == set(), page.name
