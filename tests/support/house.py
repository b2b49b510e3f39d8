"""Reads the house from its imports: floors, rooms, purity, and the mirror of the tests.

Used on the real tree by test_floors.py and test_mirror.py, and on small broken trees to show that it can fail.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "gatewayd"

FLOORS: dict[str, int] = {
    "errors": 0,
    "clock": 0,
    "message": 0,
    "backoff": 0,
    "metrics": 0,
    "tallies": 0,
    "protocol": 1,
    "tokens": 2,
    "store": 2,
    "transport": 2,
    "credentials": 2,
    "downstream": 3,
    "upstream": 3,
    "broker": 3,
    "flow": 4,
    "daemon": 5,
    "emulator": 5,
    "operator": 6,
    "demo": 6,
    "cli": 7,
    "__main__": 7,
}

# Time and chance are arguments here, and nothing waits.
IMPURE = frozenset(
    {"asyncio", "socket", "ssl", "time", "sqlite3", "threading", "logging", "random", "prometheus_client"}
)
PURE_ROOMS = ("gatewayd.protocol",)
PURE_MODULES = frozenset(
    {
        "gatewayd.message",
        "gatewayd.backoff",
        "gatewayd.tokens.renewal_timetable",
        "gatewayd.upstream.budget",
        "gatewayd.upstream.handover",
        "gatewayd.upstream.hub_ends",
        "gatewayd.upstream.hub_message",
        "gatewayd.upstream.hub_subscriptions",
        "gatewayd.upstream.session",
        "gatewayd.store.messages",
        "gatewayd.store.commands",
        "gatewayd.store.backlog",
        "gatewayd.store.retention",
        "gatewayd.store.seq_ranges",
        "gatewayd.flow.renewal",
        "gatewayd.flow.backlog",
        "gatewayd.flow.send_pace",
        "gatewayd.flow.storing_rules",
        "gatewayd.flow.deliveries",
        "gatewayd.flow.in_flight",
        "gatewayd.flow.method_calls",
        "gatewayd.flow.twin_document",
        "gatewayd.flow.twin_line",
        "gatewayd.flow.session_notes",
    }
)

# The emulator judges us, so it shares as little of ours as it can.
EMULATOR_MAY_IMPORT = ("gatewayd.protocol.mqtt", "gatewayd.transport", "gatewayd.clock", "gatewayd.emulator")

ONLY_IN: dict[str, frozenset[str]] = {
    "time": frozenset({"gatewayd.clock"}),
    "threading": frozenset(
        {"gatewayd.transport.worker", "gatewayd.store.store_thread", "gatewayd.tokens.key_table"}
    ),
    "sqlite3": frozenset(
        f"gatewayd.store.{name}" for name in ("schema", "outbox", "keepsakes", "damage", "keeper", "reading")
    ),
    "gatewayd.tokens._sas_native": frozenset({"gatewayd.tokens.key_table", "gatewayd.tokens.signer"}),
}
# What people run beside the daemon has its own processes and clocks on the wall; the rule is for the daemon.
ONLY_IN_EXEMPT = ("gatewayd.demo",)


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Every module of the package under `root`: its dotted name and file."""
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> set[str]:
    """Dotted names a file imports; `from a import b` gives "a" and "a.b"."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room(name: str) -> str:
    """The room of a dotted module name: what follows the package's name, or "" for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def floor_violations(root: Path) -> list[str]:
    """Everything in the tree under `root` that breaks the house's rules, a sentence each."""
    found: list[str] = []
    for name, path in modules(root):
        if not room(name):
            continue
        if room(name) not in FLOORS:
            found.append(f"{name}: room {room(name)!r} has no floor")
            continue
        imported = imports(path)
        found += _floor_faults(name, {target for target in imported if within(target, PACKAGE)})
        if name in PURE_MODULES or any(within(name, pure) for pure in PURE_ROOMS):
            found += [
                f"{name}: pure, but imports {bad}"
                for bad in sorted(IMPURE)
                if any(within(i, bad) for i in imported)
            ]
        for target, allowed in ONLY_IN.items():
            exempt = name in allowed or any(within(name, prefix) for prefix in ONLY_IN_EXEMPT)
            if not exempt and any(within(i, target) for i in imported):
                found.append(f"{name}: imports {target}, which only {', '.join(sorted(allowed))} may")
    return found + _cycles(root)


def _floor_faults(name: str, targets: set[str]) -> Iterator[str]:
    here = room(name)
    for target in sorted(targets):
        there = room(target)
        if there == here or there not in FLOORS:
            continue
        foreign_to_emulator = not any(
            within(target, allowed) or within(allowed, target) for allowed in EMULATOR_MAY_IMPORT
        )
        if here == "emulator" and foreign_to_emulator:
            yield f"{name}: the emulator may not import {target}"
        if FLOORS[there] > FLOORS[here]:
            yield f"{name}: floor {FLOORS[here]} imports {target} on floor {FLOORS[there]}"
        elif FLOORS[there] == FLOORS[here] > 0 and (here, there) != ("__main__", "cli"):
            yield f"{name}: rooms on one floor do not know each other, but it imports {target}"


def _cycles(root: Path) -> list[str]:
    known = dict(modules(root))
    graph = {
        name: sorted(i for i in imports(path) if i in known and i != name) for name, path in known.items()
    }
    state: dict[str, int] = {}
    found: list[str] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        state[name] = 1
        for target in graph[name]:
            if state.get(target) == 1:
                start = trail.index(target) if target in trail else len(trail)
                found.append("cycle: " + " -> ".join((*trail[start:], name, target)))
            elif target not in state:
                visit(target, (*trail, name))
        state[name] = 2

    for name in graph:
        if name not in state:
            visit(name, ())
    return found


def mirror_violations(root: Path) -> list[str]:
    """Modules without a test module, and test modules without a module."""
    expected: dict[Path, str] = {}
    for name, path in modules(root):
        if path.name in {"__init__.py", "__main__.py"}:
            continue
        relative = path.relative_to(root / PACKAGE)
        expected[Path("tests") / relative.parent / f"test_{relative.name}"] = name
    found = [f"{name}: has no {test}" for test, name in expected.items() if not (root / test).is_file()]
    rooms = {path.parent.relative_to(root / PACKAGE) for _, path in modules(root)}
    for directory in sorted(rooms):
        for test in sorted((root / "tests" / directory).glob("test_*.py")):
            relative = test.relative_to(root)
            if relative not in expected and relative not in HOUSE_TESTS:
                found.append(f"{relative}: mirrors no module")
    return found


# Tests of the house itself rather than of one module.
HOUSE_TESTS = frozenset(
    Path("tests") / f"test_{name}.py" for name in ("docs", "floors", "metrics_doc", "mirror", "readme")
)
