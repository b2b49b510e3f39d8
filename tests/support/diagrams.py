"""Diagrams and tables of docs/architecture.md, drawn from the code: imports, floors, state tables.

Nothing here is written by hand that the code knows: a room that moves, an import that appears or a transition that
changes shows in the page, or fails the test that compares page and code. The diagrams are Mermaid text.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from gatewayd.protocol.mqtt.transitions import (
    CLIENT_PACKETS,
    CLIENT_VERBS,
    SERVER_PACKETS,
    SERVER_VERBS,
    Action,
    ClientState,
    ServerState,
)
from gatewayd.protocol.mqtt.wire import PacketType
from gatewayd.upstream import handover, session
from tests.support.house import FLOORS, PACKAGE, imports, modules, room, within

ROOT = Path(__file__).parents[2]
Edges = dict[tuple[str, str], list[str]]
S = TypeVar("S", bound=enum.Enum)


def rooms_diagram(root: Path = ROOT) -> str:
    """The floors with their rooms, and who imports whom. Floor 0 has no arrows: every room may use it."""
    names = _rooms(root)
    lines = ["flowchart TB"]
    for floor in sorted({FLOORS[name] for name in names}, reverse=True):
        lines.append(f'    subgraph floor{floor}["floor {floor}"]')
        lines += [f"        {_node(name)}[{name}]" for name in names if FLOORS[name] == floor]
        lines.append("    end")
    lines += [
        f"    {_node(name)} --> {_node(target)}"
        for name, targets in _room_imports(root).items()
        for target in targets
        if FLOORS[target] > 0
    ]
    # An invisible arrow keeps floor 0 below all others.
    lines.append("    protocol ~~~ errors")
    return _mermaid(lines)


def rooms_table(root: Path = ROOT) -> str:
    """Every room: its floor, what it is for, and its modules."""
    rows = ["| floor | room | what it is for | modules |", "|---|---|---|---|"]
    for name in sorted(_rooms(root), key=lambda one: (-FLOORS[one], one)):
        folder = root / PACKAGE / name
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        held = ""
        if folder.is_dir():
            paths = (path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.py")))
            held = ", ".join(f"`{path.as_posix()}`" for path in paths if path.name != "__init__")
        rows.append(f"| {FLOORS[name]} | `{name}` | {_first_sentence(file)} | {held} |")
    return "\n".join(rows) + "\n"


def session_diagram() -> str:
    """The life of one identity at the hub. States with a token in use stand in a frame; what all share starts there."""
    inner = session.IN_USE
    edges: Edges = {}
    for (state, happened), then in session.TRANSITIONS.items():
        if state is then:
            continue
        shared = state in inner and all(session.TRANSITIONS.get((one, happened)) is then for one in inner)
        _add(edges, "IN_USE" if shared else state.name, then.name, happened.name)
    lines = ["stateDiagram-v2", "    state IN_USE {"]
    names = {one.name for one in inner}
    inside = [(pair, words) for pair, words in edges.items() if set(pair) <= names]
    lines += [f"        {state.name}" for state in session.State if state in inner]
    lines += [f"        {line}" for line in _arrows(inside)]
    lines.append("    }")
    lines.append("    [*] --> ABSENT")
    outside = [(pair, words) for pair, words in edges.items() if not set(pair) <= names]
    return _mermaid(lines + [f"    {line}" for line in _arrows(outside)])


def handover_diagram(mode: handover.Mode) -> str:
    """One handover as it goes well, and what the old connection's own end changes."""
    edges: Edges = {}
    for (stage, happened), (then, _) in handover.TRANSITIONS[mode].items():
        if then not in {stage, handover.Stage.FAILED, handover.Stage.DOWN}:
            _add(edges, stage.name, then.name, happened.name)
    lines = ["stateDiagram-v2", "    [*] --> DIALING", "    [*] --> DIALING_ALONE"]
    lines += [f"    {line}" for line in _arrows(edges.items())]
    return _mermaid([*lines, "    DONE --> [*]"])


def handover_failures(mode: handover.Mode) -> str:
    """How each stage fails: to FAILED, where the old connection works as before, or to DOWN."""
    ways: dict[handover.Stage, dict[str, list[str]]] = {}
    for (stage, happened), (then, _) in handover.TRANSITIONS[mode].items():
        if then in {handover.Stage.FAILED, handover.Stage.DOWN}:
            ways.setdefault(stage, {}).setdefault(then.name, []).append(happened.name)
    rows = ["| stage | ends in | upon |", "|---|---|---|"]
    rows += [
        f"| {stage.name} | {then} | {', '.join(sorted(upon))} |"
        for stage, ends in sorted(ways.items())
        for then, upon in ends.items()
    ]
    return "\n".join(rows) + "\n"


def packets_table() -> str:
    """What each packet does in each state of both roles of the MQTT core. An empty cell closes the connection."""
    columns = [
        *_columns("server", ServerState, SERVER_PACKETS),
        *_columns("client", ClientState, CLIENT_PACKETS),
    ]
    rows = [
        "| packet | " + " | ".join(head for head, _ in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for packet in PacketType:
        cells = [actions.get(packet) for _, actions in columns]
        if any(cells):
            words = (cell.name.lower().replace("_", " ") if cell else "" for cell in cells)
            rows.append(f"| {packet.name} | " + " | ".join(words) + " |")
    return "\n".join(rows) + "\n"


def verbs_table() -> str:
    """What an owner may ask of a connection, and where it leads."""
    rows = ["| role | verb | from | to |", "|---|---|---|---|"]
    rows += [f"| server | {verb.value} | {a.value} | {b.value} |" for (a, verb), b in SERVER_VERBS.items()]
    rows += [f"| client | {verb.value} | {c.value} | {d.value} |" for (c, verb), d in CLIENT_VERBS.items()]
    return "\n".join(rows) + "\n"


def _rooms(root: Path) -> list[str]:
    return sorted({room(name) for name, _ in modules(root) if room(name)})


def _room_imports(root: Path) -> dict[str, list[str]]:
    known = set(_rooms(root))
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, path in modules(root):
        if room(name):
            targets = {room(target) for target in imports(path) if within(target, PACKAGE)}
            found[room(name)] |= (targets & known) - {room(name)}
    return {name: sorted(found[name]) for name in sorted(found)}


def _first_sentence(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).removesuffix(".").replace("|", "\\|")


def _node(name: str) -> str:
    return "main" if name == "__main__" else name


def _columns(
    role: str, kind: type[S], table: Mapping[tuple[S, PacketType], Action]
) -> list[tuple[str, dict[PacketType, Action]]]:
    """A column for each state that takes any packet: its head, and what each packet does."""
    found = [
        (
            f"{role}, {state.value}",
            {packet: action for (one, packet), action in table.items() if one is state},
        )
        for state in kind
    ]
    return [(head, actions) for head, actions in found if actions]


def _add(edges: Edges, start: str, end: str, word: str) -> None:
    words = edges.setdefault((start, end), [])
    if word not in words:
        words.append(word)


def _arrows(edges: Iterable[tuple[tuple[str, str], list[str]]]) -> list[str]:
    return [f"{start} --> {end}: {', '.join(words)}" for (start, end), words in edges]


def _mermaid(lines: Iterable[str]) -> str:
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"
